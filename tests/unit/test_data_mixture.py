"""Mixtures: exact shares, each corpus by its own epochs, held-out parts apart, batches by number alone."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygpt.core.config import from_dict
from tinygpt.core.errors import ConfigError
from tinygpt.data.prefetch import Prefetched
from tinygpt.data.source import text
from tinygpt.data.source._mixture import PERIOD, deal, shares
from tinygpt.data.tokenizer import byte

TOKENIZER = byte.load()


def write(folder: Path) -> None:
    """Three corpora, told apart by their letter: 40, 20 and 10 rows of 32 tokens and some held out."""
    for letter, n in (("a", 40), ("b", 20), ("c", 10)):
        lines = [f"{letter * 30}{i:02d}\n" for i in range(n)]
        (folder / f"{letter}.txt").write_text("".join(lines))


def mixture(folder: Path, *given: str, seed: int = 5, batch: int = 4, **more: Any) -> Any:
    write(folder)
    paths = [g.replace("@", f"{folder}/") for g in given]
    config = from_dict(text.Config, {"paths": paths, "held_out": 0.1, **more})
    return text.build(config, TOKENIZER, length=32, batch_size=batch, seed=seed)


def letters(source: Any, n: int) -> list[str]:
    """Which corpus each of the first n rows is from."""
    found = []
    for i in range(n // source.batch_size):
        for row in source[i].tokens:
            found.append(max("abc", key=lambda c: int((row == ord(c)).sum())))
    return found


def test_shares_are_whole_and_exact() -> None:
    for weights in ([1, 1, 1], [0.7, 0.2, 0.1], [5.0], [1e-3, 1, 2]):
        found = shares(weights)
        assert sum(found) == PERIOD
        assert all(abs(n - w / sum(weights) * PERIOD) < 1 for n, w in zip(found, weights))


def test_the_share_holds_after_any_number_of_rows() -> None:
    weights = [0.6, 0.3, 0.07, 0.03]
    which, number = deal(weights, 3)
    assert (deal(weights, 3)[0] == which).all() and (deal(weights, 4)[0] != which).any()
    so_far = np.cumsum(which[:, None] == np.arange(4), axis=0)
    exact = np.arange(1, PERIOD + 1)[:, None] * np.array(weights)
    assert np.abs(so_far - exact).max() < 4
    for c in range(4):
        assert (number[which == c] == np.arange((which == c).sum())).all(), "each row of a corpus in turn"


def test_weights_and_epochs(tmp_path: Path) -> None:
    source = mixture(tmp_path, "x=@a.txt:1", "y=@b.txt:1", "z=@c.txt:2")
    found = letters(source, 400)
    assert {c: found.count(c) for c in "abc"} == pytest.approx({"a": 100, "b": 100, "c": 200}, abs=3)
    # Every row of a corpus once in each of its own epochs.
    rows = [bytes(row) for i in range(100) for row in source[i].tokens.astype(np.uint8)]
    for letter, part in zip("abc", source.parts.values()):
        own = [row for row, c in zip(rows, found) if c == letter]
        for epoch in range(len(own) // part.n_rows):
            once = own[epoch * part.n_rows : (epoch + 1) * part.n_rows]
            assert len(set(once)) == part.n_rows > 5
    facts = source.describe()
    assert {n: c["weight"] for n, c in facts["corpora"].items()} == {"x": 0.25, "y": 0.25, "z": 0.5}
    assert facts["tokens"] == sum(c["tokens"] for c in facts["corpora"].values())
    assert set(facts["held_out"]["corpora"]) == {"x", "y", "z"}
    seen = source.epochs(100)
    assert seen["z"] == pytest.approx(200 / source.parts["z"].n_rows, rel=1e-3)
    json.dumps(facts)


def test_without_weights_all_text_is_read_equally_often(tmp_path: Path) -> None:
    source = mixture(tmp_path, "x=@a.txt", "y=@b.txt", "z=@c.txt")
    epochs = source.epochs(50).values()
    assert max(epochs) == pytest.approx(min(epochs), rel=1e-3)


def test_a_batch_depends_on_its_number_alone(tmp_path: Path) -> None:
    given = ("x=@a.txt:1", "y=@b.txt:3")
    one, other = mixture(tmp_path, *given), mixture(tmp_path, *given)
    late = other[37].tokens
    for i in range(37):
        assert (one[i].tokens == other[i].tokens).all()
    assert (one[37].tokens == late).all()
    single = mixture(tmp_path, *given, batch=1)
    assert (np.concatenate([single[i].tokens for i in range(4 * 37, 4 * 38)]) == late).all()
    assert (mixture(tmp_path, *given, seed=6)[37].tokens != late).any()
    assert one.recipe != mixture(tmp_path, "x=@a.txt:1", "y=@b.txt:2").recipe


def test_held_out_parts_are_read_one_after_another(tmp_path: Path) -> None:
    source = mixture(tmp_path, "x=@a.txt:1", "y=@b.txt:3")
    held = source.held_out
    batches = list(held)
    assert len(batches) == len(held) == sum(len(p) for p in held.parts.values())
    assert held.weights == {"x": 0.25, "y": 0.75}
    both = [b for part in held.parts.values() for b in part]
    assert all((a.tokens == b.tokens).all() for a, b in zip(batches, both))
    assert mixture(tmp_path, "x=@a.txt:1", "y=@b.txt:3", held_out=0).held_out is None


def test_a_share_that_is_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="weight of the corpus y is less than 1 in 65536"):
        mixture(tmp_path, "x=@a.txt:1", "y=@b.txt:1e-9")


# Prefetch.


def test_prefetched_batches_are_the_same(tmp_path: Path) -> None:
    source = mixture(tmp_path, "x=@a.txt:1", "y=@b.txt:3")
    threads: list[str] = []

    class Told:
        def __getitem__(self, i: int) -> Any:
            threads.append(threading.current_thread().name)
            if i == 9:
                raise IndexError(i)
            return source[i]

    ahead = Prefetched(Told())
    for i in (0, 1, 2, 7, 8):
        assert (ahead[i].tokens == source[i].tokens).all()
    assert sum(name.startswith("prefetch") for name in threads) >= 3
    with pytest.raises(IndexError):
        ahead[9]
