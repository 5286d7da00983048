"""What each target emits and forbids, out of its data: ``docs/targets.md``.

``python -m tests.docs.targets`` writes the page.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnxq.targets import TARGETS, Target
from tests.docs.blocks import ROOT

PAGE = ROOT / "docs" / "targets.md"
INTRODUCTION = """# Targets

What a file is written for: `onnxq optimize MODEL --calib DATA --target NAME`. Without `--target` the
processor of this machine is looked at: AMX, VNNI or neither on x86, matrix or dot products on Arm. Graphics
processors and other runtimes are never guessed.

A target is data (`onnxq/targets/catalogue.py`): what to emit, what operators cost, and what never to emit.
The latter is looked for in every file that comes out (`onnxq.targets.violations`), for which no such hardware
is needed: a node in a forbidden form stops `optimize` if a pass made it. What came with the model may stay.

Written by `python -m tests.docs.targets`.

## What is emitted
"""
OPENING = """## What the runtime is told

What a graph cannot say is in `MODEL.session.json` beside `MODEL.onnx`: the provider, its options, entries of
the session's configuration, graph optimizers to leave out, and of each the reason and where it is known from.
`onnxq.session("MODEL.onnx")` opens a model with it. `onnxq bench` heeds it where `--provider` is its own, and
says so. What onnxq itself would never ask for is refused. On CPUs the
figures of `optimize` are of sessions without it.

ONNX Runtime's provider for x86 needs to be told nothing, so there is no file. Leaving out its fusion of skip
connections into norms gained a Q/DQ file of MiniLM nothing, whose additions are spelled so that it does not
fire; decoding SmolLM2 with a cache gained nothing by leaving out memory patterns or by finer blocks of work,
and lost by letting idle threads sleep.
"""
_FORMS = {
    "kernel": "ONNX Runtime's integer operators",
    "qdq": "standard Q/DQ",
    "weight-only": "`MatMulNBits`",
}


def page() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *_emitted(), "", *_opened(), "", *_forbidden()]) + "\n"


def _emitted() -> Iterator[str]:
    yield "| target | for | products | activations | weights | bias | else |"
    yield "|---|---|---|---|---|---|---|"
    for target in TARGETS.values():
        cells = (_FORMS[target.format], _activations(target), _weights(target), target.bias_type)
        yield f"| `{target.name}` | {target.title} | {' | '.join(cells)} | {_rest(target)} |"


def _activations(target: Target) -> str:
    if target.activation_type is None:
        return "float"
    return f"{target.activation_type}, {'zero point 0' if target.activation_symmetric else 'any zero point'}"


def _weights(target: Target) -> str:
    scales = "a scale for each column"
    words = [] if target.activation_type is None else [f"int8 of {target.weight_bits} bits, {scales}"]
    if target.block_bits:
        sizes = ", ".join(map(str, target.block_sizes))
        bits = " or ".join(map(str, sorted(target.block_bits)))
        words.append(f"{bits} bits in blocks of {sizes}")
    return "; ".join(words)


def _rest(target: Target) -> str:
    words = [target.float_type]
    if target.float_kept:
        words.append("norms in float32")
    if target.quantized_attention:
        words.append("attention's products quantized")
    return ", ".join(words)


def _opened() -> Iterator[str]:
    yield OPENING
    yield "| target | told | because | known from |"
    yield "|---|---|---|---|"
    for target in TARGETS.values():
        for each in target.opening:
            value = f"`{each.name}` = `{each.value}`" if each.value else f"without `{each.name}`"
            yield f"| `{target.name}` | {each.kind} {value} | {each.reason} | {each.known} |"


def _forbidden() -> Iterator[str]:
    yield "## What is forbidden"
    yield ""
    yield "| form | by | because |"
    yield "|---|---|---|"
    told: dict[tuple[str, str], list[str]] = {}
    for target in TARGETS.values():
        for slug, reason in target.forbidden.items():
            told.setdefault((slug, reason), []).append(target.name)
    for (slug, reason), names in told.items():
        by = "all" if len(names) == len(TARGETS) else ", ".join(f"`{name}`" for name in names)
        yield f"| {slug} | {by} | {reason} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
