"""BPE-dropout against the paper's algorithm 1 and against `tokenizers`' own; rows that lose no text."""

from __future__ import annotations

import collections
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from tinygpt.core.errors import ConfigError, UnsupportedError
from tinygpt.data import bpe, bpe_dropout
from tinygpt.data.bpe_dropout import Speller, cut_utf8
from tinygpt.data.source import text
from tinygpt.data.tokenizer import byte, hf

WRITTEN = "".join(
    f"The lower widest newest one of {n} lowers wider newer things, café {n} 漢字 😀.\n" for n in range(60)
)
TOKENIZER = bpe.train_bpe([WRITTEN], bpe.Config(vocab_size=420, split_digits=False))
MERGES = {tuple(m): rank for rank, m in enumerate(TOKENIZER.definition["model"]["merges"])}


def algorithm_1(word: str, p: float, rng: random.Random) -> tuple[str, ...]:
    """The paper's: of all merges that are possible, drop each with p, apply the best that is left."""
    split = list(word)
    while True:
        possible = [(MERGES[pair], i) for i, pair in enumerate(zip(split, split[1:])) if pair in MERGES]
        kept = [merge for merge in possible if rng.random() >= p]
        if not kept:
            return tuple(split)
        _, i = min(kept)
        split[i : i + 2] = [split[i] + split[i + 1]]


def names(ids: list[int]) -> tuple[str, ...]:
    vocab = {id: name for name, id in TOKENIZER.definition["model"]["vocab"].items()}
    return tuple(vocab[id] for id in ids)


def test_no_dropout_is_the_plain_encoding() -> None:
    speller = Speller(TOKENIZER, 0.0)
    for pattern in ("gpt2", "word", "copy"):
        tokenizer = bpe.train_bpe([WRITTEN], bpe.Config(vocab_size=420, pattern=pattern))  # type: ignore[arg-type]
        assert Speller(tokenizer, 0.0).encode(WRITTEN, random.Random(0).random) == tokenizer.encode(WRITTEN)
    odd = " " * 300 + "lowestlowest" * 40 + "\n\n=====\tétét"
    assert speller.encode(odd, random.Random(0).random) == TOKENIZER.encode(odd)


def test_full_dropout_gives_bytes() -> None:
    ids = Speller(TOKENIZER, 1.0).encode(WRITTEN, random.Random(0).random)
    assert len(ids) == len(WRITTEN.encode()) and TOKENIZER.decode(ids) == WRITTEN


def test_the_text_is_the_same() -> None:
    speller, rng = Speller(TOKENIZER, 0.3), random.Random(1)
    first, second = speller.encode(WRITTEN, rng.random), speller.encode(WRITTEN, rng.random)
    assert TOKENIZER.decode(first) == TOKENIZER.decode(second) == WRITTEN and first != second
    assert speller.encode(WRITTEN, random.Random(1).random) == first


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_spellings_are_as_likely_as_in_algorithm_1(p: float) -> None:
    """Frequencies of all spellings of a word, within 4.5 standard deviations of the difference."""
    speller, n = Speller(TOKENIZER, p), 4000
    (word,) = speller.words(" newest")
    rng = random.Random(2)
    found = collections.Counter(names(speller.spell(word, rng.random)) for _ in range(n))
    wanted = collections.Counter(algorithm_1(word, p, rng) for _ in range(n))
    assert len(wanted) > 3
    for spelling in found | wanted:
        a, b = found[spelling], wanted[spelling]
        assert abs(a - b) < 4.5 * math.sqrt(a + b + 1), (spelling, a, b)


def test_the_library_drops_as_much() -> None:
    """`tokenizers` draws from a generator that cannot be seeded; tokens a text on the mean of many."""
    words = ["newest", "lower", "widest", "things"]
    for p in (0.1, 0.4):
        definition = json.loads(json.dumps(TOKENIZER.definition))
        definition["model"]["dropout"] = p
        library = tokenizers.Tokenizer.from_str(json.dumps(definition))
        theirs = [len(library.encode(w, add_special_tokens=False).ids) for w in words for _ in range(1500)]
        speller, rng = Speller(TOKENIZER, p), random.Random(3)
        ours = [len(speller.encode(w, rng.random)) for w in words for _ in range(1500)]
        error = math.sqrt((np.var(theirs) + np.var(ours)) / len(ours))
        # A merge that became impossible gives the library one more draw for those it dropped.
        assert abs(np.mean(theirs) - np.mean(ours)) < 5 * error + 0.02 * np.mean(ours)


