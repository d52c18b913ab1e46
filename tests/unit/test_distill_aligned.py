"""A teacher with another tokenizer: where both have read the same, and what is compared there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.core.family import Family
from tinygpt.data import bpe
from tinygpt.data.batch import Batch
from tinygpt.data.pack import empty
from tinygpt.data.tokenizer import byte, hf
from tinygpt.distill import distillation
from tinygpt.distill.aligned import Aligned, AlignedTeacher, Vocabularies
from tinygpt.distill.divergence._events import log_softmax
from tinygpt.distill.reread import Reader, Reading, Reread, matched
from tinygpt.distill.signal import Dense
from tinygpt.train.optim import adamw
from tinygpt.train.update import Gradient, arrays

LOSSES = Family("tinygpt.distill.divergence", verb="losses")
BYTES = byte.load()
WORDS = bpe.train_bpe(["line of text and more lines of text " * 9], bpe.Config(vocab_size=300))


def laid(tokenizer: Any, rows: list[list[list[int]]], length: int) -> Batch:
    """Rows of several texts each, all learned."""
    batch = empty(len(rows), length, tokenizer.pad_id)
    for b, texts in enumerate(rows):
        at = 0
        for segment, ids in enumerate(texts, 1):
            n = len(ids) - 1
            here = slice(at, at + n)
            batch.tokens[b, here], batch.targets[b, here], batch.weights[b, here] = ids[:-1], ids[1:], 1
            batch.positions[b, here], batch.segments[b, here] = np.arange(n), segment
            at += n
    return batch


def texts(tokenizer: Any) -> Batch:
    one, two, three = (tokenizer.encode(text) for text in ("line of é text", "of lines", "and more text"))
    eos = tokenizer.eos_id
    return laid(tokenizer, [[[eos, *one, eos], [eos, *two, eos]], [[eos, *three, eos]]], 32)


def drawn(seed: int, *shape: int) -> mx.array:
    return mx.array(np.random.default_rng(seed).normal(0, 2, shape).astype(np.float32))


def test_a_student_of_words_meets_bytes_at_every_token() -> None:
    reader = Reader(WORDS, BYTES, longest=100)
    ids, at = reader.text([WORDS.eos_id, *WORDS.encode("line of é text")])
    assert ids == [BYTES.eos_id, *"line of é text".encode()]
    sizes = [len(WORDS.id_to_bytes(id)) for id in WORDS.encode("line of é text")]
    assert sizes == [4, 3, 1, 2, 5] or sum(sizes) == 15
    assert at == [0, *np.cumsum(sizes).tolist()]


def test_a_student_of_bytes_meets_words_where_they_end() -> None:
    ids, at = Reader(BYTES, WORDS, longest=100).text(BYTES.encode("line of"))
    words = [WORDS.id_to_bytes(id) for id in ids]
    ends = np.cumsum([len(word) for word in words]).tolist()
    assert b"".join(words) == b"line of" and len(words) < 7
    assert [place >= 0 for place in at] == [end in ends for end in range(1, 8)]
    assert [place for place in at if place >= 0] == list(range(len(words)))


def test_control_tokens_keep_their_meaning_and_texts_their_ends() -> None:
    text = "<|im_start|>user\nline<|im_end|>"
    ids, at = Reader(WORDS, BYTES, longest=100).text(WORDS.encode(text, special=True))
    assert ids == BYTES.encode(text, special=True)
    assert at[0] == 0 and at[-1] == len(ids) - 1


def test_broken_characters() -> None:
    """A row may be cut inside a character."""
    whole = BYTES.encode("é of")
    ids, at = Reader(BYTES, WORDS, longest=100).text(whole[1:])
    assert b"".join(map(WORDS.id_to_bytes, ids)) == bytes(whole[1:]) and at[0] == 0 and at[-1] == len(ids) - 1


@pytest.mark.parametrize("longest", [6, 8, 15, 29, 30, 100])
def test_long_texts_are_read_in_windows(longest: int) -> None:
    """Every place is where the teacher's token ends, with at least half a window before it."""
    text = "line of text and more of lines"
    ids = WORDS.encode(text)
    found = Reader(WORDS, BYTES, longest=longest)(laid(WORDS, [[[*ids, WORDS.eos_id]]], len(ids)))
    read, at = found.taught_tokens[0], found.taught_at[0]
    end = 0
    for t, id in enumerate(ids):
        end += len(WORDS.id_to_bytes(id))
        reach = int(found.taught_positions[0, at[t]]) + 1
        assert reach == end if end <= longest else longest - longest // 2 <= reach <= longest
        assert bytes(read[at[t] + 1 - reach : at[t] + 1].tolist()) == text.encode()[end - reach : end]
        to = found.taught_to[0, t]
        same = found.taught_segments[0, at[min(t + 1, len(ids) - 1)]] == found.taught_segments[0, at[t]]
        assert to == (t + 1 if t + 1 < len(ids) and same else t)
    assert found.taught_known.all() and found.taught_positions.max() < longest


