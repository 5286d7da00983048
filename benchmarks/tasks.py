"""What each model is for, as figures: sentence vectors, retrieval, importance maps, perplexity.

A task turns a model into its *answer*, arrays small enough to keep, and scores an answer against that of the
original model. Everything is measured on data that calibration never saw.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.data import batches, load, prepare
from benchmarks.export import Arrays

Run = Callable[[Arrays], np.ndarray]
"""Gives the only output of a model for one batch of its inputs."""
Scores = dict[str, float]


@dataclass(frozen=True)
class Task:
    """One thing that a model is asked to do.

    Attributes:
        model: The model that it is for.
        answer: Runs a model over the task's data.
        score: Compares the answer of a candidate (second) with that of the original (first).
    """

    model: str
    answer: Callable[[Run], Arrays]
    score: Callable[[Arrays, Arrays], Scores]


def answer_sentences(run: Run) -> Arrays:
    """Encode the test descriptions: pooled vectors [128, 384], and those of all real tokens."""
    inputs = _inputs("minilm", "test.npz")
    tokens = _run_all(run, inputs, 8)
    mask = inputs["attention_mask"]
    return {"sentences": pool(tokens, mask), "tokens": tokens[mask.astype(bool)]}


def score_sentences(reference: Arrays, candidate: Arrays) -> Scores:
    """Cosines between old and new vectors, and the largest change of a similarity between two sentences."""
    sentences = cosines(reference["sentences"], candidate["sentences"])
    tokens = cosines(reference["tokens"], candidate["tokens"])
    old, new = (answer["sentences"] @ answer["sentences"].T for answer in (reference, candidate))
    return {
        "cosine_mean": float(sentences.mean()),
        "cosine_min": float(sentences.min()),
        "token_cosine_mean": float(tokens.mean()),
        "token_cosine_min": float(tokens.min()),
        "similarity_error_max": float(np.abs(old - new).max()),
    }


def answer_retrieval(run: Run) -> Arrays:
    """Encode short descriptions (queries) and long ones (documents) of the same packages."""
    arrays = _inputs("minilm", "retrieval.npz")
    found = {}
    for side in ("query", "document"):
        inputs = {
            key.removeprefix(f"{side}."): array for key, array in arrays.items() if key.startswith(side)
        }
        found[side] = pool(_run_all(run, inputs, 16), inputs["attention_mask"])
    return found


def score_retrieval(reference: Arrays, candidate: Arrays) -> Scores:
    """Share of queries whose own document is the nearest, or among the ten nearest."""
    ranks = rank_of_own(candidate["query"], candidate["document"])
    return {"recall_1": float((ranks < 1).mean()), "recall_10": float((ranks < 10).mean())}


def answer_importance(run: Run) -> Arrays:
    """Map the importance of each pixel of the test crops, [32, 1, 224, 224] between 0 and 1."""
    return {"maps": _run_all(run, _inputs("vit", "test.npz"), 4)}


def score_importance(reference: Arrays, candidate: Arrays) -> Scores:
    """Signal to noise of the maps (left out where there is no noise), and overlap of the areas over 0.5."""
    old, new = reference["maps"].astype(np.float64), candidate["maps"].astype(np.float64)
    noise = float(np.square(old - new).sum())
    scores = {
        "iou": float(np.mean([overlap(*pair) for pair in zip(old > 0.5, new > 0.5, strict=True)])),
        "mean_error": float(np.abs(old - new).mean()),
    }
    return scores | ({"sqnr_db": 10 * float(np.log10(np.square(old).sum() / noise))} if noise else {})


def answer_language(run: Run, chunks: int | None = None, model: str = "smollm2") -> Arrays:
    """Predict every next token of the test chunks: its cost in nats, and the token thought likeliest.

    Args:
        run: The model.
        chunks: Only the first so many; all if None.
        model: Whose inputs to take.
    """
    costs, likeliest = [], []
    for batch in batches(_inputs(model, "test.npz"), 1)[:chunks]:
        logits, wanted = run(batch)[:, :-1].astype(np.float64), batch["input_ids"][:, 1:]
        peak = logits.max(-1)
        total = peak + np.log(np.exp(logits - peak[..., None]).sum(-1))
        costs.append(total - np.take_along_axis(logits, wanted[..., None], -1)[..., 0])
        likeliest.append(logits.argmax(-1))
    return {"costs": np.concatenate(costs), "likeliest": np.concatenate(likeliest)}


def score_language(reference: Arrays, candidate: Arrays) -> Scores:
    """Perplexity, its ratio to the original's, and how often both think the same token likeliest."""
    old, new = (float(np.exp(answer["costs"].mean())) for answer in (reference, candidate))
    same = (reference["likeliest"] == candidate["likeliest"]).mean()
    return {"perplexity": new, "perplexity_ratio": new / old, "top1_same": float(same)}


TASKS: Mapping[str, Task] = {
    "sentences": Task("minilm", answer_sentences, score_sentences),
    "retrieval": Task("minilm", answer_retrieval, score_retrieval),
    "importance": Task("vit", answer_importance, score_importance),
    "language": Task("smollm2", answer_language, score_language),
    "cached-language": Task(
        "smollm2-cache", functools.partial(answer_language, model="smollm2-cache"), score_language
    ),
}


def pool(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Average token states [n, t, c] where the mask [n, t] is 1, and scale the averages to length 1."""
    kept = mask[..., None].astype(np.float64)
    means = (tokens * kept).sum(1) / kept.sum(1)
    unit: np.ndarray = means / np.linalg.norm(means, axis=-1, keepdims=True)
    return unit


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosines of the rows of two matrices."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    found: np.ndarray = (first * second).sum(-1) / lengths
    return found


def rank_of_own(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """How many documents are nearer to each query than the one with its own index; ties count against it."""
    similar = queries @ documents.T
    own = np.diagonal(similar)[:, None]
    ranks: np.ndarray = (similar >= own).sum(1) - 1
    return ranks


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two areas; two empty ones agree."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 1.0


def _run_all(run: Run, inputs: Arrays, size: int) -> np.ndarray:
    return np.concatenate([run(batch) for batch in batches(inputs, size)])


def _inputs(model: str, file: str) -> Arrays:
    return load(prepare(model) / file)
