"""Every source: same seed same order in any process, each row once an epoch, exact targets, honest counts."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygpt.core.config import from_dict
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events, Note, Progress
from tinygpt.core.family import Family
from tinygpt.data import corpus as corpus_files
from tinygpt.data import encode, rows
from tinygpt.data.source import chat, text
from tinygpt.data.tokenizer import byte

SOURCES = Family("tinygpt.data.source")
TOKENIZER = byte.load()


def corpus(folder: Path) -> dict[str, dict[str, Any]]:
    """Something to read for every source of the family: a new source needs a line here."""
    folder.mkdir(exist_ok=True)
    for n in range(9):
        (folder / f"{n}.txt").write_text(f"Document {n}: " + "lorem ipsum é " * (n + 1))
    answers = [
        {"question": f"What is {n}+{n}?", "answer": f"It is {2 * n}. " + "So it is. " * (n % 5)}
        for n in range(40)
    ]
    rows.write(folder / "rows.jsonl", answers)
    return {
        "text": {"paths": [str(folder)], "held_out": 0.2},
        "chat": {"paths": [str(folder / "rows.jsonl")], "held_out": 0.2},
    }


def build(
    name: str, folder: Path, *, seed: int = 3, batch_size: int = 4, length: int = 96, **more: Any
) -> Any:
    module = SOURCES.load(name)
    config = from_dict(module.Config, corpus(folder)[name] | more)
    return module.build(config, TOKENIZER, length=length, batch_size=batch_size, seed=seed)


def digest(source: Any, n: int) -> str:
    parts = [
        getattr(source[i], a).tobytes()
        for i in range(n)
        for a in ("tokens", "targets", "weights", "segments")
    ]
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.fixture(params=SOURCES.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.wide
def test_the_order_is_the_seeds_in_a_fresh_process(name: str, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from test_source import *\n"
        "print(digest(build(sys.argv[1], Path(sys.argv[2])), 20))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, name, str(tmp_path)],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    source = build(name, tmp_path)
    assert out.stdout.strip() == digest(source, 20) != digest(build(name, tmp_path, seed=4), 20)
    # A batch depends on its number alone, whatever was read before.
    assert (build(name, tmp_path)[17].tokens == source[17].tokens).all()


def test_every_row_is_read_once_an_epoch(name: str, tmp_path: Path) -> None:
    source = build(name, tmp_path, batch_size=1)
    epochs = [[source[e * len(source) + i].tokens.tobytes() for i in range(len(source))] for e in range(3)]
    ordered = build(name, tmp_path, batch_size=1)
    ordered.seed = None
    every = sorted(batch.tokens.tobytes() for batch in ordered)
    assert len(every) == source.n_rows > 3
    assert all(sorted(epoch) == every for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert source.n_epochs_at(2 * len(source)) == 2


def test_the_batch_size_does_not_change_the_order(name: str, tmp_path: Path) -> None:
    one, five = build(name, tmp_path, batch_size=1), build(name, tmp_path, batch_size=5)
    single = np.concatenate([one[i].targets for i in range(20)])
    assert (single == np.concatenate([five[i].targets for i in range(4)])).all()


def test_evaluation_reads_the_held_out_rows_once(name: str, tmp_path: Path) -> None:
    source = build(name, tmp_path)
    batches = list(source.held_out)
    assert len(batches) == len(source.held_out) and all(b.shape == (4, 96) for b in batches)
    n_tokens = sum(int((b.segments > 0).sum()) for b in batches)
    assert n_tokens == source.held_out.describe()["tokens"] > 0
    assert source.describe()["held_out"] == source.held_out.describe()
    json.dumps(source.describe())
    with pytest.raises(IndexError):
        source.held_out[len(batches)]
    assert build(name, tmp_path, held_out=0.0).held_out is None


def test_wrong_settings_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="held_out"):
        build(name, tmp_path, held_out=1.0)
    with pytest.raises(ConfigError, match="batch size"):
        build(name, tmp_path, batch_size=0)
    with pytest.raises(ConfigError, match="seed must not be negative"):
        build(name, tmp_path, seed=-1)
    with pytest.raises(DataError, match="there is no file"):
        build(name, tmp_path, paths=[str(tmp_path / "none")])


def test_shares_that_cannot_be_held_out(tmp_path: Path, memory: Any) -> None:
    """Equal rows stay together; the rest is held out as asked, and never more than twice that."""
    one, other = ({"question": f"q{i}", "answer": f"a{i}"} for i in range(2))
    many = [{"question": f"many {i}", "answer": f"{i}"} for i in range(20)]
    path = tmp_path / "a.jsonl"

    def split(data: list[Any], held_out: float, length: int = 64) -> tuple[int, int]:
        rows.write(path, data)
        config = chat.Config(paths=(path,), held_out=held_out)
        source = chat.build(config, TOKENIZER, length=length, batch_size=1, events=Events(memory))
        assert source.held_out is not None
        return source.describe()["documents"], source.held_out.describe()["documents"]

    assert split(many, 0.05) == (19, 1) and split(many, 0.99) == (1, 19)
    assert not [note for note in memory.of(Note) if note.level == "warning"]
    assert split([one] * 30 + many, 0.05) == (48, 2)
    assert "29 of 50 rows are copies of others" in memory.of(Note)[-1].text
    assert split([one] * 40 + [other], 0.05) == (40, 1)
    assert split([one] * 40 + [other] * 6, 0.1) == (40, 6), "5 were asked for"
    with pytest.raises(DataError, match="6 of 120 rows should be held out, but each is there 60 times"):
        split([one, other] * 60, 0.05)
    with pytest.raises(DataError, match="all 40 rows are equal") as refusal:
        split([one] * 40, 0.05)
    assert "--held-out 0" in refusal.value.hint
    with pytest.raises(DataError, match="all 20 answers are longer than a row of 8 tokens"):
        split([row | {"answer": "long " * 9} for row in many], 0.05, length=8)


# Text


def read_back(source: Any) -> bytes:
    """All targets of an evaluation source in order: the text, if nothing was lost."""
    ids = [int(t) for b in source for t in b.targets[b.weights > 0]]
    return bytes(i for i in ids if i < 256)


def test_text_trains_on_every_byte_and_the_end_of_each_document(tmp_path: Path) -> None:
    source = build("text", tmp_path)
    source.seed = None
    texts = [(tmp_path / f"{n}.txt").read_bytes() for n in range(9)]
    n_held = len(source.held_out.files)
    assert [f.name for f in source.held_out.files] == [f"{n}.txt" for n in range(9)][-n_held:] and n_held >= 1
    assert read_back(source) == b"".join(texts[:-n_held])
    assert read_back(source.held_out) == b"".join(texts[-n_held:])
    ends = sum(int((b.targets[b.weights > 0] == TOKENIZER.eos_id).sum()) for b in source)
    assert ends == source.describe()["documents"] == 9 - n_held
    assert source.held_out.describe()["bytes"] == sum(map(len, texts[-n_held:])) <= 0.2 * sum(map(len, texts))


def test_text_holds_out_the_tail_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0123456789" * 100)
    source = build("text", tmp_path / "c", paths=[str(tmp_path / "a.txt")], held_out=0.1)
    source.seed = None
    assert source.describe()["bytes"] == 900 and source.held_out.describe()["bytes"] == 100
    assert read_back(source) == b"0123456789" * 90
    # The first held-out byte is what the model continues from.
    assert read_back(source.held_out) == (b"0123456789" * 10)[1:]


def test_text_counts_what_it_leaves_out(tmp_path: Path, memory: Any) -> None:
    corpus(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"ok\nb\xe9d")
    (tmp_path / "b.txt").write_text("")
    (tmp_path / "skip").mkdir()
    (tmp_path / "skip" / "c.txt").write_text("not read")
    config = text.Config(paths=(tmp_path,), exclude=("sk*",), cache=False)
    source = text.build(config, TOKENIZER, length=64, batch_size=2, events=Events(memory))
    facts = source.describe()
    assert (facts["empty"], facts["bad_files"], facts["bad_rows"]) == (1, 1, 0)
    assert "a.txt is not UTF-8: byte 4, on line 2" in memory.of(Note)[0].text
    assert memory.of(Progress)[-1].done == memory.of(Progress)[-1].total > 0
    assert not any("skip" in f.parts for f in source.files)
    one, folder = tmp_path / "a.txt", tmp_path / "more"
    folder.mkdir()
    (folder / "more.txt").write_bytes(b"b\xe9d")
    (folder / "good.txt").write_text("good " * 99)
    read = text.build(text.Config(paths=(folder, folder / "good.txt")), TOKENIZER, length=64, batch_size=2)
    assert read.describe()["bad_files"] == 1, "what is named by hand can be read"
    for refused in (
        text.Config(paths=(tmp_path,), strict=True), text.Config(paths=(one,)),
        text.Config(paths=(folder, folder / "good.txt", one)), text.Config(paths=(one, folder)),
    ):  # fmt: skip
        with pytest.raises(DataError, match="not UTF-8"):
            text.build(refused, TOKENIZER, length=64, batch_size=2)


def test_text_counts_files_that_cannot_be_read(
    tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder may hold some; one named by hand is refused, in the words of reading."""
    corpus(tmp_path)
    (tmp_path / "a.txt").write_text("secret")
    rows.write(tmp_path / "b.jsonl", [{"text": "secret"}])
    whole = io.open

    def refuse(file: Any, *args: Any, **more: Any) -> Any:
        if Path(str(file)).name in ("a.txt", "b.jsonl"):
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return whole(file, *args, **more)

    monkeypatch.setattr(io, "open", refuse)
    config = text.Config(paths=(tmp_path,), glob="[0-9ab]*")
    source = text.build(config, TOKENIZER, length=64, batch_size=2, events=Events(memory))
    assert source.describe()["bad_files"] == 2 and source.describe()["documents"] > 7
    (note,) = memory.of(Note)
    assert "2 of 11 files" in note.text and "a.txt: Permission denied" in note.text
    for name in ("a.txt", "b.jsonl"):
        with pytest.raises(DataError, match=f"cannot read .*{name}: Permission denied"):
            text.build(text.Config(paths=(tmp_path / name,)), TOKENIZER, length=64, batch_size=2)