def changed(tmp_path: Path, normalizer: dict[str, Any]) -> Any:
    import json

    WORDS.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "normalizer": normalizer}))
    return hf.load(tmp_path)


def test_what_a_normaliser_changes_is_passed_over_and_what_changes_all_is_refused(tmp_path: Path) -> None:
    composed = changed(tmp_path / "nfc", {"type": "NFC"})
    text = "line e\u0301 of"
    ids, at = Reader(BYTES, composed, longest=100).text(BYTES.encode(text))
    assert b"".join(map(composed.id_to_bytes, ids)).decode() == "line é of"
    inside = len(b"line ")
    assert at[inside - 1] >= 0 or at[inside - 2] >= 0
    assert at[inside : inside + 2] == [-1, -1] and at[-1] == len(ids) - 1
    lower = changed(tmp_path / "lower", {"type": "Lowercase"})
    for own, other, who in ((BYTES, lower, "teacher"), (lower, BYTES, "student")):
        with pytest.raises(ConfigError, match=f"the {who}'s tokenizer changes plain text"):
            Reader(own, other, longest=100)


def sentence_piece(tmp_path: Path) -> Any:
    """A tokenizer that shows spaces as letters, puts one before the first word, and falls back to bytes."""
    import json

    words = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{b:02X}>" for b in range(256)),
        *"abcdefghijklmnopqrstuvwxyz\u2581",
    ]
    merges = [("\u2581", "l"), ("i", "n"), ("in", "e"), ("\u2581l", "ine")]
    vocab = {name: id for id, name in enumerate([*words, *(a + b for a, b in merges)])}
    added = [
        {"id": i, "content": name, "special": True, "normalized": False, "single_word": False,
         "lstrip": False, "rstrip": False}
        for i, name in enumerate(words[:3])
    ]  # fmt: skip
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    definition = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {
            "type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, replace]},
        "pre_tokenizer": None, "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "vocab": vocab, "merges": [list(pair) for pair in merges],
                  "unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True, "dropout": None},
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "bos_token": "<s>"}))
    return hf.load(tmp_path)


def test_sentence_piece_reads_and_is_read(tmp_path: Path) -> None:
    """Its texts begin with its own token, and a space that it adds itself is not in the way."""
    other = sentence_piece(tmp_path)
    ids, at = Reader(BYTES, other, longest=100).text([BYTES.eos_id, *BYTES.encode("a line é")])
    assert ids[0] == other.bos_id and at[0] == 0
    spelled = b"".join(map(other.id_to_bytes, ids[1:]))
    assert spelled.lstrip() == "a line é".encode() and at[1] >= 0 and at[-1] == len(ids) - 1
    assert at[len("a line")] >= 0 and at[len("a lin")] == -1
    ids, at = Reader(other, BYTES, longest=100).text([other.bos_id, *other.encode("a line")])
    assert ids[0] == BYTES.eos_id and bytes(ids[1:]) == b" a line" and min(at) == 0
    pairs = dict(matched(BYTES, other))
    assert other.id_to_bytes(pairs[ord("a")]) == b"a" and pairs[ord("a")] != 3 + ord("a")  # not <0x61>
    assert pairs[BYTES.eos_id] == other.eos_id


def test_a_batch_is_read_row_by_row() -> None:
    batch = texts(WORDS)
    found = Reader(WORDS, BYTES, longest=100)(batch)
    first = "line of é text".encode()
    assert found.taught_tokens[0, : len(first) + 1].tolist() == [BYTES.eos_id, *first]
    assert found.taught_segments[0].max() == 2 and found.taught_tokens.shape[1] % 8 == 0
    assert found.taught_positions[0, len(first) + 1] == 0
    assert (found.taught_known == (batch.segments > 0)).all()  # bytes know every end
    last = int((batch.segments[0] == 1).sum()) - 1
    assert found.taught_at[0, last] == len(first) and found.taught_to[0, last] == last
    part = found.rows(1, 2)
    assert found.taught_to[0, 0] == 1 and isinstance(part, Reread) and part.taught_at.shape == (1, 32)


