"""Suites in detail: the original's trials, normalisation, tool calls, splits of a world."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from scripted import ScriptedEndpoint
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.eval.endpoint import Reply
from tinygpt.eval.suites import exact_match, executed_state, gsm8k, reverse_16, sort_6
from tinygpt.eval.suites._trials import mulberry32


def test_mulberry32_gives_the_numbers_javascript_gives() -> None:
    expected = {
        0: [0.26642920868471265, 0.0003297457005828619, 0.2232720274478197],
        1303: [0.9788334972690791, 0.4252018213737756, 0.5110472834203392],
        16101: [0.032513475278392434, 0.3568376060575247, 0.32120228512212634],
    }
    for seed, numbers in expected.items():
        assert list(itertools.islice(mulberry32(seed), 3)) == numbers


def test_trials_are_the_originals() -> None:
    sort, reverse = sort_6.load(sort_6.Config()), reverse_16.load(reverse_16.Config())
    assert len(sort.items) == len(reverse.items) == 200
    assert sort.items[0]["prompt"].startswith("sort: 9 4 5 ") and sort.items[0]["prompt"].endswith(" = ")
    assert sort.items[0]["answer"].split() == sorted(sort.items[0]["prompt"].split()[1:7])
    words = [item["answer"] for item in reverse.items]
    assert reverse.items[0]["prompt"] == f"reverse: {words[0][::-1]} = " and len(words[0]) == 4
    assert {len(word) for word in words} == set(range(4, 17))


@pytest.mark.parametrize("suite", [sort_6, reverse_16, executed_state])
def test_there_is_something_to_score(suite: Any) -> None:
    for n in (0, -1):
        with pytest.raises(ConfigError, match=f"'n' must be at least 1, got {n}"):
            suite.Config(n=n)
    with pytest.raises(ConfigError, match="'limit' must not be negative"):
        exact_match.Config(path=Path("rows.jsonl"), limit=-1)


@pytest.mark.parametrize(
    ("text", "correct"),
    [("{}", True), ("  {}!!", True), ("   {}", False), ("{}x", True), ("x{}", False), ("", False)],
)
def test_a_trial_is_right_when_the_continuation_begins_with_the_answer(text: str, correct: bool) -> None:
    config = sort_6.Config(n=1)
    examples = sort_6.load(config)
    endpoint = ScriptedEndpoint(lambda prompt: text.format(examples.items[0]["answer"]))
    assert sort_6.score(endpoint, examples, config).rows[0].score == correct


def _match(tmp_path: Path, expected: str, got: str, **options: Any) -> bool:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "?", "answer": expected}))
    config = exact_match.Config(path=path, **options)
    return (
        exact_match.score(ScriptedEndpoint(lambda p: got), exact_match.load(config), config).rows[0].score
        == 1
    )


def test_normalisation_is_what_the_config_says(tmp_path: Path) -> None:
    assert _match(tmp_path, "a  b", " a b\n") and not _match(tmp_path, "a", " a", strip=False)
    assert not _match(tmp_path, "Yes", "yes") and _match(tmp_path, "Yes", "yes", ignore_case=True)
    assert not _match(tmp_path, "1,000", "1000.") and _match(
        tmp_path, "1,000", "1000.", ignore_punctuation=True
    )
    assert _match(tmp_path, "so #### 42", "other #### 41 #### 42", after="####")
    assert not _match(tmp_path, "so #### 42", "42", after="####")


def test_calls_are_compared_as_data_and_tools_are_passed(tmp_path: Path) -> None:
    call = {"name": "mv", "arguments": {"a": 1, "b": 2}}
    row = {"tools": [{"type": "function"}], "messages": [
        {"role": "user", "content": "go"}, {"role": "assistant", "tool_calls": [call]}]}  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps({"prompt": "x", "answer": "y"}) + "\nnot json\n")
    config = exact_match.Config(path=path)
    examples = exact_match.load(config)
    assert len(examples.items) == 2 and "line 3" in examples.notes[0]
    wrapped = {"function": {"name": "mv", "arguments": '{"b": 2, "a": 1}'}}
    same = ScriptedEndpoint(lambda p: {"role": "assistant", "content": "", "tool_calls": [wrapped]})
    result = exact_match.score(same, examples, config)
    assert [e["correct"] for e in result.examples] == [True, False]
    assert result.rows[0].task == "rows" and result.rows[0].settings["notes"]
    with pytest.raises(DataError, match="line 3"):
        exact_match.load(exact_match.Config(path=path, strict=True))


def test_each_split_and_kind_of_task_has_its_row() -> None:
    config = executed_state.Config(n=25)
    examples = executed_state.load(config)
    world = executed_state.WORLDS.load("file_ops")
    rules = executed_state.Rules(world, examples)
    result = executed_state.score(rules, examples, config)
    rows = {row.subtask: row for row in result.rows}
    assert [s for s in rows if "/" not in (s or "")] == list(world.HELD_OUT_SETS)
    for split in world.HELD_OUT_SETS:
        parts = [row for name, row in rows.items() if name and name.startswith(split + "/")]
        assert sum(row.n_examples for row in parts) == rows[split].n_examples == 25
        assert sum(row.score * row.n_examples for row in parts) == pytest.approx(rows[split].score * 25)
    assert all(row.baseline and row.metric == "state_correct" for row in result.rows)
    wrong = [e for e in result.examples if not e["correct"]]
    assert all(e["why"] not in ("", "ok") for e in wrong)
    assert all("calls" not in item or item["split"] for item in examples.items)


@pytest.mark.parametrize(
    ("reply", "correct"),
    [
        ({}, True),
        ({"finish_reason": "length"}, False),
        ({"error": "no answer"}, False),
        ({"message": {"error": "a broken call"}}, False),
    ],
)
def test_a_right_text_of_a_broken_reply_is_wrong(reply: dict[str, Any], correct: bool) -> None:
    config = executed_state.Config(n=15)
    examples = executed_state.load(config)
    golds = {repr(item["messages"]): item["gold"] for item in examples.items}

    def answer(prompt: Any) -> Reply:
        message = golds[repr(prompt)] | reply.get("message", {})
        rest = {k: v for k, v in reply.items() if k != "message"}
        return Reply(**({"message": message, "text": "", "finish_reason": "stop", "n_tokens": 1} | rest))

    found = executed_state.score(ScriptedEndpoint(answer), examples, config).examples
    assert {e["correct"] for e in found} == {correct}
    assert all((e["why"] == "ok") == correct for e in found)


def test_an_empty_question_of_gsm8k_is_a_bad_row(tmp_path: Path) -> None:
    rows = [{"question": text, "answer": "#### 4"} for text in ("2 and 2?", " ", "")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = gsm8k.load(gsm8k.Config(data=tmp_path / "rows.jsonl"))
    assert len(found.items) == 1 and "2 " in found.notes[0] and "the question is empty" in found.notes[0]