@pytest.mark.parametrize("glob", ["/etc/*", "../*", "a/../../*", "**x"])
def test_text_globs_stay_in_the_folder(glob: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    corpus(tmp_path)
    with pytest.raises(ConfigError, match="leads out of the folder|is no glob"):
        corpus_files.find(text.Config(paths=(tmp_path / "in",), glob=glob))


def test_text_paths_that_the_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read .*xxx: File name too long"):
        corpus_files.find(text.Config(paths=(tmp_path / ("x" * 5000),)))


def test_text_rows_of_jsonl_are_documents(tmp_path: Path) -> None:
    rows.write(tmp_path / "t.jsonl", [{"text": "abc" * 40}, {"text": ""}, {"no": 1}, {"text": "def" * 40}])
    source = build("text", tmp_path / "c", paths=[str(tmp_path / "t.jsonl")], held_out=0.0)
    facts = source.describe()
    assert (facts["documents"], facts["empty"], facts["bad_rows"], facts["bytes"]) == (2, 1, 1, 240)


def test_text_that_is_too_short_or_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tokens to train on, but one row needs 99999"):
        build("text", tmp_path, length=99_999)
    with pytest.raises(DataError, match="matches '\\*.py'"):
        build("text", tmp_path, glob="*.py")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match=r"the corpus .*empty\.txt has no text"):
        build("text", tmp_path / "c", paths=[str(tmp_path / "empty.txt")])
    (tmp_path / "long.txt").write_text("long " * 300)
    mixed = [f"x={tmp_path / 'empty.txt'}:1", f"y={tmp_path / 'long.txt'}:1"]
    with pytest.raises(DataError, match=r"the corpus .*empty\.txt has no text"):
        build("text", tmp_path / "c", paths=mixed)
    (tmp_path / "empty.txt").write_text("short")
    with pytest.raises(DataError, match=r"the corpus .*empty\.txt has \d+ tokens to train on, but"):
        build("text", tmp_path / "c", paths=mixed)


