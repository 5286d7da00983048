"""One report that has everything, with the proportions of a small encoder."""

import math
import random

import pytest

from onnxq.report.measures import (
    DataSummary,
    Fidelity,
    Goal,
    JournalCount,
    Machine,
    ModelSummary,
    Range,
    Rejection,
    Timing,
)
from onnxq.report.results import Report
from onnxq.report.rows import ChannelPicture, FrontRow, LayerRow, PassRow, RefinementRow

MACHINE = Machine(
    "AMD EPYC 9R14", ("avx2", "avx512_vnni"), 2, 2, 8_200_000_000, "Linux x86_64", "3.11.7", "1.32.0", "0.1.0"
)


def _layers() -> tuple[LayerRow, ...]:
    rng = random.Random(0)
    rows = [
        LayerRow(
            "/embeddings/word/Gather", "embedding", 30522, 384, "int8 weights", "a table is looked up", 43.1
        )
    ]
    for block in range(12):
        for part, channels, columns in (
            ("attention/self/query", 384, 384),
            ("attention/self/key", 384, 384),
            ("attention/self/value", 384, 384),
            ("attention/output/dense", 384, 384),
            ("intermediate/dense", 384, 1536),
            ("output/dense", 1536, 384),
        ):
            outlier = rng.uniform(4, 90)
            keep = part == "output/dense" and block == 10
            rows.append(
                LayerRow(
                    f"/encoder/layer.{block}/{part}/MatMul",
                    "linear",
                    channels,
                    columns,
                    "float" if keep else "int8 per-token" if part == "output/dense" else "int8 static",
                    "costs 11 dB and saves 0.1 ms" if keep else "lands in MatMulIntegerToFloat",
                    11.2 if keep else rng.gauss(34, 4),
                    Range(-outlier, outlier / 3),
                    Range(-outlier / 6, outlier / 9),
                    outlier,
                    1 + outlier / 20,
                    effect_db=None if keep else rng.gauss(40, 4),
                    evidence="float takes 41 us more" if keep else "error 4.1 times smaller for 1.3 us more",
                    input_effect_db=rng.gauss(42, 4),
                )
            )
    return tuple(rows)


def _channels(layer: str, seed: int, count: int) -> ChannelPicture:
    rng = random.Random(seed)
    before = [math.exp(rng.gauss(-0.5, 0.4)) for _ in range(count)]
    for index in rng.sample(range(count), 4):
        before[index] *= rng.uniform(20, 90)
    after = [value**0.25 for value in before]
    return ChannelPicture(layer, tuple(before), tuple(after))


@pytest.fixture(scope="session")
def report() -> Report:
    layers = _layers()
    return Report(
        before=ModelSummary("all-MiniLM-L6-v2.onnx", "5a" * 32, 90_900_000, 17, 8, "pytorch 2.8.0", 412),
        after=ModelSummary("all-MiniLM-L6-v2.int8.onnx", "c3" * 32, 23_100_000, 17, 8, "onnxq 0.1.0", 561),
        machine=MACHINE,
        data=DataSummary("descriptions.jsonl", "91" * 32, 64, 128),
        fidelity=(
            Fidelity("last_hidden_state", 0.99621, 0.99102, 21.3, 0.4412),
            Fidelity("pooler_output", 0.99954, 0.99871, 30.4, 0.0613, 0.984, 0.0021),
        ),
        latency=(
            Timing("fp32", "input_ids=8x128", 2, 83.1, 84.9, 1.9),
            Timing("int8", "input_ids=8x128", 2, 33.9, 34.6, 0.8, 2.45),
            Timing("fp32", "input_ids=1x128", 2, 10.4, 10.8, 0.3),
            Timing("int8", "input_ids=1x128", 2, 5.02, 5.1, 0.2, 2.12),
        ),
        kernels={"MatMulIntegerToFloat": 71, "DynamicQuantizeMatMul": 1, "DequantizeLinear": 3},
        layers=layers,
        front=(
            FrontRow(5100.0, 0.31),
            FrontRow(5230.0, 0.12, "gelu_3: int8 static, 8 channels in float", chosen=True),
            FrontRow(7900.0, 0.02, "gelu_5: int8 per-token"),
        ),
        refinements=(
            RefinementRow("ranges clipped by token", 26.3, 27.1, True, "held-out samples gain 0.80 dB"),
            RefinementRow("weights learned", None, None, False, "not tried: torch cannot be imported"),
        ),
        passes=(
            PassRow("drop-dropout", "bitwise", 25, (), 0.1, "equal"),
            PassRow(
                "fold-gamma{guard=1.0}",
                "reassociates",
                48,
                (Rejection("gamma is shared with another norm", "/pooler/LayerNorm"),),
                0.6,
                "equal",
            ),
            PassRow(
                "shift-scale",
                "reassociates",
                0,
                (
                    Rejection(
                        "an input of the residual has no constant to absorb it", "/encoder/layer.0/Add"
                    ),
                    Rejection(
                        "an input of the residual has no constant to absorb it", "/encoder/layer.1/Add"
                    ),
                ),
                1.4,
                "different",
                "rolled back: 3.1e-2 over the bound at last_hidden_state",
            ),
            PassRow("quantize-linears{ranges=mse}", "lossy", 288, (), 14.0, "cannot judge", "needs data"),
        ),
        journal=(JournalCount("fold-gamma", "rewire", 48), JournalCount("quantize-linears", "insert", 288)),
        goals=(
            Goal("mean cosine of 0.995 or more", "0.9962", True),
            Goal("2.5x the speed or more", "2.45x at input_ids=8x128", False),
        ),
        hints=(
            "/encoder/layer.10/output/dense costs most: --keep-float '*layer.10/output*' gains 0.8 dB.",
            "--effort best searches ranges by output error; it takes about 4 minutes here.",
        ),
        channels=(
            _channels(layers[5].name, 1, 384),
            _channels(layers[6].name, 2, 1536),
        ),
        recipe='version = 1\ntarget = "auto"\neffort = "balanced"\n\n[data]\nbatch_size = 8\n',
        seconds=41.2,
        target="x86-vnni",
    )
