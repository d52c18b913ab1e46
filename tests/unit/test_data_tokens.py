"""Rows of recorded tokens: learned as they are, refused for another tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data import rows
from tinygpt.data.source import chat
from tinygpt.data.source._tokens import Tokens, to_tokens
from tinygpt.data.tokenizer import byte

TOKENIZER = byte.load()
# Ids that no text is written as: the second answer is "a" twice in a row as single bytes with a stop between.
ROW = {"ids": [5, 97, 98, 256, 7, 7, 257, 9], "learn": [0, 0, 1, 1, 0, 0, 1, 0]}


def row(**more: Any) -> dict[str, Any]:
    return {**ROW, "tokenizer_hash": TOKENIZER.hash, "task": "x", "_meta": {}, **more}


def read(path: Path, found: list[Any], **more: Any) -> Any:
    rows.write(path, found)
    config = chat.Config(paths=(path,), held_out=0.0, **more)
    return config, chat.build(config, TOKENIZER, length=32, batch_size=1)


def learned(source: Any) -> list[tuple[list[int], list[int]]]:
    """(what is read, what is learned of it) of every segment."""
    found = []
    for i in range(len(source)):
        batch = source[i]
        for b in range(batch.shape[0]):
            for s in range(1, int(batch.segments[b].max()) + 1):
                here = batch.segments[b] == s
                weights = batch.weights[b, here]
                found.append((batch.tokens[b, here].tolist(), batch.targets[b, here][weights > 0].tolist()))
    return found


def test_the_ids_are_learned_as_they_are(tmp_path: Path) -> None:
    _, source = read(tmp_path / "a.jsonl", [row()])
    assert learned(source) == [([5, 97, 98, 256, 7, 7], [98, 256, 257])], "nothing after the last is read"
    assert source.describe()["read"] == {str(tmp_path / "a.jsonl"): {"{ids, learn, tokenizer_hash}": 1}}
    _, source = read(tmp_path / "a.jsonl", [row()], learn="last")
    assert learned(source) == [([5, 97, 98, 256, 7, 7], [257])]
    _, source = read(tmp_path / "a.jsonl", [row()], learn="all")
    assert learned(source) == [([5, 97, 98, 256, 7, 7], [97, 98, 256, 7, 7, 257])]


def test_rows_of_text_may_stand_beside_them(tmp_path: Path) -> None:
    _, source = read(tmp_path / "a.jsonl", [row(), {"question": "a", "answer": "b"}, row()])
    assert source.describe()["documents"] == 3
    told = [targets for _, targets in learned(source)]
    assert told.count([98, 256, 257]) == 2 and len(told) == 3


def test_another_tokenizer_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ids of another tokenizer") as refusal:
        read(tmp_path / "a.jsonl", [row(), row(tokenizer_hash="0" * 64)])
    assert "without --token-exact" in refusal.value.hint


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"tokenizer_hash": None}, "must have the 'tokenizer_hash'"),
        ({"ids": [0, -1] * 4}, "from 0 to"),
        ({"ids": [0, 9999] * 4}, "from 0 to"),
        ({"ids": [True] * 8}, "from 0 to"),
        ({"learn": [1]}, "for each of the ids"),
        ({"learn": [2] * 8}, "0 or 1"),
        ({"learn": [1] + [0] * 7}, "none of the ids is learned"),
    ],
)
def test_what_is_wrong_is_said(more: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match=why):
        to_tokens(row(**more), TOKENIZER)


def test_the_last_stretch() -> None:
    assert Tokens([1, 2, 3, 4], [True, False, True, True]).last().learn == [False, False, True, True]


def test_duplicates_of_tokens_are_told_by_their_ids() -> None:
    assert rows.whole(row()) == "5 97 98 256 7 7 257 9"