def test_the_share_of_a_source_is_that_of_its_learned_places() -> None:
    batch = texts(BYTES)
    reading = Reading([batch, batch], Reader(BYTES, WORDS, longest=100))
    known, real = reading[0].taught_known, batch.segments > 0
    assert reading.share(2) == pytest.approx(known[real].mean()) and 0.2 < reading.share(1) < 0.9
    assert len(reading) == 2 and isinstance(reading.widest(1), Reread)


def test_equal_tokens_are_matched_one_by_one() -> None:
    assert matched(WORDS, WORDS) == [(id, id) for id in range(WORDS.vocab_size)]
    pairs = dict(matched(WORDS, BYTES))
    assert len(pairs) == BYTES.vocab_size and pairs[WORDS.eos_id] == BYTES.eos_id
    assert all(WORDS.id_to_bytes(a) == BYTES.id_to_bytes(b) for a, b in pairs.items())


@pytest.mark.parametrize("name", LOSSES.names())
def test_an_equal_tokenizer_reduces_to_the_plain_divergence(name: str) -> None:
    batch = arrays(Reader(WORDS, WORDS, longest=100)(texts(WORDS)))
    n = WORDS.vocab_size
    student, theirs = drawn(0, 2, 32, n), drawn(1, 2, 32, n)
    width = batch["taught_tokens"].shape[1]
    words = Vocabularies(WORDS, WORDS, n_own=n, n_other=n)
    signal, plain = Aligned(theirs[:, :width], batch, words), Dense(theirs)
    assert (np.array(signal.places(batch["weights"])) == np.array(batch["weights"])).all()
    losses, config = LOSSES.load(name), LOSSES.config(name)
    options = config() if config is not None else None
    apart = getattr(losses, "APART", False)
    one, two = (
        np.array(losses.losses(*(s.apart if apart else s.events)(student, 1.5), options))
        for s in (signal, plain)
    )
    real = np.array(batch["weights"]) > 0
    np.testing.assert_allclose(one[real], two[real], rtol=1e-5, atol=1e-5)


def folded(side: dict[int, float], tokenizer: Any, ours: dict[int, int]) -> dict[bytes, float]:
    """By bytes: what a token has that both know, with all others that begin as it does."""
    control = set(tokenizer.special.values())
    known = {tokenizer.id_to_bytes(id) for id in ours}
    found: dict[bytes, float] = {}
    for id, value in side.items():
        spelled = tokenizer.id_to_bytes(id)
        if id not in control:
            spelled = next(spelled[:n] for n in range(len(spelled), 0, -1) if spelled[:n] in known)
        found[spelled] = found.get(spelled, 0) + value
    return found


