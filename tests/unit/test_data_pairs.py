"""Rows of preferences: every shape that people share them in, what is learned of them, what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygpt.core.errors import DataError
from tinygpt.core.events import Events, MemorySink, Note
from tinygpt.data import rows
from tinygpt.data.batch import PairBatch
from tinygpt.data.source import pairs
from tinygpt.data.source._preferred import Preferred, preferred
from tinygpt.data.tokenizer import byte

TOKENIZER = byte.load()


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


PAIR = Preferred(prompt=[user("Q")], chosen=[said("A")], rejected=[said("B")])
SAME = {
    "texts": {"prompt": "Q", "chosen": "A", "rejected": "B"},
    "replies": {"prompt": "Q", "chosen": [said("A")], "rejected": [said("B")]},
    "messages": {"prompt": [user("Q")], "chosen": [said("A")], "rejected": [said("B")]},
    "one message": {"prompt": [user("Q")], "chosen": said("A"), "rejected": said("B")},
    "whole": {"prompt": "Q", "chosen": [user("Q"), said("A")], "rejected": [user("Q"), said("B")]},
    "implied": {"chosen": [user("Q"), said("A")], "rejected": [user("Q"), said("B")]},
    "question": {"question": "Q", "chosen": "A", "rejected": "B"},
    "hh": {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"},
}


@pytest.mark.parametrize("shape", SAME)
def test_shapes_that_say_the_same(shape: str) -> None:
    assert preferred(SAME[shape]) == PAIR


def test_a_prompt_of_several_turns_ends_where_answers_part() -> None:
    begin = [{"role": "system", "content": "S"}, user("1"), said("2"), user("3")]
    found = preferred({"chosen": [*begin, said("4")], "rejected": [*begin, said("5")]})
    assert (found.prompt, found.chosen, found.rejected) == (begin, [said("4")], [said("5")])
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {}}]}
    told = {"role": "tool", "content": "x"}
    alike = preferred(
        {"chosen": [user("1"), call, told, said("4")], "rejected": [user("1"), call, told, said("5")]}
    )
    assert [m["role"] for m in alike.prompt] == ["user", "assistant", "tool"], (
        "only what differs is an answer"
    )
    system = preferred({"system": "S", "prompt": "Q", "chosen": "A", "rejected": "B"})
    assert system.prompt == [{"role": "system", "content": "S"}, user("Q")]


def test_labels() -> None:
    one = preferred({"prompt": "Q", "completion": "A", "label": True})
    assert (one.prompt, one.chosen, one.rejected, one.good) == ([user("Q")], [said("A")], None, True)
    assert not preferred({"prompt": [user("Q")], "completion": [said("A")], "label": 0}).good
    assert preferred({"messages": [user("Q"), said("A")], "label": "desirable"}) == one
    assert not preferred({"messages": [user("Q")], "completion": "A", "label": "false"}).good


BAD: list[tuple[Any, str]] = [
    ([], "expected a JSON object"),
    ({"prompt": "Q", "chosen": "A"}, "no 'rejected'"),
    ({"prompt": "Q", "chosen": "A", "rejected": "A"}, "are equal"),
    ({"prompt": "Q", "chosen": "", "rejected": "A"}, "'chosen' is empty"),
    ({"prompt": "Q", "chosen": 3, "rejected": "A"}, "'chosen' must be text"),
    ({"chosen": "A", "rejected": "B"}, "without a 'prompt'"),
    ({"chosen": [user("Q")], "rejected": [user("Q"), said("B")]}, "the beginning of the other"),
    ({"chosen": [said("A")], "rejected": [said("B")]}, "no prompt before"),
    ({"prompt": "Q", "chosen": [user("X"), said("A")], "rejected": [user("X"), said("B")]}, "begin with"),
    ({"prompt": "Q", "chosen": [said("A"), user("?")], "rejected": "B"}, "ends with a message of the user"),
    ({"prompt": [{"role": "me", "content": "Q"}], "chosen": "A", "rejected": "B"}, r"prompt\[0\]: unknown"),
    ({"prompt": "Q", "completion": "A", "label": "perhaps"}, "true or false"),
    ({"prompt": "Q", "label": True}, "no answer beside 'label'"),
    ({"completion": "A", "label": True}, "no prompt"),
    ({"text": "x"}, "no 'label'"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "says"), BAD, ids=str)
def test_rows_that_do_not_fit(row: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        preferred(row)


def build(tmp_path: Path, found: list[Any], *, length: int = 64, **more: Any) -> pairs.PairSource:
    events = more.pop("events", None)
    rows.write(tmp_path / "rows.jsonl", found)
    config = pairs.Config(paths=(tmp_path / "rows.jsonl",), **{"held_out": 0.0, **more})
    return pairs.build(config, TOKENIZER, length=length, batch_size=len(found), seed=1, events=events)


def learned(batch: PairBatch, b: int, half: int) -> str:
    width = batch.tokens.shape[1] // 2
    part = slice(half * width, (half + 1) * width)
    return TOKENIZER.decode(batch.targets[b, part][batch.weights[b, part] > 0].tolist())


def read(batch: PairBatch, b: int, half: int) -> str:
    width = batch.tokens.shape[1] // 2
    part = slice(half * width, (half + 1) * width)
    return TOKENIZER.decode(batch.tokens[b, part][batch.segments[b, part] == half + 1].tolist())


def test_only_the_answers_are_learned(tmp_path: Path) -> None:
    prompt = [user("1"), said("earlier"), user("2")]
    source = build(tmp_path, [{"prompt": prompt, "chosen": "good", "rejected": "bad one"}], length=128)
    batch = source[0]
    end = "<|im_end|>"
    assert (
        learned(batch, 0, 0).removesuffix(end) == "good"
        and learned(batch, 0, 1).removesuffix(end) == "bad one"
    )
    assert "earlier" in read(batch, 0, 0) and "good" not in read(batch, 0, 1)
    width = batch.shape[1] // 2
    assert batch.positions[0, width] == 0 and set(batch.segments[0].tolist()) <= {0, 1, 2}
    assert batch.rows(0, 1).reference.shape == (1, 2)


def test_a_long_prompt_loses_the_same_beginning_in_both(tmp_path: Path) -> None:
    told = MemorySink()
    row = {"prompt": "abcdefghij" * 6, "chosen": "yes", "rejected": "no, never"}
    long = {"prompt": "x", "chosen": "y" * 70, "rejected": "n"}
    source = build(tmp_path, [row, long], length=48, events=Events(told))
    facts = source.describe()
    assert (facts["truncated"], facts["dropped"], facts["rows"]) == (1, 1, 1)
    notes = [e.text for e in told.events if isinstance(e, Note)]
    assert any("1 rows have an answer that does not fit" in n for n in notes)
    assert any("lost the beginning" in n for n in notes)
    example = source.packed.examples[0]
    n = example.first.prompt
    assert (
        example.first.ids[:n] == example.second.ids[:n]
        and max(len(a.ids) for a in (example.first, example.second)) == 49
    )
    with pytest.raises(DataError, match="does not fit"):
        build(tmp_path, [row, long], length=48, strict=True)
    with pytest.raises(DataError, match="no answer of 1 rows fits"):
        build(tmp_path, [long], length=48)


def test_an_answer_stands_beside_that_of_another_prompt(tmp_path: Path) -> None:
    found: list[Any] = [
        {"prompt": f"ask {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(3)
    ]
    found.append({"prompt": "ask 9", "completion": "good 9", "label": True})
    source = build(tmp_path, found, paired=False)
    assert len(source.packed) == 7
    batch = source.batch_of(range(7))
    for b in range(7):
        own, other = learned(batch, b, 0), learned(batch, b, 1)
        prompt = read(batch, b, 0).split("ask ")[1][0]
        assert prompt in own and prompt not in other, "its own prompt, and an answer to another one"
        assert f"ask {prompt}" in read(batch, b, 1)
        assert batch.good[b] == own.startswith("good")
    with pytest.raises(DataError, match="same prompt"):
        build(tmp_path, [{"prompt": "a", "chosen": "b", "rejected": "c"}], paired=False)
    with pytest.raises(DataError, match="no pairs"):
        build(tmp_path, found)


def test_batches_are_as_wide_as_they_need_in_a_few_steps(tmp_path: Path) -> None:
    found = [{"prompt": "q", "chosen": "y" * n, "rejected": "n"} for n in range(1, 200)]
    source = build(tmp_path, found, length=256)
    source.batch_size = 1
    widths = {source[i].shape[1] // 2 for i in range(199)}
    assert len(widths) > 2 and widths <= set(source.widths) and len(source.widths) <= pairs.WIDTHS
    assert max(source.widths) == max(e.width for e in source.packed.examples)


def test_one_prompt_is_never_on_both_sides(tmp_path: Path) -> None:
    found = [{"prompt": f"p{i % 9}", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(40)]
    source = build(tmp_path, found, held_out=0.3)
    assert source.held_out is not None
    sides = [{e.prompt for e in part.packed.examples} for part in (source, source.held_out)]
    assert not sides[0] & sides[1] and len(sides[1]) == 3
    assert np.all(source[0].reference == 0)
