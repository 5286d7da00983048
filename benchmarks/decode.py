"""Prefill and decode of a language model with a cache, one model a process, in alternated rounds.

    python -m benchmarks.decode fp32=A.onnx int8=B.onnx ... [--rounds 3] [--tokens 64] [--judge] [-o FILE]

Prefill is one call with 256 tokens and a past of length 0. Decode starts from what that call gave: each call
takes the likeliest next token, and its keys and values stay where the runtime put them (IO binding) to be the
past of the next call. The first model named is what the others are compared with. `--judge` adds their
perplexity on the test chunks of `smollm2-cache`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestants import Runtime
from benchmarks.export import Arrays
from benchmarks.judging import Answering
from benchmarks.rounds import Entry
from benchmarks.tasks import TASKS, Scores

PROMPT = 256
WARM_UP = 8
PREFILLS = 6


@dataclass(frozen=True)
class Speed:
    """What one process measured.

    Attributes:
        prefill_ms: Each call of a whole prompt, in milliseconds.
        decode_ms: Each call of one token.
    """

    prefill_ms: tuple[float, ...]
    decode_ms: tuple[float, ...]


def measure(path: Path, tokens: int, threads: int, prompt: Arrays) -> Speed:
    """Time one model in this process.

    Args:
        path: An ONNX file with the inputs and outputs that `benchmarks.cached` names.
        tokens: How many tokens to decode.
        threads: Threads of the runtime.
        prompt: Inputs of a first call, one sample.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    prefill = []
    for _ in range(PREFILLS):
        begin = time.perf_counter()
        outputs = session.run(None, prompt)
        prefill.append(1e3 * (time.perf_counter() - begin))
    token = int(outputs[0][0, -1].argmax())
    past = [onnxruntime.OrtValue.ortvalue_from_numpy(each) for each in outputs[1:]]
    return Speed(tuple(prefill[1:]), tuple(_decode(session, token, past, WARM_UP + tokens)[WARM_UP:]))


def _decode(session: Any, token: int, past: Sequence[Any], tokens: int) -> list[float]:
    """Milliseconds of each of so many calls, each with the likeliest token of the one before."""
    names = [each.name for each in session.get_inputs() if each.name.startswith("past")]
    outputs = [each.name for each in session.get_outputs()]
    length, took = past[0].shape()[2], []
    for step in range(length, length + tokens):
        feeds = {
            "input_ids": np.array([[token]]),
            "attention_mask": np.ones((1, step + 1), np.int64),
            "position_ids": np.array([[step]]),
        }
        begin = time.perf_counter()
        binding = session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        for name, value in zip(names, past, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name)
        session.run_with_iobinding(binding)
        logits, *past = binding.get_outputs()
        token = int(logits.numpy()[0, -1].argmax())
        took.append(1e3 * (time.perf_counter() - begin))
    return took


def summarize(speeds: Sequence[Speed]) -> dict[str, float]:
    """Least and median milliseconds over all rounds, and tokens in a second."""
    prefill = [each for speed in speeds for each in speed.prefill_ms]
    decode = [each for speed in speeds for each in speed.decode_ms]
    return {
        "prefill_ms_least": min(prefill),
        "prefill_ms_median": statistics.median(prefill),
        "prefill_tokens_per_s": 1e3 * PROMPT / min(prefill),
        "decode_ms_least": min(decode),
        "decode_ms_median": statistics.median(decode),
        "decode_tokens_per_s": 1e3 / statistics.median(decode),
    }


def compare(found: dict[str, list[Speed]]) -> dict[str, dict[str, float]]:
    """Figures of each model, with speedups over the first."""
    rows = {name: summarize(speeds) for name, speeds in found.items()}
    first = next(iter(rows.values()))
    for row in rows.values():
        for phase in ("prefill", "decode"):
            for kind in ("least", "median"):
                key = f"{phase}_ms_{kind}"
                row[f"{phase}_speedup_{kind}"] = first[key] / row[key]
    return rows


def judge(models: dict[str, str]) -> dict[str, Scores]:
    """Scores of each file on the test chunks, against the first."""
    task, answers = TASKS["cached-language"], {}
    for name, path in models.items():
        with Answering(Entry(Path(path), Runtime("onnxruntime"))) as run:
            answers[name] = task.answer(run)
    first = next(iter(answers.values()))
    return {name: task.score(first, answer) for name, answer in answers.items()}


def _prompt() -> Arrays:
    from benchmarks.data import load, prepare

    inputs = load(prepare("smollm2-cache") / "test.npz")
    return {name: array[:1] for name, array in inputs.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the models named on the command line; with `--worker`, one of them in this process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--judge", action="store_true", help="measure perplexity, too")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args(arguments)
    models = dict(each.split("=", 1) for each in given.models)
    if given.worker:
        (path,) = models.values()
        print(json.dumps(asdict(measure(Path(path), given.tokens, given.threads, _prompt()))))
        return
    found: dict[str, list[Speed]] = {name: [] for name in models}
    for _ in range(given.rounds):
        for name, path in models.items():
            options = ["--worker", "--tokens", str(given.tokens), "--threads", str(given.threads)]
            command = [sys.executable, "-m", "benchmarks.decode", f"{name}={path}", *options]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[name].append(Speed(**{key: tuple(value) for key, value in json.loads(told).items()}))
    rows = compare(found)
    for name, row in rows.items():
        figures = [
            f"{phase} {row[f'{phase}_ms_least']:.2f} ms, {row[f'{phase}_speedup_least']:.2f}x "
            f"(median {row[f'{phase}_speedup_median']:.2f}x)"
            for phase in ("prefill", "decode")
        ]
        print(f"{name:16s} {'  '.join(figures)}")
    scores = judge(models) if given.judge else {}
    for name, each in scores.items():
        print(f"{name:16s} perplexity {each['perplexity']:.2f}, {each['perplexity_ratio']:.4f} of the first")
    if given.output is not None:
        facts = {"prompt": PROMPT, "tokens": given.tokens, "threads": given.threads, "rounds": given.rounds}
        sizes = {name: Path(path).stat().st_size for name, path in models.items()}
        given.output.write_text(
            json.dumps({**facts, "bytes": sizes, "models": rows, "scores": scores}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