def reference(own: Any, other: Any, ids: list[int], z: np.ndarray, theirs: np.ndarray) -> dict[int, float]:
    """Forward KL at each place of one text where both have read the same, in float64 and by bytes."""

    def softmax(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    p, q = softmax(z.astype(np.float64)), softmax(theirs.astype(np.float64))
    read, at = Reader(own, other, longest=1000).text(ids[:-1])
    meet = [t for t, place in enumerate(at) if place >= 0]
    pairs = dict(matched(own, other))
    back = {b: a for a, b in pairs.items()}
    found: dict[int, float] = {}
    for t, to in zip(meet, [*meet[1:], None], strict=True):
        s = {id: p[t, id] for id in range(own.vocab_size)}
        u = {id: q[at[t], id] for id in range(other.vocab_size)}
        text_s = text_u = 0.0
        if to is not None and (to - t > 1 or at[to] - at[t] > 1):
            mine, yours = ids[t + 1 : to + 1], read[at[t] + 1 : at[to] + 1]
            text_s = float(np.prod([p[t + i, id] for i, id in enumerate(mine)]))
            text_u = float(np.prod([q[at[t] + i, id] for i, id in enumerate(yours)]))
            s[mine[0]] -= text_s
            u[yours[0]] -= text_u
            if len(mine) == 1 and mine[0] in pairs:  # the token is the text
                text_u += u.pop(pairs[mine[0]])
                del s[mine[0]]
            if len(yours) == 1 and yours[0] in back:
                text_s += s.pop(back[yours[0]])
                del u[yours[0]]
        one, two = (folded(side, t, ours) for side, t, ours in ((s, own, pairs), (u, other, back)))
        keys = sorted(one.keys() | two.keys())
        x, y = (
            np.array([side.get(k, 0) for k in keys] + [text, 0])
            for side, text in ((one, text_s), (two, text_u))
        )
        assert x.sum() == pytest.approx(1) and y.sum() == pytest.approx(1)
        floor = np.full(len(x), 1e-9)
        floor[-2] = 0 if text_s else 1e-9  # a text may be as unlikely as it is
        x, y = np.maximum(x, floor), np.maximum(y, floor)
        found[t] = float((y * (np.log(y) - np.log(x))).sum())
    return found


MORE = bpe.train_bpe(["text lin eofmo re andline s of of " * 9], bpe.Config(vocab_size=290))


@pytest.mark.parametrize(("own", "other"), [(WORDS, BYTES), (BYTES, WORDS), (WORDS, MORE)])
def test_events_are_shared_tokens_the_text_that_follows_and_the_rest(own: Any, other: Any) -> None:
    ids = [own.eos_id, *own.encode("lines of text and more of it"), own.eos_id]
    batch = arrays(Reader(own, other, longest=1000)(laid(own, [[ids]], len(ids) - 1)))
    z = drawn(0, 1, len(ids) - 1, own.vocab_size)
    theirs = drawn(1, 1, batch["taught_tokens"].shape[1], other.vocab_size)
    words = Vocabularies(own, other, n_own=own.vocab_size, n_other=other.vocab_size)
    signal = Aligned(theirs, batch, words)
    student, teacher = signal.events(z, 1.0)
    for side in (student, teacher):
        np.testing.assert_allclose(np.exp(np.array(side, np.float64)).sum(-1), 1, atol=1e-5)
    found = np.array(LOSSES.load("forward_kl").losses(student, teacher, None))[0]
    wanted = reference(own, other, ids, np.array(z)[0], np.array(theirs)[0])
    known = np.array(signal.places(batch["weights"]))[0]
    assert sorted(wanted) == np.flatnonzero(known).tolist()
    for t, value in wanted.items():
        assert found[t] == pytest.approx(value, rel=2e-3, abs=2e-5), t

    def total(z: mx.array) -> mx.array:
        pair = signal.events(z, 1.0)
        return (LOSSES.load("forward_kl").losses(*pair, None) * signal.places(batch["weights"])).sum()

    gradient = np.array(mx.grad(total)(z), np.float64)
    way = np.random.default_rng(2).normal(0, 1, z.shape)
    ends = [
        sum(reference(own, other, ids, np.array(z, np.float64)[0] + h * way[0], np.array(theirs)[0]).values())
        for h in (1e-4, -1e-4)
    ]
    assert (gradient * way).sum() == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-3)


def test_uld_is_the_papers_on_whole_distributions() -> None:
    batch = arrays(Reader(WORDS, BYTES, longest=100)(texts(WORDS)))
    z, theirs = drawn(0, 2, 32, 300), drawn(1, 2, batch["taught_tokens"].shape[1], 280)
    words = Vocabularies(WORDS, BYTES, n_own=300, n_other=280)  # both have padded rows
    found = np.array(LOSSES.load("uld").losses(*Aligned(theirs, batch, words).apart(z, 2.0), None))
    at = np.array(batch["taught_at"])
    for b, t in ((0, 0), (0, 3), (1, 2)):
        p = np.exp(np.array(log_softmax(z[b, t, : WORDS.vocab_size], 2.0)))
        q = np.exp(np.array(log_softmax(theirs[b, at[b, t], : BYTES.vocab_size], 2.0)))
        q = np.concatenate([np.sort(q)[::-1], np.zeros(len(p) - len(q))])
        assert found[b, t] == pytest.approx(np.abs(np.sort(p)[::-1] - q).sum(), rel=1e-4)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.wide) for n in LOSSES.names()])
@pytest.mark.parametrize("own", ["words", "bytes"])
def test_the_student_comes_closer(name: str, own: str) -> None:
    mine, other = (WORDS, BYTES) if own == "words" else (BYTES, WORDS)
    batch = Reader(mine, other, longest=100)(texts(mine))
    student = nano.model(vocab_size=mine.vocab_size)
    teacher = nano.model(seed=1, vocab_size=other.vocab_size)
    words = Vocabularies(mine, other, n_own=mine.vocab_size, n_other=other.vocab_size)
    config = LOSSES.config(name)
    found = distillation.build(
        student, AlignedTeacher(teacher, words), LOSSES.load(name), distillation.Config(alpha=1.0),
        config() if config is not None else None,
    )  # fmt: skip
    update = Gradient(found, adamw.build(adamw.Config(weight_decay=0.0)), lambda _: 1e-2, compiled=True)
    figures = [update.step(batch, step)["divergence"] for step in range(1, 31)]
    assert np.isfinite(figures).all() and figures[-1] < 0.8 * figures[0], figures
