"""Packing: no token is lost or seen twice, documents never mix, targets are what follows."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.data.batch import Batch
from tinygpt.data.pack import (
    Alone,
    Cut,
    Fit,
    Rows,
    empty,
    fit_plan,
    permutation,
    sequential_plan,
    single_plan,
)

PAD, EOS = 999, 998
documents = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=12)


def fill(rows: Rows, length: int) -> Batch:
    batch = empty(len(rows), length, PAD)
    for r in range(len(rows)):
        rows.fill(r, batch, r)
    return batch


def segments(batch: Batch) -> list[dict[str, list[Any]]]:
    """Every segment of every row, after checking what holds for all packed rows."""
    found = []
    for b in range(batch.shape[0]):
        numbers = batch.segments[b]
        used = int((numbers > 0).sum())
        assert (numbers[used:] == 0).all() and (batch.weights[b, used:] == 0).all()
        assert (batch.tokens[b, used:] == PAD).all() and (batch.targets[b, used:] == PAD).all()
        assert (np.diff(numbers[:used]) >= 0).all() and set(numbers[:used]) == set(
            range(1, numbers.max() + 1)
        )
        for number in range(1, numbers.max() + 1):
            here = numbers == number
            assert batch.positions[b, here].tolist() == list(range(here.sum()))
            names = ("tokens", "targets", "weights")
            found.append({name: getattr(batch, name)[b, here].tolist() for name in names})
    return found


@given(documents=documents, length=st.integers(1, 9), data=st.data())
@settings(max_examples=40, deadline=None)
def test_cut_reads_every_token_once_and_never_over_a_border(documents: Any, length: int, data: Any) -> None:
    stream = np.array([t for d in documents for t in d], np.uint16)
    starts = np.cumsum([0] + [len(d) for d in documents[:-1]])
    begin = data.draw(st.integers(0, len(stream) - 1))
    end = data.draw(st.integers(begin + 1, len(stream)))
    rows = Cut(stream, starts, begin, end, length=length, eos_id=EOS)
    batch = fill(rows, length)
    assert rows.n_tokens == end - begin == int((batch.segments > 0).sum())
    read = [t for s in segments(batch) for t in s["tokens"]]
    targets = [t for s in segments(batch) for t in s["targets"]]
    weights = [t for s in segments(batch) for t in s["weights"]]
    assert read == stream[begin:end].tolist()
    for i, (target, weight) in enumerate(zip(targets, weights, strict=True), begin + 1):
        ends = i in starts or i == len(stream)
        assert weight == (0 if i == end and not ends else 1)
        assert weight == 0 or target == (EOS if ends else stream[i])
    # One segment holds tokens of one document only.
    owner = np.searchsorted(starts, np.arange(len(stream)), side="right")
    at = begin
    for segment in segments(batch):
        n = len(segment["tokens"])
        assert len(set(owner[at : at + n])) == 1
        at += n


@given(documents=documents, length=st.integers(1, 9), data=st.data())
@settings(max_examples=35, deadline=None)
def test_alone_is_the_same_with_one_document_a_row(documents: Any, length: int, data: Any) -> None:
    stream = np.array([t for d in documents for t in d], np.uint16)
    starts = np.cumsum([0] + [len(d) for d in documents[:-1]])
    begin = data.draw(st.integers(0, len(stream) - 1))
    end = data.draw(st.integers(begin + 1, len(stream)))
    one = Alone(stream, starts, begin, end, length=length, eos_id=EOS)
    found = segments(fill(one, length))
    assert len(found) == len(one) and one.n_tokens == end - begin, "a segment a row"
    whole = segments(fill(Cut(stream, starts, begin, end, length=len(stream), eos_id=EOS), len(stream)))
    for name in ("tokens", "targets", "weights"):
        assert [x for s in found for x in s[name]] == [x for s in whole for x in s[name]]


@given(documents=documents, room=st.integers(0, 9))
@settings(max_examples=35, deadline=None)
def test_fit_keeps_examples_whole(documents: Any, room: int) -> None:
    examples = [[*d, 7] for d in documents]
    length = max(len(e) for e in examples) - 1 + room
    plan = fit_plan([len(e) - 1 for e in examples], length)
    ids = np.array([t for e in examples for t in e], np.int32)
    learn = ids % 2 == 1
    edges = np.cumsum([0] + [len(e) for e in examples])
    rows = Fit(ids, learn, edges, plan)
    found = segments(fill(rows, length))
    expected = [
        {"tokens": e[:-1], "targets": e[1:], "weights": [float(t % 2) for t in e[1:]]}
        for e in (examples[i] for row in plan for i in row)
    ]
    assert found == expected
    assert sorted(i for row in plan for i in row) == list(range(len(examples)))
    assert rows.n_tokens == sum(len(e) - 1 for e in examples)


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=60), length=st.integers(40, 64))
@settings(max_examples=35, deadline=None)
def test_fit_plan_needs_few_rows(sizes: list[int], length: int) -> None:
    plan = fit_plan(sizes, length)
    assert all(0 < sum(sizes[e] for e in row) <= length for row in plan)
    least = -(-sum(sizes) // length)
    assert len(plan) <= 2 * least  # two half-empty rows would have been one


def test_other_plans_keep_the_order() -> None:
    assert sequential_plan([3, 4, 2, 8, 1, 1], 8) == [[0, 1], [2], [3], [4, 5]]
    assert single_plan([3, 8], 8) == [[0], [1]]
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 50, 500).tolist()
    plan = sequential_plan(sizes, 64)
    assert [e for row in plan for e in row] == list(range(500))
    assert all(sum(sizes[e] for e in row) <= 64 for row in plan)
    assert all(sum(sizes[e] for e in a) + sizes[b[0]] > 64 for a, b in zip(plan, plan[1:]))


def test_fit_plan_is_fast_and_tight() -> None:
    sizes = np.random.default_rng(0).integers(20, 200, 20_000).tolist()
    plan = fit_plan(sizes, 512)
    assert sum(sizes) / (len(plan) * 512) > 0.99


def test_permutation_is_fixed_for_ever() -> None:
    assert permutation(8, 0, 0).tolist() == [0, 3, 7, 5, 1, 2, 6, 4]
    assert sorted(permutation(100, 1, 2)) == list(range(100))
    assert permutation(50, 1, 2).tolist() != permutation(50, 2, 1).tolist()


def test_rows_of_a_batch_are_views() -> None:
    batch = empty(4, 3, PAD)
    part = batch.rows(1, 3)
    assert part.shape == (2, 3) and np.shares_memory(part.tokens, batch.tokens)
    batch.weights[2, 1] = 1
    assert (batch.n_targets, part.n_targets, batch.rows(0, 1).n_targets) == (1, 1, 0)
    assert batch.tokens.dtype == batch.segments.dtype == np.int32 and batch.weights.dtype == np.float32
    arrays = [batch.tokens, batch.targets, batch.weights, batch.positions, batch.segments]
    assert not any(np.shares_memory(a, b) for a in arrays for b in arrays if a is not b)
