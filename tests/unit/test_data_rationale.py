"""Rationales: two tasks of a row, what their tokens count, and that both stay together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events
from tinygpt.data import rows
from tinygpt.data.source import chat
from tinygpt.data.source._rationale import tasks
from tinygpt.data.tokenizer import byte

TOKENIZER = byte.load()


def source(tmp_path: Path, data: list[dict[str, Any]], events: Events | None = None, **more: Any) -> Any:
    rows.write(tmp_path / "a.jsonl", data)
    given: dict[str, Any] = {"paths": (tmp_path / "a.jsonl",), "rationale": "rationale", **more}
    given = {"held_out": 0.0, "pack": "none"} | given
    return chat.build(chat.Config(**given), TOKENIZER, length=96, batch_size=2, events=events)


def learned(source: Any) -> list[tuple[str, str, float]]:
    """(what is read, what is learned, the weights of that) of every row."""
    found = []
    for r in range(source.n_rows):
        batch = source[r // 2]
        ids, weights = batch.tokens[r % 2], batch.weights[r % 2]
        said = batch.targets[r % 2][weights > 0]
        read = TOKENIZER.decode(int(i) for i in ids[batch.segments[r % 2] > 0])
        found.append((read, TOKENIZER.decode(map(int, said)), sorted(set(weights[weights > 0].tolist()))))
    return sorted(found)


def test_a_row_is_two_examples_with_their_weights(tmp_path: Path) -> None:
    data = [
        {"prompt": "1+1?", "completion": "2", "rationale": "one more than one"},
        {"question": "sky?", "answer": "blue"},
    ]
    made = source(tmp_path, data, rationale_weight=0.25)
    found = learned(made)
    assert made.facts["rationales"] == 1 and made.facts["learned_tokens"] == sum(
        len(TOKENIZER.encode(said, special=True)) for _, said, _ in found
    )
    asked = sorted(read.split("user\n")[1].split("<|im_end|>")[0] for read, _, _ in found)
    assert asked == ["[label] 1+1?", "[label] sky?", "[rationale] 1+1?"]
    by = {said.split("<|im_end|>")[0]: weights for _, said, weights in found}
    assert by == {"2": [1.0], "blue": [1.0], "one more than one": [0.25]}


def test_a_conversation_is_asked_at_its_last_request_and_earlier_answers_are_context() -> None:
    row = {
        "messages": [
            {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"},
        ],
        "why": "because",
    }  # fmt: skip
    label, reasons = tasks(row, rows.to_messages(row), "why")
    assert [m["content"] for m in label.content.messages] == ["a", "b", "[label] c", "d"]
    assert [m["content"] for m in reasons.content.messages] == ["a", "b", "[rationale] c", "because"]
    assert label.content.unlearned == () and reasons.content.unlearned == (0,)
    assert label.key == reasons.key and not label.reasons and reasons.reasons


def test_both_tasks_of_a_row_are_on_one_side_of_what_is_held_out(tmp_path: Path, memory: Any) -> None:
    data = [{"prompt": f"q{i}", "completion": f"a{i}", "rationale": f"r{i}"} for i in range(12)]
    made = source(tmp_path, data, Events(memory), held_out=0.25)
    sides = [learned(side) for side in (made, made.held_out)]
    numbers = [
        {task: {read.split(f"[{task}] q")[1].split("<")[0] for read, _, _ in side if f"[{task}]" in read}
         for task in ("label", "rationale")}
        for side in sides
    ]  # fmt: skip
    for side in numbers:
        assert side["label"] == side["rationale"]
    assert len(numbers[1]["label"]) == 3 and not numbers[0]["label"] & numbers[1]["label"]
    assert not any("copies" in e.text for e in memory.events if e.kind == "note")


def test_what_cannot_be_learned_is_refused_or_counted(tmp_path: Path) -> None:
    plain = [{"prompt": "a", "completion": "b"}]
    with pytest.raises(DataError, match="no row of --data has a 'rationale'"):
        source(tmp_path, plain)
    odd = [{"prompt": "a", "completion": "b", "rationale": 7}]
    with pytest.raises(DataError, match="rationale"):
        source(tmp_path, odd)
    alone = [{"messages": [{"role": "assistant", "content": "b"}], "rationale": "c"}]
    with pytest.raises(DataError, match="no request comes before the answer"):
        source(tmp_path, alone)
    with pytest.raises(ConfigError, match="rationale_weight must be positive"):
        chat.Config(paths=(tmp_path,), rationale_weight=0.0)
