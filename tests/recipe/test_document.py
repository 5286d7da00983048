import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from onnxq.errors import UsageProblem
from onnxq.recipe import DataSettings, OptimizeSettings, format_recipe, parse_recipe, read_recipe
from onnxq.recipe.settings import Effort, Format, Ranges, Verify

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
count = st.integers(1, 2**40)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


data_settings = st.builds(
    DataSettings,
    samples=maybe(count),
    batch_size=count,
    tokenizer=maybe(words),
    max_length=count,
    image_size=maybe(count),
    mean=st.tuples(st.floats(-9, 9), st.floats(-9, 9)),
    std=st.tuples(st.floats(1e-9, 9), st.floats(1e-9, 9)),
)
shapes = st.dictionaries(words, st.lists(count, min_size=1).map(tuple))
settings = st.builds(
    OptimizeSettings,
    target=words,
    effort=st.sampled_from(get_args(Effort)),
    format=st.sampled_from(get_args(Format)),
    ranges=maybe(st.sampled_from(get_args(Ranges))),
    min_fidelity=maybe(st.floats(-1, 1)),
    min_speedup=maybe(st.floats(1e-9, 1e9)),
    threads=maybe(count),
    max_size=maybe(count),
    shapes=shapes | st.lists(shapes, min_size=1).map(tuple),
    costs=st.dictionaries(words, st.floats(1e-9, 1e9)),
    passes=maybe(st.lists(words).map(tuple)),
    keep_float=st.lists(words).map(tuple),
    verify=st.sampled_from(get_args(Verify)),
    seed=st.integers(),
    data=data_settings,
)


@settings_of_hypothesis(deadline=None)  # the first example builds all strategies
@given(settings)
def test_a_recipe_reads_back_as_the_settings_it_was_written_from(made: OptimizeSettings) -> None:
    assert parse_recipe(format_recipe(made)) == made


def test_a_recipe_says_every_setting_that_has_a_value() -> None:
    text = format_recipe(OptimizeSettings())
    told = {line.split(" = ")[0] for line in text.splitlines() if " = " in line}
    valued = {field.name for field in dataclasses.fields(OptimizeSettings) if field.default is not None}
    assert valued - told == {"shapes", "costs", "data"}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "the recipe has no version", "version = 1"),
        ("version = 7", "the recipe is of version 7", "version = 1"),
        ("version = ", "the recipe is not TOML", ""),
        ("version = 1\nefort = 'best'", "there is no setting 'efort'", "Did you mean 'effort'?"),
        ("version = 1\n[data]\nsample = 3", "there is no setting 'data.sample'", "Did you mean 'samples'?"),
        ("version = 1\neffort = 'bests'", "effort is 'bests'", "Did you mean 'best'?"),
        ("version = 1\neffort = 3", "effort is 3", "one of fast, balanced, best"),
        ("version = 1\nseed = true", "seed is True", "a whole number"),
        ("version = 1\nseed = 1.5", "seed is 1.5", "a whole number"),
        ("version = 1\nmin_fidelity = '0.9'", "min_fidelity is '0.9'", "a number"),
        ("version = 1\nmin_fidelity = 1.5", "min_fidelity is 1.5", "at most 1"),
        ("version = 1\npasses = 'a'", "passes is 'a'", "a list of text"),
        ("version = 1\npasses = [1]", "passes[0] is 1", "text"),
        ("version = 1\ndata = 4", "data is 4", "a table"),
        ("version = 1\n[data]\nimage_size = [224]", "data.image_size is [224]", "a whole number"),
        ("version = 1\n[data]\nstd = [0.0]", "std is", "above 0"),
        ("version = 1\n[data]\nmean = [0.5, 0.4]", "mean and std", "one length"),
        ("version = 1\n[data]\nbatch_size = 0", "batch_size is 0", "1 or more"),
        ("version = 1\nmax_drop = 0.01", "max_drop and eval come together", "--eval"),
        ("version = 1\nmin_speedup = 0", "min_speedup is 0", "above 0"),
        ("version = 1\nthreads = 0", "threads is 0", "1 or more"),
        ("version = 1\n[shapes]\nx = [1, -1]", "shape of 'x' is 1x-1", "1 or more"),
        ("version = 1\nmax_size = 0", "max_size is 0", "1 or more"),
        ("version = 1\n[costs]\ncall = -1.0", "costs.call is -1.0", "above 0"),
        ("version = 1\n[costs]\ncall = inf", "costs.call is inf", "above 0"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_way_out(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        parse_recipe(text)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.slug


def test_a_recipe_that_cannot_be_read_names_its_file(tmp_path: Path) -> None:
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    for path in (tmp_path / "missing.toml", tmp_path, binary):
        with pytest.raises(UsageProblem, match=str(path)):
            read_recipe(path)


def test_data_settings_say_the_same_to_the_data_source() -> None:
    options = DataSettings(samples=5, batch_size=2, mean=(0.5,), std=(0.2,), image_size=64).options(seed=7)
    assert (options.limit, options.samples, options.batch_size, options.seed) == (5, 5, 2, 7)
    assert (options.mean, options.std, options.image_size) == ((0.5,), (0.2,), 64)
    assert DataSettings().options().limit is None
