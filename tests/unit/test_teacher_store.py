"""The store of a teacher's likeliest tokens: what is read is what was kept, within its bound."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.distill.likeliest import errors
from tinygpt.distill.store import LEVELS, Key, Places, Store, fitting, pack, packed, row_hash


def dense(n: int, vocabulary: int, seed: int = 0, spread: float = 3.0) -> np.ndarray:
    z = np.random.default_rng(seed).normal(0, spread, (n, vocabulary))
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def likeliest(log_p: np.ndarray, k: int) -> Places:
    ids = np.argsort(-log_p, -1)[:, :k].astype(np.int32)
    top = np.take_along_axis(log_p, ids, -1).astype(np.float32)
    return Places(ids, top, np.ones(len(log_p), bool))


def key(vocabulary: int = 300, **changes: Any) -> Key:
    given: dict[str, Any] = {"teacher": "t", "tokenizer": "w", "vocabulary": vocabulary, "k": 8}
    return Key(**{**given, **changes})


def rows(n: int, **how: Any) -> list[tuple[bytes, Places]]:
    return [(i.to_bytes(16, "big"), likeliest(dense(3 + i % 4, 300, seed=i, **how), 8)) for i in range(n)]


@pytest.mark.parametrize(("vocabulary", "id_bytes"), [(256, 1), (257, 2), (32_768, 2), (65_537, 3)])
@pytest.mark.parametrize("spread", [0.3, 3.0, 12.0])
def test_what_is_read_is_what_was_kept_within_the_bound(
    vocabulary: int, id_bytes: int, spread: float
) -> None:
    given = likeliest(dense(6, vocabulary, spread=spread), 64)
    assert key(vocabulary).id_bytes == id_bytes
    found = packed(given, id_bytes)
    assert (found.ids == given.ids).all() and found.known.all()
    among = [p.log_p.astype(np.float64) for p in (given, found)]
    cost, read = (np.log(np.exp(x).sum(-1, keepdims=True)) - x for x in among)
    largest = cost.max(-1, keepdims=True)
    bound = np.sqrt(cost * largest) / LEVELS + largest / (4 * LEVELS**2) + largest / 2048
    # All costs are moved by one number, so that probabilities sum to 1: it is bounded as they are.
    assert (np.abs(read - cost) <= 2 * bound.max(-1, keepdims=True)).all()
    moved = (read - cost).mean(-1, keepdims=True)
    assert np.abs(moved).max() < 0.01 * largest.max() and np.abs(read - cost).max() < 0.012 * largest.max()
    rest = [np.log(np.maximum(1 - np.exp(x).sum(-1), 1e-9)) for x in among]
    small = rest[0] < math.log(1e-5)  # float32 sums know no less
    np.testing.assert_allclose(rest[1][~small], rest[0][~small], rtol=2e-3, atol=2e-3)
    assert (rest[1][small] < math.log(1.1e-4)).all()


def test_a_place_takes_3_bytes_a_token_and_4_more() -> None:
    parts = pack(likeliest(dense(5, 32_768), 64), 2)
    assert sum(map(len, parts.values())) == 5 * (3 * 64 + 4)


def test_all_tokens_may_be_kept() -> None:
    """Then nothing is left for others."""
    found = packed(likeliest(dense(4, 9), 9), 1)
    np.testing.assert_allclose(np.exp(found.log_p).sum(-1), 1, atol=1e-6)
    assert key(9, k=64).k == 9
    same = Places(np.zeros((1, 1), np.int32), np.array([[-0.7]], np.float32), np.ones(1, bool))
    assert packed(same, 1).log_p[0, 0] == pytest.approx(-0.7, abs=2e-3)


def test_nothing_is_known_of_a_place_stays_so() -> None:
    given = likeliest(dense(3, 300), 8)
    found = packed(Places(given.ids, given.log_p, np.array([True, False, True])), 2)
    assert found.known.tolist() == [True, False, True] and np.isfinite(found.log_p).all()


def test_rows_are_found_again_in_another_process(tmp_path: Path) -> None:
    store, given = Store(tmp_path, key()), rows(9)
    full = [store.add(row, places, most=10) for row, places in given]
    assert any(full) and store.flush() and not store.flush()
    again = Store(tmp_path, key())
    assert len(again.shards) > 2
    for row, places in given:
        found = again.read(row)
        wanted = packed(places, 2)
        assert (found.ids == places.ids).all() and (found.log_p == wanted.log_p).all()
    facts = again.facts()
    assert facts["rows"] == 9 and facts["places"] == sum(len(p.ids) for _, p in given)
    on_disk = sum(f.stat().st_size for f in (again.path / "shards").rglob("*") if f.is_file())
    assert facts["bytes"] == on_disk and "measured" not in facts


@pytest.mark.parametrize("change", [{"teacher": "u"}, {"tokenizer": "x"}, {"temperature": 2.0}, {"k": 4}])
def test_another_teacher_tokenizer_temperature_or_k_is_another_store(
    change: dict[str, Any], tmp_path: Path
) -> None:
    store = Store(tmp_path, key())
    store.add(*rows(1)[0])
    store.flush()
    assert not Store(tmp_path, key(**change)).at
    assert fitting(tmp_path, tokenizer="w", k=8) == [key()] and not fitting(tmp_path, **{**change, "k": 4})


@pytest.mark.parametrize("how", ["flipped", "short", "no header", "odd header"])
def test_a_damaged_shard_is_noted_left_out_and_made_again(how: str, tmp_path: Path, memory: Any) -> None:
    store, given = Store(tmp_path, key()), rows(4)
    for row, places in given[:2]:
        store.add(row, places)
    store.flush()
    for row, places in given[2:]:
        store.add(row, places)
    store.flush()
    hurt = store.path / "shards" / "000001"
    raw = bytearray((hurt / "levels.bin").read_bytes())
    if how == "flipped":
        raw[3] ^= 1
        (hurt / "levels.bin").write_bytes(raw)
    elif how == "short":
        (hurt / "levels.bin").write_bytes(raw[:-1])
    elif how == "no header":
        (hurt / "header.json").unlink()
    else:
        (hurt / "header.json").write_text("[]")
    again = Store(tmp_path, key(), Events(memory))
    assert [row in again for row, _ in given] == [True, True, False, False]
    assert "000001 is damaged" in memory.events[0].text
    for row, places in given[2:]:
        again.add(row, places)
    again.flush()
    assert all(row in Store(tmp_path, key()) for row, _ in given)


def test_a_key_that_was_lost_is_written_again(tmp_path: Path) -> None:
    for text in ("[1]", None):
        store = Store(tmp_path, key(9, k=2))
        store.add(bytes([len(store.shards)] * 16), likeliest(dense(1, 9), 2))
        store.flush()
        assert fitting(tmp_path, k=2) == [store.key]
        if text is not None:
            (store.path / "key.json").write_text(text)
            assert not fitting(tmp_path, k=2)


def test_a_process_that_ends_between_shards_leaves_whole_ones(tmp_path: Path) -> None:
    store, given = Store(tmp_path, key()), rows(8)
    for row, places in given:
        store.add(row, places, most=8)  # the last rows wait, and are never written
    again = Store(tmp_path, key())
    kept = [row in again for row, _ in given]
    assert kept == [row in store for row, _ in given] and any(kept) and not all(kept)
    store.path.joinpath("shards", ".000009.tinygpt.tmp-999999").mkdir()  # and one begun a shard
    for row, places in given:
        if row not in again:
            again.add(row, places)
    again.flush()
    assert all(row in Store(tmp_path, key()) for row, _ in given)


def test_a_row_is_known_by_what_a_teacher_reads() -> None:
    batch = nano.batch(2, 10, real=[10, 7], prompt=3)
    counts = batch.weights > 0
    wide = nano.batch(2, 16, real=[10, 7], prompt=3)
    for name in ("tokens", "segments"):
        getattr(wide, name)[:, :10] = getattr(batch, name)
    found = row_hash(batch, 1, counts[1])
    assert row_hash(wide, 1, np.pad(counts[1], (0, 6))) == found != row_hash(batch, 0, counts[0])
    batch.targets[1] = 5  # says nothing about what comes next to a teacher
    assert row_hash(batch, 1, counts[1]) == found
    other = counts[1].copy()
    other[3] = not other[3]
    assert row_hash(batch, 1, other) != found
    batch.segments[1, 5:7] = 2
    assert row_hash(batch, 1, counts[1]) != found


def test_errors_are_kl_divergences_to_the_whole_distribution() -> None:
    whole, mean = dense(1, 50)[0], np.exp(dense(1, 50, seed=3)[0])
    one = likeliest(whole[None], 5)
    found = errors(whole, one, 1, mean)
    kept, p = packed(one, 1), np.exp(whole)
    q = np.zeros(50)
    q[kept.ids[0]] = np.exp(kept.log_p[0].astype(np.float64))
    others = np.setdiff1d(np.arange(50), kept.ids[0])
    m = 0.99 * mean[others] + 0.01 / 50
    q[others] = (1 - q.sum()) * m / m.sum()
    assert found["kl_spread"] == pytest.approx((p * (whole - np.log(q))).sum(), rel=1e-6)
    top = one.ids[0]
    ends = [np.append(x[top], 1 - x[top].sum()) for x in (p, q)]
    assert found["kl_events"] == pytest.approx((ends[0] * np.log(ends[0] / ends[1])).sum(), rel=1e-6)
    assert found["tail"] == pytest.approx(ends[0][-1], rel=1e-6)
    assert 0 <= found["kl_events"] < 1e-3 < found["kl_spread"]
    flat = errors(whole, likeliest(whole[None], 50), 1, mean)
    assert flat["tail"] == 0 and flat["kl_spread"] < 1e-3


def test_k_is_at_least_1() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        key(k=0)
