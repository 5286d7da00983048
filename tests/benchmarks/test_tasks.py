"""Scores of models: right on small arrays worked out by hand, and perfect for the original itself."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import tasks


def test_pooling_leaves_padding_out():
    tokens = np.array([[[3.0, 0.0], [0.0, 4.0], [100.0, 100.0]]])
    pooled = tasks.pool(tokens, np.array([[1, 1, 0]]))
    np.testing.assert_allclose(pooled, [[0.6, 0.8]])


def test_rank_counts_documents_nearer_than_the_own_one():
    documents = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    queries = np.array([[1.0, 0.0], [1.0, 0.0], [0.7, 0.7]])
    assert tasks.rank_of_own(queries, documents).tolist() == [0, 2, 0]


def test_model_that_encodes_everything_alike_finds_nothing():
    alike = np.ones((20, 3)) / np.sqrt(3)
    scores = tasks.score_retrieval({}, {"query": alike, "document": alike})
    assert scores == {"recall_1": 0.0, "recall_10": 0.0}


def test_recall_counts_the_first_and_the_first_ten():
    documents = np.eye(12)
    queries = np.eye(12)
    queries[0] = np.linspace(1, 0, 12)[::-1]  # eleven documents are nearer
    queries[1, 2] = 2.0  # one is
    scores = tasks.score_retrieval({}, {"query": queries, "document": documents})
    assert scores == {"recall_1": pytest.approx(10 / 12), "recall_10": pytest.approx(11 / 12)}


def test_overlap_of_empty_areas_is_whole():
    empty, left, all_of_it = np.zeros(4, bool), np.array([1, 1, 0, 0], bool), np.ones(4, bool)
    assert tasks.overlap(empty, empty) == 1.0
    assert tasks.overlap(left, all_of_it) == 0.5
    assert tasks.overlap(left, empty) == 0.0


def test_importance_counts_noise_in_decibels():
    maps = np.full((1, 1, 2, 2), 0.8)
    scores = tasks.score_importance({"maps": maps}, {"maps": maps - 0.08})
    assert scores["sqnr_db"] == pytest.approx(20.0)
    assert scores["iou"] == 1.0


def test_language_score_of_the_original_is_its_own_perplexity():
    answer = {"costs": np.full((2, 5), np.log(33.0)), "likeliest": np.arange(10).reshape(2, 5)}
    scores = tasks.score_language(answer, answer)
    assert scores == {"perplexity": pytest.approx(33.0), "perplexity_ratio": 1.0, "top1_same": 1.0}


def test_language_answer_costs_a_uniform_guess_its_whole_vocabulary(monkeypatch):
    chunks = {"input_ids": np.arange(12).reshape(2, 6), "attention_mask": np.ones((2, 6), np.int64)}
    monkeypatch.setattr(tasks, "_inputs", lambda model, file: chunks)
    answer = tasks.answer_language(lambda feeds: np.zeros((*feeds["input_ids"].shape, 50), np.float32))
    np.testing.assert_allclose(answer["costs"], np.full((2, 5), np.log(50)))


def test_sentence_scores_see_a_single_bad_sentence():
    sentences = np.eye(4)
    reference = {"sentences": sentences, "tokens": sentences}
    candidate = {"sentences": sentences[[1, 1, 2, 3]], "tokens": 2 * sentences}
    scores = tasks.score_sentences(reference, candidate)
    assert scores["cosine_min"] == 0.0
    assert scores["cosine_mean"] == 0.75
    assert scores["token_cosine_min"] == pytest.approx(1.0)
    assert scores["similarity_error_max"] == 1.0
