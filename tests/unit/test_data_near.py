"""Bands find what is alike, comparisons decide, clusters are what they connect."""

from __future__ import annotations

import math
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from tinygpt.core.errors import ConfigError, DependencyError, TinyGPTError
from tinygpt.data import minhash, near
from tinygpt.data.spread import spread


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.85, 0.95])
@pytest.mark.parametrize("slots", [64, 128])
def test_no_sure_split_has_less_error(threshold: float, slots: int) -> None:
    s = np.linspace(0, 1, 20_001)

    def error(bands: int, rows: int) -> float:
        shared = 1 - (1 - s**rows) ** bands
        wrong = np.where(s < threshold, shared, 1 - shared)
        return float(((wrong[1:] + wrong[:-1]) / 2).sum() / 20_000)

    bands, rows = minhash.split(threshold, slots)
    assert bands * rows <= slots and 1 - (1 - threshold**rows) ** bands >= minhash.SURE
    sure = [
        error(b, r)
        for b in range(1, slots + 1)
        for r in range(1, slots // b + 1)
        if 1 - (1 - threshold**r) ** b >= minhash.SURE
    ]
    assert error(bands, rows) <= min(sure) + 1e-3


def test_too_few_slots_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 slots of MinHash cannot find pairs of similarity 0.85"):
        minhash.split(0.85, 1)


@pytest.mark.parametrize(("size", "similarity"), [(12, 0.6), (100, 0.8), (400, 0.85)])
def test_bands_are_shared_as_the_formula_says(size: int, similarity: float) -> None:
    draw, n, slots, bands, rows = np.random.default_rng(0), 1500, 64, 9, 6
    shared = round(2 * size * similarity / (1 + similarity))
    true = shared / (2 * size - shared)
    elements = draw.integers(0, 1 << 63, (n, 2 * size - shared), np.uint64)
    offsets = np.arange(0, n * size + 1, size)
    one, other = (
        minhash.keys(np.ascontiguousarray(part).ravel(), offsets, slots, bands, rows)
        for part in (elements[:, :size], elements[:, size - shared :])
    )
    expected = 1 - (1 - true**rows) ** bands
    spread_of = 4 * math.sqrt(expected * (1 - expected) / n)
    assert abs((one == other).any(axis=1).mean() - expected) < spread_of + 0.02


def test_jaccard_of_sets() -> None:
    one, other = {1, 2, 3, 9}, {2, 3, 4}
    given = [np.array(sorted(part), np.uint64) for part in (one, other)]
    assert minhash.jaccard(*given) == len(one & other) / len(one | other)
    assert minhash.jaccard(given[0], given[0]) == 1
    assert minhash.jaccard(given[0][:0], given[1][:0]) == 0


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(DependencyError, match="near duplicates needs the package 'rensa'"):
        minhash.library()


def test_clusters_are_the_connected_parts() -> None:
    draw, n = random.Random(1), 60
    alike = {(i, j) for i in range(n) for j in range(i + 1, n) if draw.random() < 0.02}
    asked: list[tuple[int, int]] = []

    def similarity(i: int, j: int) -> float:
        asked.append((i, j))
        return 0.9 if (i, j) in alike else 0.1

    groups = near.Groups(n)
    chosen = np.array([i for i in range(n) if i % 7])
    counts = near.cluster(np.zeros((n, 3), np.uint64), chosen, similarity, 0.85, groups)
    assert counts == (len(asked), 0) and len(asked) == len(set(asked))
    parents = {i: {i} for i in range(n)}  # by hand
    for i, j in alike:
        if i % 7 and j % 7 and parents[i] is not parents[j]:
            parents[i] |= parents[j]
            for k in parents[j]:
                parents[k] = parents[i]
    assert all(groups.root(i) == min(parents[i]) for i in range(n))


def test_a_large_cluster_takes_a_comparison_a_member() -> None:
    n = 3000
    keys, groups = np.zeros((n, 2), np.uint64), near.Groups(n)
    assert near.cluster(keys, np.arange(n), lambda i, j: 1.0, 0.85, groups) == (n - 1, 0)
    assert all(groups.root(i) == 0 for i in range(n))


def test_only_members_of_a_bucket_are_candidates() -> None:
    keys = np.array([[1, 5], [1, 6], [2, 7], [3, 7], [4, 8]], np.uint64)
    assert near.candidates(keys, np.arange(5)).tolist() == [True, True, True, True, False]
    assert near.candidates(keys, np.array([0, 2, 4])).tolist() == [False] * 5


def test_pairs_of_a_crowded_bucket_that_are_left_out_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "MOST", 2)
    found = near.cluster(np.zeros((5, 1), np.uint64), np.arange(5), lambda i, j: 0.0, 0.5, near.Groups(5))
    assert found == (1 + 2 + 2 + 2, 0 + 0 + 1 + 2)


def test_sets_are_kept_on_disk_and_leave_nothing(tmp_path: Path) -> None:
    sets = near.Sets(3, tmp_path)
    sets.add(2, np.array([5, 1, 5, 3], np.uint64))
    sets.add(0, np.array([1, 3], np.uint64))
    assert sets.get(2).tolist() == [1, 3, 5] and sets.get(0).tolist() == [1, 3]
    assert sets.jaccard(0, 2) == 2 / 3
    sets.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.wide
def test_work_comes_back_in_order_and_a_death_is_an_error() -> None:
    asked = list(range(40))
    assert list(spread(math.sqrt, asked, 2)) == list(spread(math.sqrt, asked, 1)) == [x**0.5 for x in asked]
    with pytest.raises(ValueError):
        list(spread(math.sqrt, [1, -1], 2))
    with pytest.raises(TinyGPTError, match="has died"):
        list(spread(os._exit, [1, 1], 2))
