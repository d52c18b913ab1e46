"""Tokenising in blocks and by several processes gives the tokens of encoding each document at once."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygpt.core.errors import TinyGPTError
from tinygpt.core.events import Events, Progress
from tinygpt.data import bpe, cache, corpus, encode, rows
from tinygpt.data.tokenizer import byte


def tokens(files: list[Path], tokenizer: Any, **more: Any) -> cache.Tokens:
    def write(writer: cache.Writer) -> None:
        encode.tokenise(files, tokenizer, tokenizer.eos_id, writer, **more)

    return cache.uncached(tokenizer.vocab_size, write)


def test_tokens_are_the_same_in_blocks_and_by_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: Any
) -> None:
    written = "".join(f"Line {n} says é and more\nand goes on {n * n}\n\n" for n in range(300))
    (tmp_path / "a.txt").write_text(written)
    (tmp_path / "b.txt").write_text("")
    rows.write(tmp_path / "c.jsonl", [{"text": f"row {n} 漢"} for n in range(20)] + [{"text": ""}, {}])
    files = sorted(tmp_path.iterdir())
    tokenizer = bpe.train_bpe([written], bpe.Config(vocab_size=400))
    expected: list[int] = []
    documents = [written, *(f"row {n} 漢" for n in range(20))]
    for document in documents:
        expected += [tokenizer.eos_id, *tokenizer.encode(document)]
    straight = tokens(files, tokenizer)
    assert straight.ids.tolist() == expected and straight.sizes.tolist() == [
        len(d.encode()) for d in documents
    ]
    assert straight.facts["per_file"] == [1, 0, 20] and straight.facts["empty"] == 2
    monkeypatch.setattr(corpus, "BLOCK", 64)
    monkeypatch.setattr(encode, "PIECE", 100)
    monkeypatch.setattr(encode, "SHARE", 1000)
    shared = tokens(files, tokenizer, workers=2, events=Events(memory))
    assert shared.ids.tolist() == expected and shared.starts.tolist() == straight.starts.tolist()
    told = memory.of(Progress)
    assert [t.done for t in told] == sorted(t.done for t in told) and told[-1].done == told[-1].total
    assert len(told) > 3
    byte_wise = tokens(files, byte.load())
    assert byte_wise.ids.dtype == np.uint16 and len(byte_wise.ids) == sum(
        len(d.encode()) + 1 for d in documents
    )


def test_a_helper_that_dies_ends_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("Words and\nmore words. " * 500)
    monkeypatch.setattr(encode, "SHARE", 100)
    monkeypatch.setattr(encode, "PIECE", 50)
    helpers: list[Any] = []
    start = encode._helper

    def started(setup: bytes) -> Any:
        helpers.append(start(setup))
        if len(helpers) == 2:
            os.kill(helpers[0].pid, signal.SIGKILL)
        return helpers[-1]

    monkeypatch.setattr(encode, "_helper", started)
    with pytest.raises(TinyGPTError, match="a process that tokenises ended with code -9"):
        tokens([tmp_path / "a.txt"], byte.load(), workers=2)
    assert len(helpers) == 2 and all(h.returncode is not None for h in helpers), "none is left behind"
