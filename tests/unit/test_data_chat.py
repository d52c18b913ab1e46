"""Conversations: ways to lay them into rows, which answers are learned, files to evaluate on, weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tinygpt.core.config import from_dict
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events, Note
from tinygpt.data import rows
from tinygpt.data.source import chat, text
from tinygpt.data.tokenizer import byte

TOKENIZER = byte.load()

PACKS = ("none", "sequential", "best_fit", "bucket")


def answers(folder: Path) -> Path:
    """40 rows of answers of five lengths."""
    data = [
        {"question": f"What is {n}+{n}?", "answer": f"It is {2 * n}. " + "So it is. " * (n % 5)}
        for n in range(40)
    ]
    rows.write(folder / "rows.jsonl", data)
    return folder / "rows.jsonl"


def build(folder: Path, *, length: int = 96, batch_size: int = 4, **more: Any) -> Any:
    config = from_dict(chat.Config, {"paths": [str(answers(folder))], "held_out": 0.2} | more)
    return chat.build(config, TOKENIZER, length=length, batch_size=batch_size, seed=3)


def learned(source: Any) -> set[str]:
    """The answers that count, one a segment."""
    found = set()
    for batch in source:
        for b in range(batch.shape[0]):
            for s in range(1, batch.segments[b].max() + 1):
                here = (batch.segments[b] == s) & (batch.weights[b] > 0)
                found.add(TOKENIZER.decode(batch.targets[b, here].tolist()))
    return found


@pytest.mark.parametrize("pack", PACKS)
def test_chat_laid_in_any_way_is_read_once_an_epoch(pack: str, tmp_path: Path) -> None:
    # An epoch of buckets is whole batches; the others' go over its border, but for batches of one row.
    source = build(tmp_path, pack=pack, held_out=0.2, batch_size=4 if pack == "bucket" else 1)
    held = learned(source.held_out)
    answers = [learned([source[e * len(source) + i] for i in range(len(source))]) for e in range(3)]
    ordered = build(tmp_path, pack=pack, held_out=0.2)
    ordered.seed = None
    assert len(answers[0]) == 32 and answers[0] == answers[1] == answers[2] == learned(ordered)
    assert held == learned(build(tmp_path, held_out=0.2).held_out), "what is held out does not depend on it"
    facts = source.describe()
    assert facts["packing"] == pack and facts["documents"] == 32
    assert facts["rows"] == source.n_rows and 0 < facts["packing_efficiency"] <= 1
    assert source.n_batches(2) in (2 * len(source), 2 * len(source) - 1)
    json.dumps(facts)
    assert source.widest(5).shape[1] == max(source[i].shape[1] for i in range(len(source)))


def test_chat_learns_the_last_answer_or_those_with_a_weight(tmp_path: Path, memory: Any) -> None:
    talk = [{"role": r, "content": c} for r, c in (("user", "q"), ("assistant", "one"), ("user", "r"))]
    whole = [*talk, {"role": "assistant", "content": "two"}]
    first = [{**m, "weight": 0} if m["content"] == "two" else m for m in whole]
    rows.write(tmp_path / "a.jsonl", [{"messages": whole}])
    rows.write(tmp_path / "b.jsonl", [{"messages": first}])
    rows.write(tmp_path / "c.jsonl", [{"prompt": talk, "completion": whole[3:]}])

    def found(name: str, learn: str) -> set[str]:
        source = build(tmp_path, paths=[str(tmp_path / name)], learn=learn, held_out=0.0)
        source.seed = None
        return learned(source)

    assert found("a.jsonl", "answers") == {"one<|im_end|>two<|im_end|>"}
    assert found("a.jsonl", "last") == found("c.jsonl", "answers") == {"two<|im_end|>"}
    assert found("b.jsonl", "answers") == found("b.jsonl", "last") == {"one<|im_end|>"}
    # A row that the template refuses is left out, and counted.
    tool = {"messages": [talk[0], {"role": "tool", "content": "x"}, *whole[1:]]}
    rows.write(tmp_path / "d.jsonl", [tool, {"messages": whole}])
    config = chat.Config(paths=(tmp_path / "d.jsonl",), held_out=0.0, template="plain")
    with pytest.raises(DataError, match="1 of 2 rows cannot be learned: the template plain has no form"):
        chat.build(dataclasses.replace(config, strict=True), TOKENIZER, length=96, batch_size=1)
    source = chat.build(config, TOKENIZER, length=96, batch_size=1, events=Events(memory))
    assert source.describe()["bad_rows"] == 1 and "they were left out" in memory.of(Note)[0].text


def test_chat_learns_to_stop_where_a_row_goes_on_after_its_last_answer(tmp_path: Path) -> None:
    """Many templates end only what stands last with a stop token."""
    ends_last = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}"
        "{{ eos_token if loop.last and m.role == 'assistant' }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    talk = [{"role": r, "content": c} for r, c in (("user", "q"), ("assistant", "one"), ("user", "r"))]
    rows.write(tmp_path / "a.jsonl", [{"messages": talk}])
    config = chat.Config(paths=(tmp_path / "a.jsonl",), held_out=0.0)
    [found] = chat.examples(config, TOKENIZER.with_template(ends_last), length=96)
    assert [id for id, on in zip(found.ids, found.learn) if on] == [
        *TOKENIZER.encode_batch(["one"])[0],
        TOKENIZER.eos_id,
    ]


def test_chat_evaluates_on_a_file(tmp_path: Path, memory: Any) -> None:
    answers(tmp_path)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    val = [{"question": f"new {n}", "answer": str(n)} for n in range(6)]
    rows.write(tmp_path / "val.jsonl", [*map(json.loads, lines[:2]), *val])

    def built(**more: Any) -> Any:
        paths = {"paths": (tmp_path / "rows.jsonl",), "val_paths": (tmp_path / "val.jsonl",)}
        config = chat.Config(**(paths | more))
        return chat.build(config, TOKENIZER, length=96, batch_size=4, seed=1, events=Events(memory))

    source = built()
    assert source.describe()["documents"] == 40 and source.held_out.describe()["documents"] == 8
    assert source.held_out.files == (tmp_path / "val.jsonl",)
    assert source.describe()["held_out"]["read"] == {str(tmp_path / "val.jsonl"): {"{question, answer}": 8}}
    assert "2 of 8 rows of --val-data are in --data too" in memory.of(Note)[-1].text
    mixed = built(paths=(Path(f"{tmp_path}/rows.jsonl:2"), Path(f"{tmp_path}/val.jsonl:1")))
    assert mixed.held_out.describe()["documents"] == 8
    with pytest.raises(DataError, match="2 of 8 rows of --val-data are in --data too"):
        built(strict=True)
    with pytest.raises(ConfigError, match="both say what is held out"):
        built(held_out=0.1)
    with pytest.raises(ConfigError, match="--val-data mixes nothing"):
        built(val_paths=(Path(f"{tmp_path}/val.jsonl:3"),))


@pytest.mark.parametrize("pack", ["best_fit", "bucket"])
def test_chat_mixes_files_by_weight(pack: str, tmp_path: Path) -> None:
    for name, n in (("a", 40), ("b", 10)):
        rows.write(
            tmp_path / f"{name}.jsonl",
            [{"prompt": f"{name}{i}", "completion": f"{name}" * 5} for i in range(n)],
        )
    paths = [f"{tmp_path}/a.jsonl:1", f"{tmp_path}/b.jsonl:3"]
    source = build(tmp_path, paths=paths, pack=pack, length=24, batch_size=2)
    assert source.describe()["corpora"].keys() == {"a", "b"} and source.describe()["read"].keys() == {
        f"{tmp_path}/a.jsonl", f"{tmp_path}/b.jsonl",
    }  # fmt: skip
    found = [TOKENIZER.decode(b.targets[b.weights > 0].tolist()) for b in map(source.__getitem__, range(400))]
    if pack == "bucket":  # a batch is one file's
        found = ["".join(set(text)) for text in found]
        assert not any("a" in text and "b" in text for text in found)
    n_a, n_b = ("".join(found).count(name if pack == "bucket" else name * 5) for name in "ab")
    assert n_b == pytest.approx(3 * n_a, rel=0.02)
    assert source.held_out.weights == {"a": 0.25, "b": 0.75}
    again = build(tmp_path, paths=paths, pack=pack, length=24, batch_size=2)
    assert (again[311].tokens == source[311].tokens).all()


def test_plain_text_among_rows(tmp_path: Path) -> None:
    """Learned as it is, between the tokens that begin and end a text; what is too long goes on."""
    long = "".join(chr(97 + i % 26) for i in range(150))
    rows.write(tmp_path / "a.jsonl", [{"text": long}, {"text": "short"}, {"prompt": "q", "completion": "a"}])
    source = build(tmp_path, paths=[str(tmp_path / "a.jsonl")], held_out=0.0, pack="none", length=64)
    source.seed = None
    found = [
        TOKENIZER.decode(b.targets[i][b.weights[i] > 0].tolist())
        for b in source
        for i in range(len(b.tokens))
        if b.weights[i].any()
    ]
    end = TOKENIZER.decode([TOKENIZER.eos_id])
    assert sorted(found) == sorted(["a<|im_end|>", f"short{end}", long[:64], long[64:128], long[128:] + end])
    facts = source.describe()
    assert facts["documents"] == 3 and facts["truncated"] == facts["dropped"] == 0
    assert facts["read"] == {str(tmp_path / "a.jsonl"): {"{text}": 2, "{prompt, completion}": 1}}


def test_a_model_that_cannot_pack_gets_a_document_a_row(tmp_path: Path) -> None:
    path = answers(tmp_path)
    one = chat.build(chat.Config(paths=(path,)), TOKENIZER, length=96, batch_size=4, packs=False)
    assert one.describe()["packing"] == "bucket" and one[0].segments.max() == 1
    with pytest.raises(ConfigError, match="--pack best_fit: this model does not keep the examples"):
        config = chat.Config(paths=(path,), pack="best_fit")
        chat.build(config, TOKENIZER, length=96, batch_size=4, packs=False)
    for n in range(9):
        (tmp_path / f"{n}.txt").write_text(f"Document {n}: " + "lorem ipsum é " * (n + 1))
    words = text.Config(paths=(tmp_path,), held_out=0)
    alone, packed = (
        text.build(words, TOKENIZER, length=96, batch_size=4, packs=packs) for packs in (False, True)
    )
    alone.seed = packed.seed = None
    assert max(b.segments.max() for b in alone) == 1 < max(b.segments.max() for b in packed)
    read = [[int(t) for b in found for t in b.targets[b.weights > 0]] for found in (alone, packed)]
    assert read[0] == read[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length_bucket": 3, "pack": "none"}, "--length-bucket says nothing with --pack none"),
        ({"length_bucket": 17, "pack": "bucket"}, "--length-bucket must be from 1 to 16, got 17"),
        ({"length_bucket": 3}, "--length-bucket says nothing without --pack bucket"),
        ({"map": ["promt=a"]}, "Did you mean 'prompt'"),
        ({"pack": "buckets"}, "'pack' cannot be 'buckets'"),
    ],
)
def test_chat_settings_that_say_nothing(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        build(tmp_path, **changes)


def test_names_of_the_original_for_ways_to_pack(tmp_path: Path) -> None:
    for theirs, ours in (("sequence", "sequential"), ("sample", "best_fit")):
        assert build(tmp_path, pack=theirs).describe()["packing"] == ours