def test_a_field_that_no_row_has_is_named_with_its_flag(tmp_path: Path) -> None:
    rows.write(tmp_path / "t.jsonl", [{"content": "abc" * 40}] * 9)
    with pytest.raises(DataError, match="no 'nope' in the row; its keys: content") as refusal:
        build("text", tmp_path / "c", paths=[str(tmp_path / "t.jsonl")], field="nope")
    assert "--field" in refusal.value.hint and "iconv" not in refusal.value.hint


def test_text_in_pieces_encodes_as_one(tmp_path: Path) -> None:
    from tinygpt.data.bpe import Config, train_bpe

    written = Path(text.__file__).read_text() + "a\n\n  b\n c \n\nd\r\ne\n(f)\n(g)\n" * 30
    for pattern in ("gpt2", "word", "copy"):
        tokenizer = train_bpe([written], Config(vocab_size=400, pattern=pattern))  # type: ignore[arg-type]
        pieces = list(encode.pieces(written, 50))
        assert len(pieces) > 20 and "".join(pieces) == written
        assert [i for ids in tokenizer.encode_batch(pieces) for i in ids] == tokenizer.encode(written)


# Chat


def learned(source: Any) -> set[str]:
    """The answers that count, one a segment."""
    found = set()
    for batch in source:
        for b in range(batch.shape[0]):
            for s in range(1, batch.segments[b].max() + 1):
                here = (batch.segments[b] == s) & (batch.weights[b] > 0)
                found.add(TOKENIZER.decode(batch.targets[b, here].tolist()))
    return found


