"""Buckets of lengths: few widths with the least padding, every row once an epoch, shapes that are bounded."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tinygpt.data.pack import Fit, single_plan
from tinygpt.data.source._buckets import MOST, Bucketed, widths


def padding(sizes: list[int], found: list[int]) -> int:
    return sum(min(w for w in found if w >= size) - size for size in sizes)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_widths_have_the_least_padding(most: int) -> None:
    for seed in range(5):
        sizes = np.random.default_rng(seed).integers(1, 64, 30).tolist()
        found = widths(sizes, most, 64)
        every = (c for n in range(1, most + 1) for c in itertools.combinations(range(8, 65, 8), n))
        least = min(padding(sizes, list(c)) for c in every if c[-1] >= max(sizes))
        assert padding(sizes, found) == least and len(found) <= most and found == sorted(set(found))


def test_widths_are_few_and_never_beyond_a_row() -> None:
    sizes = np.random.default_rng(0).lognormal(5, 1, 20_000).clip(1, 5001).astype(int).tolist()
    found = widths(sizes, MOST, 5001)
    assert 2 < len(found) <= MOST and found[-1] == 5001
    uniform = [-(-5001 * i // MOST) for i in range(1, MOST + 1)]
    assert padding(sizes, found) < 0.7 * padding(sizes, uniform)
    assert widths([7, 7, 7], MOST, 64) == [8] and widths([1], MOST, 3) == [3]


def source(n: int, batch: int, seed: int | None = 5) -> Bucketed:
    sizes = np.random.default_rng(n).integers(1, 100, n).tolist()
    ids = np.concatenate([np.full(size + 1, i + 1, np.int32) for i, size in enumerate(sizes)])
    edges = np.cumsum([0, *(size + 1 for size in sizes)])
    rows = Fit(ids, np.ones(len(ids), np.bool_), edges, single_plan(sizes, 128))
    return Bucketed(rows, most=MOST, length=128, batch_size=batch, pad_id=0, seed=seed, facts={})


@pytest.mark.parametrize(("n", "batch"), [(100, 4), (37, 8), (3, 8), (8, 8)])
def test_every_row_once_an_epoch_in_full_batches(n: int, batch: int) -> None:
    found = source(n, batch)
    assert len(found) == -(-n // batch)
    for epoch in range(3):
        batches = [found[epoch * len(found) + i] for i in range(len(found))]
        assert sorted(t for b in batches for t in b.tokens[:, 0].tolist() if t) == list(range(1, n + 1))
        assert sum((b.segments[:, 0] == 0).any() for b in batches) <= 1, "one batch may not be full"
        assert len({b.shape for b in batches}) <= MOST and max(b.shape[1] for b in batches) <= 128
    assert found.widest(0).shape[1] == found.widths[-1]
    if n == 100:
        assert len(found.widths) > 3 and found.describe()["packing_efficiency"] > 0.8
        assert [found[i].shape for i in range(25)] != sorted(found[i].shape for i in range(25)), (
            "not by length"
        )
    later = source(n, batch)[2 * len(found) + len(found) // 2]
    assert np.array_equal(later.tokens, found[2 * len(found) + len(found) // 2].tokens)
    held = source(n, batch, seed=None)
    assert sorted(t for b in held for t in b.tokens[:, 0].tolist() if t) == list(range(1, n + 1))
