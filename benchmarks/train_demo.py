"""Train the digit classifier that ships with onnxq, and write it as ONNX beside its images.

A small pre-LayerNorm transformer reads an 8x8 handwritten digit (scikit-learn's copy of the UCI set) as 16
patches of 2x2 pixels. After training, `plant_outliers` gives it what large transformers grow by themselves:
a few channels, the same ones in every layer, whose activations are some fifty times larger than the others,
because the gamma of the LayerNorm is large there (Wei et al. 2022, "Outlier Suppression", section 3). It is
an exact change of coordinates: what gamma gains, the rows of the following linears lose, so the classifier
stays the same function while one scale per tensor no longer fits its activations. The weights and the
accuracy are trained; the outliers are planted.

Run `python -m benchmarks.train_demo [FOLDER]`; the folder is onnxq/demo unless named. Takes a few minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import nn

import onnxq.demo


@dataclass(frozen=True)
class Training:
    """Everything that decides the weights."""

    width: int = 96
    heads: int = 4
    layers: int = 2
    epochs: int = 150
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.05
    dropout: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class Outliers:
    """Which channels of every norm grow, and between which factors (drawn log-uniformly)."""

    channels: tuple[int, ...] = (7, 38, 71)
    lowest: float = 30.0
    highest: float = 90.0
    seed: int = 1


@dataclass(frozen=True)
class Digits:
    """Images float32 [n, 8, 8] between 0 and 1, labels int64 [n]."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


class Block(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Attention and a Gelu network, each on the normalised stream and added back to it."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.project = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gelu, self.dropout = nn.GELU(), nn.Dropout(dropout)

    def forward(self, stream: Any) -> Any:
        normal = self.norm1(stream)
        query, key, value = (self.split(each(normal)) for each in (self.query, self.key, self.value))
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        stream = stream + self.dropout(self.project(mixed))
        return stream + self.dropout(self.narrow(self.gelu(self.widen(self.norm2(stream)))))

    def split(self, tokens: Any) -> Any:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class DigitTransformer(nn.Module):  # type: ignore[misc]
    """image [batch, 8, 8] -> logits [batch, 10]."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.embed = nn.Linear(4, training.width)
        self.position = nn.Parameter(0.02 * torch.randn(16, training.width))
        shape = (training.width, training.heads, training.dropout)
        self.blocks = nn.ModuleList(Block(*shape) for _ in range(training.layers))
        self.norm = nn.LayerNorm(training.width)
        self.head = nn.Linear(training.width, 10)

    def forward(self, image: Any) -> Any:
        patches = image.reshape(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4)
        stream = self.embed(patches) + self.position
        for block in self.blocks:
            stream = block(stream)
        return self.head(self.norm(stream).mean(1))


def load_digits(seed: int) -> Digits:
    """Split the 1,797 digits into 1,257 to train with and 540 to test with, each digit in the same share."""
    from sklearn import datasets, model_selection

    images, labels = datasets.load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 8, 8)
    train, test, train_labels, test_labels = model_selection.train_test_split(
        images, labels, test_size=540, random_state=seed, stratify=labels
    )
    return Digits(train, train_labels, test, test_labels)


def train(digits: Digits, training: Training) -> DigitTransformer:
    """Train with AdamW on digits moved by up to one pixel."""
    torch.set_num_threads(1)  # more threads make such small steps slower, and sums in another order
    torch.manual_seed(training.seed)
    model = DigitTransformer(training)
    images, labels = torch.from_numpy(digits.train), torch.from_numpy(digits.train_labels)
    steps = training.epochs * -(-len(images) // training.batch)
    optimizer = torch.optim.AdamW(model.parameters(), training.rate, weight_decay=training.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, training.rate, steps)
    for _ in range(training.epochs):
        for chosen in torch.randperm(len(images)).split(training.batch):
            logits = model(move(images[chosen]))
            loss = nn.functional.cross_entropy(logits, labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    return model


def move(images: Any) -> Any:
    """Shift each image by -1, 0 or 1 pixel on both axes, filling with ink-free paper."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    rows, columns = torch.randint(0, 3, (2, len(images), 1)) + torch.arange(8)
    return padded[torch.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


def plant_outliers(model: DigitTransformer, outliers: Outliers) -> None:
    """norm -> linears  =>  norm with gamma and beta times s -> the same linears with rows divided by s."""
    generator = np.random.default_rng(outliers.seed)
    for block in model.blocks:
        for norm, linears in (
            (block.norm1, (block.query, block.key, block.value)),
            (block.norm2, (block.widen,)),
        ):
            grow(norm, linears, outliers, generator)


def grow(norm: Any, linears: Sequence[Any], outliers: Outliers, generator: np.random.Generator) -> None:
    """Scale the outlier channels of one norm and undo it in the linears that read it."""
    low, high = np.log(outliers.lowest), np.log(outliers.highest)
    factors = np.exp(generator.uniform(low, high, len(outliers.channels))).astype(np.float32)
    scale = torch.ones(norm.normalized_shape)
    scale[list(outliers.channels)] = torch.from_numpy(factors)
    with torch.no_grad():
        norm.weight *= scale
        norm.bias *= scale
        for linear in linears:
            linear.weight /= scale


def accuracy(model: DigitTransformer, digits: Digits) -> float:
    """Share of test digits recognised."""
    with torch.inference_mode():
        found = model(torch.from_numpy(digits.test)).argmax(-1).numpy()
    return float((found == digits.test_labels).mean())


def write(model: DigitTransformer, digits: Digits, folder: Path) -> None:
    """Write digits.onnx, and digits.npz with 64 training images to calibrate on and all test images."""
    example = (torch.from_numpy(digits.test[:2]),)
    program = torch.onnx.export(
        model,
        example,
        dynamo=True,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=18,
        verbose=False,
    )
    # The exporter notes the source lines of every node, with the paths of the machine that trained.
    ClearMetadataAndDocStringPass()(program.model)
    program.save(str(folder / "digits.onnx"), external_data=False)
    calibration, test = (
        np.round(images * 16).astype(np.uint8) for images in (digits.train[:64], digits.test)
    )
    labels = digits.test_labels.astype(np.uint8)
    np.savez_compressed(folder / "digits.npz", calibration=calibration, test=test, labels=labels)


def main() -> None:
    """Train, plant the outliers, and write both files."""
    training, outliers = Training(), Outliers()
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else onnxq.demo.model_path().parent
    digits = load_digits(training.seed)
    model = train(digits, training)
    print(f"accuracy after training        {accuracy(model, digits):.2%}")
    plant_outliers(model, outliers)
    print(f"accuracy with outliers planted {accuracy(model, digits):.2%}")
    write(model, digits, folder)


if __name__ == "__main__":
    main()