def test_chat_learns_exactly_the_answers(tmp_path: Path) -> None:
    source = build("chat", tmp_path)
    source.seed = None
    answers = {json.loads(line)["answer"] + "<|im_end|>" for line in (tmp_path / "rows.jsonl").open()}
    assert learned(source) | learned(source.held_out) == answers
    assert not learned(source) & learned(source.held_out)
    assert len(learned(source.held_out)) == 8
    assert source.describe()["learned_tokens"] == sum(b.n_targets for b in source)
    whole = build("chat", tmp_path, learn="all")
    assert whole.describe()["learned_tokens"] == whole.describe()["tokens"]


def test_chat_holds_out_the_same_rows_whatever_their_order(tmp_path: Path) -> None:
    first = learned(build("chat", tmp_path).held_out)
    path = tmp_path / "twice.jsonl"
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    path.write_text("\n".join(lines[::-1] + lines))
    source = build("chat", tmp_path, seed=9, paths=[str(path)])
    assert learned(source.held_out) == first
    source.seed = None
    assert not learned(source) & first


def test_chat_cuts_the_prompt_and_never_the_answer(tmp_path: Path, memory: Any) -> None:
    long, short = "p" * 200, "a" * 50
    turns = [("user", "q"), ("assistant", "z" * 60), ("user", "r"), ("assistant", short)]
    data = [
        {"prompt": long, "completion": short},
        {"prompt": "q", "completion": "b" * 200},
        {"prompt": "q", "completion": "fits"},
        {"messages": [{"role": r, "content": c} for r, c in turns]},
    ]
    rows.write(tmp_path / "a.jsonl", data)
    config = chat.Config(paths=(tmp_path / "a.jsonl",), held_out=0.0)
    source = chat.build(config, TOKENIZER, length=100, batch_size=2, events=Events(memory))
    assert {k: source.describe()[k] for k in ("documents", "truncated", "dropped")} == {
        "documents": 3, "truncated": 2, "dropped": 1,
    }  # fmt: skip
    source.seed = None
    # The first answer of the long talk lost its beginning, so it is context only.
    assert learned(source) == {short + "<|im_end|>", "fits<|im_end|>"}
    assert any("answers are longer" in note.text for note in memory.of(Note))
    strict = chat.Config(paths=(tmp_path / "a.jsonl",), strict=True)
    with pytest.raises(DataError, match="1 answers are longer than a row of 100"):
        chat.build(strict, TOKENIZER, length=100, batch_size=2)


def test_chat_notes_bad_rows(tmp_path: Path, memory: Any) -> None:
    rows.write(tmp_path / "a.jsonl", [{"question": "q", "answer": "a"}, {"question": "q"}])
    config = chat.Config(paths=(tmp_path / "a.jsonl",))
    source = chat.build(config, TOKENIZER, length=64, batch_size=1, events=Events(memory))
    assert source.describe()["bad_rows"] == 1 and source.held_out is None
    assert "line 2: no known row shape" in memory.of(Note)[0].text
    with pytest.raises(ConfigError, match="unknown template 'chatlm'"):
        from_dict(chat.Config, {"paths": ["x"], "template": "chatlm"})