def test_edges_of_characters() -> None:
    for whole in ("aé漢😀b", "😀", "abc", ""):
        data = whole.encode()
        for a in range(len(data) + 1):
            for z in range(a, len(data) + 1):
                head, middle, tail = cut_utf8(data[a:z])
                assert head + middle.encode() + tail == data[a:z]
                assert middle in whole and len(head) < 4 and len(tail) < 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "WordPiece"}, "WordPiece tokenizer"),
        ({"merges": []}, "no merges"),
        ({"end_of_word_suffix": "</w>"}, "where they are in a word"),
    ],
)
def test_other_tokenizers_are_refused(change: dict[str, Any], message: str) -> None:
    class Other:
        definition = {**TOKENIZER.definition, "model": {**TOKENIZER.definition["model"], **change}}
        id_to_bytes = TOKENIZER.id_to_bytes

    with pytest.raises(UnsupportedError, match=message):
        Speller(Other(), 0.1)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match="tokens are bytes"):
        Speller(byte.load(), 0.1)
    with pytest.raises(ConfigError, match="from 0 to 1"):
        text.Config(paths=(Path("a"),), bpe_dropout=1.1)


# Rows.


def source(folder: Path, p: float, *, seed: int = 1, held_out: float = 0.15) -> Any:
    for n in range(5):
        (folder / f"{n}.txt").write_text(WRITTEN[n * 400 : (n + 2) * 400] + "tail")
    config = text.Config(paths=(folder,), held_out=held_out, bpe_dropout=p)
    return text.build(config, TOKENIZER, length=48, batch_size=1, seed=seed)


def spelled(found: Any) -> list[bytes]:
    """The text of each part of a document in a batch's rows."""
    parts = []
    for row, segments in zip(found.tokens, found.segments):
        for s in range(1, segments.max() + 1):
            ids = [int(i) for i in row[segments == s] if i != TOKENIZER.eos_id]
            parts.append(b"".join(map(TOKENIZER.id_to_bytes, ids)))
    return parts


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_every_text_once_an_epoch(tmp_path: Path, p: float) -> None:
    plain, dropped = source(tmp_path, 0.0), source(tmp_path, p)
    every = b"".join(part for i in range(dropped.n_rows) for part in rows_in_order(dropped, i))
    assert every == b"".join(part for i in range(plain.n_rows) for part in rows_in_order(plain, i))
    assert dropped.n_rows > plain.n_rows and dropped.facts["bpe_dropout_growth"] > 1
    full = [float((dropped[i].segments > 0).mean()) for i in range(dropped.n_rows - 1)]
    assert sum(full) / len(full) > 0.7
    # Evaluation does not drop.
    for one, other in zip(plain.held_out, dropped.held_out, strict=True):
        assert (one.tokens == other.tokens).all()


def rows_in_order(found: Any, r: int) -> list[bytes]:
    from tinygpt.data.pack import empty

    batch = empty(1, found.length, found.pad_id)
    found.packed.fill(r, batch, 0, 0)
    return spelled(batch)


def test_targets_positions_and_documents(tmp_path: Path) -> None:
    found = source(tmp_path, 0.3, held_out=0.0)
    ends = 0
    for i in range(found.n_rows):
        batch = found[i]
        segments, tokens, targets = batch.segments[0], batch.tokens[0], batch.targets[0]
        inside = np.flatnonzero((segments[:-1] == segments[1:]) & (segments[:-1] > 0))
        assert (targets[inside] == tokens[inside + 1]).all()
        assert (batch.weights[0] > 0).sum() >= (segments > 0).sum() - 1
        ends += int(((targets == TOKENIZER.eos_id) & (batch.weights[0] > 0)).sum())
        for s in range(1, segments.max() + 1):
            here = segments == s
            assert (batch.positions[0][here] == np.arange(here.sum())).all()
            assert s == 1 or tokens[here][0] == TOKENIZER.eos_id
    assert ends == found.describe()["documents"]


def test_epochs_differ_and_resuming_does_not(tmp_path: Path) -> None:
    one, other = source(tmp_path, 0.2), source(tmp_path, 0.2)
    late = other.n_rows + 3
    resumed = other[late]
    rows = {tuple(spelled(one[i])): one[i].tokens for i in range(one.n_rows)}
    again = {tuple(spelled(one[i])): one[i].tokens for i in range(one.n_rows, 2 * one.n_rows)}
    assert rows.keys() == again.keys()
    assert sum((rows[key] != again[key]).any() for key in rows) > len(rows) // 2
    assert (one[late].tokens == resumed.tokens).all()
    assert (source(tmp_path, 0.2, seed=2)[0].tokens != one[0].tokens).any()


def test_a_loaded_tokenizer_drops_alike(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "tok")
    loaded = hf.load(tmp_path / "tok")
    a, b = Speller(TOKENIZER, 0.3), bpe_dropout.Speller(loaded, 0.3)
    assert a.encode(WRITTEN, random.Random(5).random) == b.encode(WRITTEN, random.Random(5).random)
