"""The token cache: built once, whole or absent, rebuilt with a note when damaged."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from tinygpt.core.errors import DataError
from tinygpt.core.events import Events, Note
from tinygpt.data import cache


class Corpus:
    """Two documents, and how often they were tokenised."""

    def __init__(self) -> None:
        self.n_writes = 0

    def __call__(self, writer: cache.Writer) -> None:
        self.n_writes += 1
        writer.begin(4)
        writer.add([1, 2])
        writer.add([3])
        writer.begin(2)
        writer.add([70_000 if writer.dtype == "<u4" else 4])
        writer.facts = {"n": 2}


@pytest.mark.parametrize("vocab_size", [65_536, 65_537])
def test_it_is_written_once(tmp_path: Path, vocab_size: int) -> None:
    corpus = Corpus()
    for _ in range(2):
        tokens = cache.cached(tmp_path / "a", vocab_size, corpus)
        assert tokens.ids.tolist() == [1, 2, 3, 4 if vocab_size == 65_536 else 70_000]
        assert (tokens.starts.tolist(), tokens.sizes.tolist(), tokens.facts) == ([0, 3], [4, 2], {"n": 2})
        assert not tokens.ids.flags.writeable
    assert corpus.n_writes == 1
    assert cache.uncached(vocab_size, corpus).ids.tolist() == tokens.ids.tolist()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: flip(p / "tokens.bin"),
        lambda p: flip(p / "starts.bin"),
        lambda p: (p / "tokens.bin").write_bytes(b"\0\0"),
        lambda p: (p / "sizes.bin").unlink(),
        lambda p: (p / "header.json").write_text('{"version": 1'),
        lambda p: (p / "header.json").write_text('{"version": 0}'),
        lambda p: (p / "header.json").write_text("[]"),
        lambda p: (shutil.rmtree(p), p.write_text("a file")),
    ],
)
def test_a_damaged_entry_is_made_again_with_a_note(tmp_path: Path, damage: Any, memory: Any) -> None:
    corpus = Corpus()
    cache.cached(tmp_path / "a", 100, corpus)
    damage(tmp_path / "a")
    tokens = cache.cached(tmp_path / "a", 100, corpus, Events(memory))
    assert tokens.ids.tolist() == [1, 2, 3, 4] and corpus.n_writes == 2
    assert "is damaged" in memory.of(Note)[0].text
    cache.cached(tmp_path / "a", 100, corpus, Events(memory))
    assert corpus.n_writes == 2 and len(memory.events) == 1


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text"):
        cache.cached(tmp_path / "a", 100, lambda writer: None)

    def full(writer: cache.Writer) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="No space left"):
        cache.cached(tmp_path / "a", 100, full)
    assert list(tmp_path.iterdir()) == []


def test_one_makes_it_and_the_other_waits(tmp_path: Path, memory: Any) -> None:
    corpus, waits = Corpus(), threading.Event()

    class Waiting:
        def write(self, event: Any) -> None:
            assert "another process tokenises this corpus" in event.text
            waits.set()

        def close(self) -> None:
            """Nothing to release."""

    def write(writer: cache.Writer) -> None:
        other.start()
        assert waits.wait(60), "the other one did not wait"
        corpus(writer)

    found: list[cache.Tokens] = []
    other = threading.Thread(
        target=lambda: found.append(cache.cached(tmp_path / "a", 100, corpus, Events(Waiting())))
    )
    found.append(cache.cached(tmp_path / "a", 100, write, Events(memory)))
    other.join()
    assert [t.ids.tolist() for t in found] == [[1, 2, 3, 4]] * 2 and corpus.n_writes == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a"], "no lock is left"


def test_the_key_depends_on_every_part() -> None:
    assert cache.key("text", "a", "b") == cache.key("text", "a", "b") != cache.key("text", "b", "a")
