"""Ways to write down one computation, timed against each other: why onnxq's passes emit what they do.

    python -m benchmarks.spellings [QUESTION ...]

Each question has several answers, the first being what onnxq emits; all take the same inputs. A graph holds
several copies in a row, or side by side, since one takes too little time to be told from the call. Writes
benchmarks/results/spellings.json; questions not named keep what is there.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper, parser

from benchmarks.rivals import RESULTS, environment
from benchmarks.rounds import THREADS

COPIES, ROUNDS, SECONDS = 6, 3, 0.6
HEADER = '<ir_version: 10, opset_import: ["" : 23, "com.microsoft" : 1]>'
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Question:
    """One computation and its spellings.

    Attributes:
        asked: What it is, for people.
        shape: At which sizes.
        answers: Nodes by name of the answer, in ONNX's text format; ``@`` is the number of the copy.
        outputs: Names of what every copy gives, comma-separated.
        inputs: What is fed; ``@`` in a name makes one for each copy.
        constants: Initializers.
    """

    asked: str
    shape: str
    answers: Mapping[str, str]
    outputs: str
    inputs: Arrays
    constants: Arrays = field(default_factory=dict)

    def feeds(self) -> dict[str, np.ndarray]:
        """The inputs of all copies."""
        return {
            name.replace("@", str(copy)): array
            for name, array in self.inputs.items()
            for copy in range(COPIES if "@" in name else 1)
        }

    def model(self, answer: str) -> onnx.ModelProto:
        """All copies of one answer."""
        nodes = " ".join(self.answers[answer].replace("@", str(copy)) for copy in range(COPIES))
        outputs = [
            name.strip().replace("@", str(copy)) for copy in range(COPIES) for name in self.outputs.split(",")
        ]
        model = parser.parse_model(f"{HEADER} g () => () {{ {nodes} }}")
        for name, array in self.feeds().items():
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            shape = [f"{name}_{axis}" if axis else None for axis in range(array.ndim)]
            model.graph.input.append(helper.make_tensor_value_info(name, kind, shape))
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        used = {name for node in model.graph.node for name in node.input}
        named = [
            numpy_helper.from_array(array, name) for name, array in self.constants.items() if name in used
        ]
        model.graph.initializer.extend(named)
        return model


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal numbers, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def weight(channels: int, columns: int, name: str = "w") -> dict[str, np.ndarray]:
    """An int8 weight NAME, its scales NAME_scale, and the same in float NAME_float."""
    codes = np.random.default_rng(1).integers(-127, 128, (channels, columns)).astype(np.int8)
    scale = np.full(columns, 0.01, np.float32)
    return {name: codes, f"{name}_scale": scale, f"{name}_float": codes.astype(np.float32) * scale}


ROUNDED: Arrays = {
    "step": np.array(0.03, np.float32),
    "middle": np.array(128, np.uint8),
    "zero": np.array(0, np.int8),
}


def product(codes: str, name: str, output: str) -> str:
    """``output = codes @ weight NAME``, integers in and floats out."""
    given = f"{codes}, {name}, step, {name}_scale, middle, zero"
    return f"{output} = com.microsoft.MatMulIntegerToFloat({given})"


def merged_projections(batch: int, length: int, hidden: int = 768) -> Question:
    """Queries, keys and values in one product or in three."""
    codes, one = "c@ = QuantizeLinear(x@, step, middle) ", weight(hidden, hidden)
    return Question(
        "queries, keys and values",
        f"{batch}x{length}x{hidden}",
        {
            "three products": codes + " ".join(product("c@", "w", f"{each}@") for each in "qkv"),
            "one product, split": codes
            + product("c@", "all", "p@")
            + " q@, k@, v@ = Split<axis = -1, num_outputs = 3>(p@)",
        },
        "q@, k@, v@",
        {"x@": drawn(batch, length, hidden)},
        {**ROUNDED, **one, "all": np.tile(one["w"], 3), "all_scale": np.tile(one["w_scale"], 3)},
    )


def narrow_branch(channels: int) -> Question:
    """Outlier channels beside the integer product."""
    body = "c@ = QuantizeLinear(x@, step, middle) " + product("c@", "w", "p@")
    body += " n@ = Slice(x@, start, stop, axis) "
    return Question(
        f"{channels} channels split off",
        "8x128x384 to 1536",
        {
            "in float": body + "f@ = MatMul(n@, narrow_float) y@ = Add(p@, f@)",
            "in integers of their own": body
            + "d@ = QuantizeLinear(n@, step, middle) "
            + product("d@", "narrow", "f@")
            + " y@ = Add(p@, f@)",
        },
        "y@",
        {"x@": drawn(8, 128, 384)},
        {
            **ROUNDED,
            **weight(384, 1536),
            **weight(channels, 1536, "narrow"),
            "start": np.array([0], np.int64),
            "stop": np.array([channels], np.int64),
            "axis": np.array([-1], np.int64),
        },
    )


def restored_residual() -> Question:
    """What a residual reads where channels of a norm were evened out."""
    body = "c@ = QuantizeLinear(x@, step, middle) " + product("c@", "w", "p@")
    return Question(
        "the residual behind a norm whose channels were evened out",
        "8x128x384",
        {
            "Mul by the scales": body + " r@ = Mul(x@, factor) y@ = Add(p@, r@)",
            "a second DequantizeLinear, by channel": body
            + " r@ = DequantizeLinear<axis = -1>(c@, factor, middles) y@ = Add(p@, r@)",
        },
        "y@",
        {"x@": drawn(8, 128, 384)},
        {
            **ROUNDED,
            **weight(384, 384),
            "factor": np.full(384, 0.03, np.float32),
            "middles": np.full(384, 128, np.uint8),
        },
    )


def gelu() -> Question:
    """Gelu between two integer products."""
    table = np.arange(256, dtype=np.uint8)
    return Question(
        "Gelu and the rounding behind it",
        "8x128x1536",
        {
            "Gelu": "g@ = Gelu(x@) y@ = QuantizeLinear(g@, step, middle)",
            "FastGelu (tanh)": "g@ = com.microsoft.FastGelu(x@) y@ = QuantizeLinear(g@, step, middle)",
            "a table of 256 codes": "c@ = QuantizeLinear(x@, step, middle) i@ = Cast<to = 6>(c@) "
            "y@ = Gather(table, i@)",
        },
        "y@",
        {"x@": drawn(8, 128, 1536)},
        {**ROUNDED, "table": table},
    )


def attention(batch: int, length: int, *, masked: bool, heads: int = 12, size: int = 64) -> Question:
    """The attention core of an encoder."""
    width, scale = heads * size, 1 / np.sqrt(size)
    heads_of = f"num_heads = {heads}, scale = {scale}"
    wide = f"<q_num_heads = {heads}, kv_num_heads = {heads}, scale = {scale}>"
    apart = " ".join(
        f"{one}r@ = Reshape({one}@, split) {one}t@ = Transpose<perm = {perm}>({one}r@)"
        for one, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3]))
    )
    add = "a@ = Add(s@, mask)" if masked else "a@ = Identity(s@)"
    end = " o@ = Transpose<perm = [0, 2, 1, 3]>(u@) y@ = Reshape(o@, merge)"
    spelled = (
        f"{apart} m@ = MatMul(qt@, kt@) s@ = Mul(m@, factor) {add} p@ = Softmax(a@) u@ = MatMul(p@, vt@)"
    )
    rounded = " ".join(
        f"{one}c@ = QuantizeLinear({one}t@, step, {middle})"
        for one, middle in (("q", "middle"), ("k", "zero"), ("v", "zero"))
    )
    integer = (
        f"{apart} {rounded} m@ = com.microsoft.MatMulIntegerToFloat(qc@, kc@, step, step, middle, zero) "
        f"s@ = Mul(m@, factor) {add} p@ = Softmax(a@) pc@ = QuantizeLinear(p@, fine, floor) "
        "u@ = com.microsoft.MatMulIntegerToFloat(pc@, vc@, fine, step, floor, zero)"
    )
    given = "q@, k@, v@, full" if masked else "q@, k@, v@"
    mha = 'q@, k@, v@, "", "", full' if masked else "q@, k@, v@"
    mha = mha.replace('""', "")
    mask = np.zeros((batch, 1, 1, length), np.float32)
    mask[(batch + 1) // 2 :, ..., length * 3 // 4 :] = -1e4
    full = np.ascontiguousarray(np.broadcast_to(mask, (batch, 1, length, length)))
    return Question(
        f"attention {'with' if masked else 'without'} a mask",
        f"{batch}x{length}, {heads} heads of {size}",
        {
            "Attention": f"y@ = Attention{wide}({given})",
            "spelled out": spelled + end,
            "MultiHeadAttention": f"y@ = com.microsoft.MultiHeadAttention<{heads_of}>({mha})",
            "integer products": integer + end,
        },
        "y@",
        {
            **{f"{one}@": drawn(batch, length, width, seed=place) for place, one in enumerate("qkv")},
            **({"mask": mask, "full": full} if masked else {}),
        },
        {
            **ROUNDED,
            "split": np.array([0, 0, heads, size], np.int64),
            "merge": np.array([0, 0, width], np.int64),
            "factor": np.array(scale, np.float32),
            "fine": np.array(1 / 255, np.float32),
            "floor": np.array(0, np.uint8),
        },
    )


def cached_attention(new: int, past: int, heads: int = 9, groups: int = 3, size: int = 64) -> Question:
    """The attention core of a decoder with grouped heads, rotary embedding and a cache."""
    turns = np.outer(np.arange(1024), 1e4 ** (-np.arange(size // 2) / (size // 2)))
    total = new + past
    mask = np.where(np.tril(np.ones((new, total)), past) > 0, 0, -50.0).astype(np.float32)[None, None]
    apart = " ".join(
        f"{one}r@ = Reshape({one}@, split) {one}t@ = Transpose<perm = [0, 2, 1, 3]>({one}r@)" for one in "qkv"
    )
    standard = (
        f"{apart} qe@ = RotaryEmbedding(qt@, cos, sin, at) ke@ = RotaryEmbedding(kt@, cos, sin, at) "
        "nk@ = Concat<axis = -2>(pk@, ke@) nv@ = Concat<axis = -2>(pv@, vt@) "
        f"u@ = Attention<scale = {1 / np.sqrt(size)}>(qe@, nk@, nv@, mask) "
        "o@ = Transpose<perm = [0, 2, 1, 3]>(u@) y@ = Reshape(o@, merge)"
    )
    grouped = (
        "y@, nk@, nv@ = com.microsoft.GroupQueryAttention"
        f"<num_heads = {heads}, kv_num_heads = {groups}, do_rotary = 1, scale = {1 / np.sqrt(size)}>"
        "(q@, k@, v@, pk@, pv@, ends, total, cos, sin, at)"
    )
    return Question(
        "attention of a decoder",
        f"{new} tokens behind {past}, {heads} heads in {groups} groups",
        {"Attention": standard, "GroupQueryAttention": grouped},
        "y@, nk@, nv@",
        {
            "q@": drawn(1, new, heads * size),
            **{f"{one}@": drawn(1, new, groups * size, seed=3) for one in "kv"},
            **{f"p{one}@": drawn(1, groups, past, size, seed=4) for one in "kv"},
            "mask": mask,
            "at": np.arange(past, total, dtype=np.int64)[None],
            "ends": np.array([total - 1], np.int32),
            "total": np.array(total, np.int32),
        },
        {
            "cos": np.cos(turns).astype(np.float32),
            "sin": np.sin(turns).astype(np.float32),
            "split": np.array([0, 0, -1, size], np.int64),
            "merge": np.array([0, 0, heads * size], np.int64),
        },
    )


QUESTIONS: Mapping[str, Question] = {
    "projections": merged_projections(8, 128),
    "projections-short": merged_projections(1, 128),
    "narrow-8": narrow_branch(8),
    "narrow-16": narrow_branch(16),
    "residual": restored_residual(),
    "gelu": gelu(),
    "attention-mask": attention(8, 128, masked=True),
    "attention-mask-long": attention(1, 512, masked=True),
    "attention": attention(8, 128, masked=False),
    "attention-long": attention(1, 512, masked=False),
    "decode": cached_attention(1, 256),
    "prefill": cached_attention(256, 0),
}


def measure(question: Question) -> dict[str, Any]:
    """Least and median milliseconds of each answer, and ratios to the first."""
    from onnxq.files import save
    from onnxq.runtime import measure_latency

    with tempfile.TemporaryDirectory() as folder:
        models: dict[str, Any] = {}
        for number, answer in enumerate(question.answers):
            models[answer] = Path(folder) / f"{number}.onnx"
            save(ir.from_proto(question.model(answer)), models[answer])
        found = measure_latency(models, question.feeds(), threads=THREADS, rounds=ROUNDS, seconds=SECONDS)
    first = next(iter(found.values()))
    answers = {
        name: {
            "least_ms": round(each.least_ms / COPIES, 4),
            "median_ms": round(each.median_ms / COPIES, 4),
            "ratio_least": round(each.least_ms / first.least_ms, 3),
            "ratio_median": round(each.median_ms / first.median_ms, 3),
        }
        for name, each in found.items()
    }
    return {"asked": question.asked, "shape": question.shape, "answers": answers}


def main() -> None:
    """Measure the questions on the command line, or all."""
    path = RESULTS / "spellings.json"
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    content = {"environment": environment(), "copies": COPIES, "spellings": content.get("spellings", {})}
    for name in sys.argv[1:] or QUESTIONS:
        content["spellings"][name] = found = measure(QUESTIONS[name])
        path.write_text(json.dumps(content, indent=1) + "\n")
        print(name, {answer: each["ratio_least"] for answer, each in found["answers"].items()}, flush=True)


if __name__ == "__main__":
    main()
