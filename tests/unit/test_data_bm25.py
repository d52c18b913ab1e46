"""BM25: its formula by hand, and texts in passages."""

from __future__ import annotations

import math
import time

import pytest

from tinygpt.data.bm25 import BM25, holds, passages, words

TEXTS = ["the cat sat on the mat", "a dog and a cat", "birds fly over the sea", "fish"]


def by_hand(query: str, text: str, k1: float = 1.5, b: float = 0.75) -> float:
    docs = [t.split() for t in TEXTS]
    mean = sum(map(len, docs)) / len(docs)
    total = 0.0
    for word in query.split():
        n = sum(word in d for d in docs)
        f = text.split().count(word)
        idf = math.log(1 + (len(docs) - n + 0.5) / (n + 0.5))
        total += idf * f * (k1 + 1) / (f + k1 * (1 - b + b * len(text.split()) / mean))
    return total


@pytest.mark.parametrize("query", ["cat", "the cat", "the sea fish", "cat cat the", "nothing here"])
@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.9, 0.0), (2.0, 1.0)])
def test_scores_are_the_formula(query: str, k1: float, b: float) -> None:
    found = BM25(TEXTS, k1=k1, b=b).scores(query)
    for i, text in enumerate(TEXTS):
        assert found.get(i, 0.0) == pytest.approx(by_hand(query, text, k1, b))


@pytest.mark.parametrize("n", [1, 2, 3, 30])
def test_the_best_are_those_of_the_highest_scores_and_of_equals_the_earlier(n: int) -> None:
    index = BM25([*TEXTS, "a cat", "the sea", *TEXTS])
    scores = index.scores("the cat on the sea")
    order = sorted(scores, key=lambda i: (-scores[i], i))[:n]
    assert index.best("the cat on the sea", n) == [(i, scores[i]) for i in order]


def test_a_long_request_over_many_passages_takes_no_time() -> None:
    """Half the passages have each of its words, and it says each of them two thousand times."""
    index = BM25([f"please find the file {i}" for i in range(4000)])
    began = time.perf_counter()
    assert [i for i, _ in index.best("please find the file 7 " * 2000, 3)] == [7, 0, 1]
    assert time.perf_counter() - began < 2


def test_the_best_come_first_and_strangers_not_at_all() -> None:
    index = BM25(TEXTS)
    assert index.top("cat on a mat", 2) == [TEXTS[0], TEXTS[1]]
    assert index.top("zebra", 3) == [] and BM25([]).top("cat", 1) == []
    assert BM25(["x", "x", "y"]).top("x", 9) == ["x", "x"]
    assert words("Ärger_1, l'été!") == ["ärger_1", "l", "été"]
    assert words("2020年に塔、Tower塔_・") == ["2020", "年", "に", "塔", "tower", "塔", "_"]
    assert holds("塔建于1823年。", "1823年") and not holds("塔建于1823年。", "年1823")


def test_passages_keep_every_word_and_whole_paragraphs() -> None:
    text = "one two\n\nthree four five\n\n" + " ".join(f"w{i}" for i in range(23)) + "\n\n\nlast"
    found = passages(text, 10)
    assert found[0] == "one two\n\nthree four five"
    assert all(len(p.split()) <= 10 for p in found)
    assert " ".join(found).split() == text.split()
    assert passages("   \n\n ") == []
