"""What goes into generated data: questions of rows, checks of answers, filters, corrections, escalation."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import nano
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data import rows
from tinygpt.data.alike import EXACT, NEAR, Seen
from tinygpt.data.correcting import EARLIER, NOTHING, OLD, SAME, Corrected, Replay
from tinygpt.data.escalating import BOTH, DEFERRED, KEPT, UNKNOWN, Escalating
from tinygpt.data.sift import FOREIGN, LONG, LOOP, SHORT, Sift, repetition
from tinygpt.data.source._preferred import preferred
from tinygpt.data.template import _choice
from tinygpt.data.template._ahead import ANSWER, PROBE, ahead
from tinygpt.data.tokenizer import byte
from tinygpt.data.unanswered import answered, question
from tinygpt.runs import _anthropic
from tinygpt.runs._answerers import Ask, Told
from tinygpt.runs._checked import CALLS, CUT, EMPTY, GRAMMAR, REFUSED, SCHEMA, SPELLED, Check
from tinygpt.runs._pace import Pace
from tinygpt.runs._synthesize import wishes

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hi"},
        {"prompt": "hi", "completion": "no"},
        {"prompt": [USER]},
        {"messages": [USER]},
        {"messages": [USER, {"role": "assistant", "content": "old"}]},
        {"messages": json.dumps([USER, {"role": "assistant", "content": "old"}])},
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "old"}]},
        {"instruction": "hi", "response": "old"},
        {"question": "hi"},
        {"asks": "hi"},
    ],
)
def test_a_question_is_found_in_any_shape(row: dict[str, Any]) -> None:
    found = question(row, "asks" if "asks" in row else "prompt")
    assert found.messages == [USER] and found.tools is None
    assert question(row, "asks", "Be brief.").messages == [{"role": "system", "content": "Be brief."}, USER]


def test_earlier_turns_tools_and_inputs_stay() -> None:
    talk = [USER, {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "look"}]
    found = question({"messages": talk, "tools": [TOOL], "system": "S"})
    assert found.messages == [{"role": "system", "content": "S"}, *talk] and found.tools == [TOOL]
    assert question({"instruction": "Add.", "input": "1"}).messages[0]["content"] == "Add.\n\n1"
    row = answered(found, {"role": "assistant", "content": "", "tool_calls": [{"name": "look"}]}, pair=True)
    assert rows.to_messages(row).messages[-1]["tool_calls"] == [{"name": "look", "arguments": {}}]
    assert answered(question({"prompt": "hi"}), {"role": "assistant", "content": "a"}, pair=True) == {
        "prompt": "hi", "completion": "a",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (3, "expected a JSON object"),
        ({"other": 1}, "nothing is asked in the row; its keys: other"),
        ({"prompt": " "}, "'prompt' is empty"),
        ({"prompt": 7}, "must be text"),
        ({"messages": []}, "at least one message|nothing is asked"),
        ({"messages": [{"role": "system", "content": "S"}]}, "nothing is asked before"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "nothing is asked before"),
    ],
)
def test_what_asks_nothing_is_told(row: Any, why: str) -> None:
    with pytest.raises(DataError, match=why):
        question(row)


def _told(text: str, **more: Any) -> Told:
    return Told(text=text, message={"role": "assistant", "content": text}, finish_reason="stop", **more)


SCHEMA_OF_N = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("told", "format", "kind"),
    [
        (_told("yes"), None, ""),
        (_told(" "), None, EMPTY),
        (Told(error="no"), None, REFUSED),
        (Told(text="a", finish_reason="length"), None, CUT),
        (Told(message={"content": 3}), None, SPELLED),
        (Told(message={"content": "\ud800"}), None, SPELLED),
        (Told(message={"content": None, "tool_calls": [{"function": {"name": "a", "arguments": "{"}}]}), None,
         CALLS),
        (Told(message={"content": "<tool_call>", "error": "not JSON"}), None, CALLS),
        (_told('```json\n{"n": 1}\n```'), ("schema", SCHEMA_OF_N), ""),
        (_told('{"n": "1"}'), ("schema", SCHEMA_OF_N), SCHEMA),
        (_told("{"), ("schema", SCHEMA_OF_N), SCHEMA),
        (_told("yes"), ("gbnf", 'root ::= "yes" | "no"'), ""),
        (_told("ye"), ("gbnf", 'root ::= "yes" | "no"'), GRAMMAR),
        (_told("maybe"), ("gbnf", 'root ::= "yes" | "no"'), GRAMMAR),
        (_told("42"), ("regex", "[0-9]+"), ""),
        (_told("4 2"), ("regex", "[0-9]+"), GRAMMAR),
        (_told("b"), ("choice", ["a", "b"]), ""),
    ],
)  # fmt: skip
def test_answers_are_checked(told: Told, format: Any, kind: str) -> None:
    if format and format[0] == "schema":
        nano.require("jsonschema")
    found = Check(format)(told)
    assert found.kind == kind and (found.message is None) == bool(kind) == bool(found.why)


def test_a_kept_call_has_no_id_and_a_fence_goes() -> None:
    call = {"id": "call_17", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
    found = Check(None)(Told(message={"content": None, "tool_calls": [call]}, finish_reason="tool_calls"))
    assert found.message == {
        "role": "assistant", "content": "", "tool_calls": [{"name": "look", "arguments": {"a": 1}}],
    }  # fmt: skip
    cut = Told(text="a", finish_reason="length")
    assert Check(None, keep_cut=True)(cut).message == {"role": "assistant", "content": "a"}


def test_a_server_is_told_in_its_own_words() -> None:
    schema, grammar = ("schema", SCHEMA_OF_N), ("gbnf", 'root ::= "a"')
    assert wishes(None, "auto") == wishes(schema, "none") == {}
    assert wishes(schema, "auto")["response_format"]["json_schema"]["schema"] == SCHEMA_OF_N
    assert wishes(schema, "guided") == {"guided_json": SCHEMA_OF_N}
    assert wishes(grammar, "auto") == {"grammar": grammar[1]}
    assert wishes(("choice", ["a"]), "auto") == {"structured_outputs": {"choice": ["a"]}}
    with pytest.raises(ConfigError, match="no word for a gbnf"):
        wishes(grammar, "response_format")


def test_requests_come_apart_and_wait_when_one_is_told_to() -> None:
    now, waits = [100.0], list[float]()

    def pause(seconds: float) -> None:
        waits.append(round(seconds, 6))
        now[0] += seconds

    pace = Pace(4, pause=pause, clock=lambda: now[0])
    for _ in range(3):
        pace.take()
    assert waits == [0.25, 0.25]
    pace.hold(2.0)
    pace.hold(1.0)  # the longer wait counts
    pace.take()
    assert waits[2:] == [2.0]
    free = Pace(0, pause=pause, clock=lambda: now[0])
    free.take()
    free.take()
    assert len(waits) == 3


def test_anthropic_is_asked_and_read_in_its_own_form() -> None:
    asked = _anthropic.Anthropic(None, {"model": "m"}, 1)  # type: ignore[arg-type]
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
    raw = [
        {"role": "system", "content": "S"}, USER, {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "1", "tool_call_id": "c1"},
        {"role": "tool", "content": "2", "tool_call_id": "c2"},
    ]  # fmt: skip
    ask = Ask(number=1, sample=0, row={}, sha="", seed=5, messages=raw, raw=raw, tools=[TOOL])
    path, body = asked._request(ask)
    assert path == "/messages" and body["system"] == "S" and "seed" not in body
    assert body["tools"] == [{"name": "look", "input_schema": {"type": "object"}}]
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][1]["content"] == [
        {"type": "tool_use", "id": "c1", "name": "look", "input": {"a": 1}}
    ]
    assert [part["content"] for part in body["messages"][2]["content"]] == ["1", "2"]
    use = {"type": "tool_use", "id": "x", "name": "look", "input": {"a": 2}}
    usage = {"input_tokens": 4, "output_tokens": 2}
    told = asked._read({"content": [{"type": "text", "text": "So"}, use], "usage": usage}, ask)
    assert (told.text, told.tokens, told.prompt_tokens) == ("So", 2, 4)
    assert Check(None)(told).message["tool_calls"] == [{"name": "look", "arguments": {"a": 2}}]  # type: ignore[index]
    answer = {"type": "tool_use", "name": "answer", "input": {"n": 1}}
    assert asked._read({"content": [answer], "stop_reason": "max_tokens"}, ask).finish_reason == "length"
    assert asked._read({"content": [answer]}, ask).text == '{"n": 1}'


def test_messages_are_sifted() -> None:
    sift = Sift(min_letters=3, max_letters=60, max_repetition=0.5, language=("en",))
    assert sift.fault("What is the time?") == ""
    assert sift.fault(" a ") == SHORT and sift.fault("a word and " * 9) == LONG
    assert sift.fault("no no no no no no no no no") == LOOP and sift.fault("x" * 30) == LOOP
    assert sift.fault("Wie ist das Wetter auf dem Berg, und der Wind?") == FOREIGN
    assert sift.fault("Guten Tag!") == "", "too short to tell"
    assert repetition("one two three four") == 0 and repetition("a b c a b c a b c") == pytest.approx(4 / 7)
    with pytest.raises(ConfigError, match="leave nothing"):
        Sift(min_letters=9, max_letters=3)
    with pytest.raises(ConfigError, match="'english'"):
        Sift(language=("english",))


def test_what_was_seen_is_known_again() -> None:
    seen = Seen(0.7)
    seen.add("How do I bake bread at home without a machine and without any yeast?")
    assert seen.has("how do i bake  bread at home without a machine and without any YEAST?") == EXACT
    assert seen.has("How do I bake bread at home without a machine and without any flour?") == NEAR
    assert seen.has("How do I bake a cake at home with a machine?") == ""
    seen.add("如何在家里不用机器烤面包，也不用酵母？")
    assert seen.has("如何在家里不用机器烤面包，也不用面粉？") == NEAR, (
        "a letter is a word where none is apart"
    )
    only = Seen(1.0)
    only.add("How do I bake bread at home?")
    assert only.has("How do I bake bread at hom?") == "" and only.has("HOW do I bake bread at home?") == EXACT


@pytest.mark.parametrize("name", ["chatml", "llama3", "llama2", "mistral", "alpaca"])
def test_a_users_turn_begins_where_the_template_says(name: str) -> None:
    tokenizer = byte.load(None)
    template = _choice.of(tokenizer, name)
    for before in ([], [USER, {"role": "assistant", "content": "yes"}]):
        found = ahead(template, tokenizer, before)
        asked = [*before, {"role": "user", "content": "Q7"}]
        whole = "".join(span.text for span in template.render(asked, None, True))
        text = tokenizer.decode(found.ids)
        assert whole.startswith(text + "Q7") and PROBE not in text and ANSWER not in text
        assert found.stop in whole.partition("Q7")[2] and found.stop_ids >= set(tokenizer.stop_ids)
    if name == "chatml":
        assert found.stop == "<|im_end|>" and tokenizer.special["<|im_end|>"] in found.stop_ids


def test_a_template_without_marks_is_refused() -> None:
    tokenizer = byte.load(None)
    with pytest.raises(ConfigError, match="no mark for the end of a user's turn"):
        ahead(_choice.of(tokenizer, "plain"), tokenizer, [])


def _file(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


GIVEN = [
    {"id": "1", "timestamp": "2026-01-01T00:00:00+00:00", "intent": "A?", "original": "x", "corrected": "y"},
    {"id": "2", "timestamp": "2026-02-01T00:00:00+00:00", "intent": "A?", "original": "x", "corrected": "z"},
    {"id": "3", "timestamp": "2026-02-02T00:00:00+00:00", "intent": "B", "original": "", "corrected": "b",
     "input": "in", "source": "app"},
    {"id": "4", "timestamp": "2026-02-03T00:00:00+00:00", "intent": "C", "original": "c", "corrected": "c"},
    {"other": 1},
]  # fmt: skip


def test_corrections_become_rows(tmp_path: Path) -> None:
    path = _file(tmp_path / "c.jsonl", GIVEN)
    found = Corrected(path, pairs=False, system="S")
    said = [rows.to_messages(row).messages for row in found.rows()]
    assert [m[-1]["content"] for m in said] == ["z", "b", "c"] and all(m[0]["content"] == "S" for m in said)
    assert said[1][1]["content"] == "B\n\nin"
    assert found.dropped == {EARLIER: 1, "no correction": 1} and "line 5" in found.first_bad
    for system in ("", "S"):
        pairs = Corrected(path, pairs=True, system=system)
        (pair,) = (preferred(row) for row in pairs.rows())
        assert pair.chosen[-1]["content"] == "z" and pair.replies[1][-1]["content"] == "x"
        assert pairs.dropped == {EARLIER: 1, NOTHING: 1, SAME: 1, "no correction": 1}
    late = Corrected(path, pairs=False, since="2026-02-02")
    assert late.n == 2 and late.dropped[OLD] == 2
    with pytest.raises(ConfigError, match="'soon' is no time"):
        Corrected(path, pairs=False, since="soon")


def test_replay_draws_the_same_rows_and_none_that_was_corrected(tmp_path: Path) -> None:
    base: list[Any] = [{"prompt": f"{i}?", "completion": "a"} for i in range(200)]
    path = _file(tmp_path / "base.jsonl", [{"prompt": "A?", "completion": "old"}, *base, {"text": "none"}])
    drawn = [
        [row["prompt"] for row in Replay(path, 20, seed=seed, pairs=False, taken="A?".__eq__).rows()]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2] and all(len(set(one)) == 20 for one in drawn)
    assert drawn[0] == sorted(drawn[0], key=lambda text: int(text[:-1])), "in their order"
    whole = Replay(path, 500, seed=0, pairs=False, taken="A?".__eq__)
    assert whole.n == 200 and whole.dropped == {"asks what was corrected": 1, "no row that trains": 1}
    often = Counter(
        row["prompt"]
        for seed in range(20)
        for row in Replay(path, 50, seed=seed, pairs=False, taken=lambda _: False).rows()
    )
    assert len(often) > 190 and max(often.values()) < 16, "every row has the same chance: 5 of 20"


def test_who_was_right_decides_what_is_learned() -> None:
    make = Escalating()
    row = {"prompt": "Q", "response": "A", "local_correct": True, "cloud_correct": True}
    told = make(row)
    assert told and told["instruction"] == "Q"
    assert json.loads(told["response"]) == {"defer_to_cloud": False, "response": "A"}
    hard = make(row | {"local_correct": "False", "cloud_correct": "true", "reason": "long", "input": "in"})
    assert hard and hard["instruction"] == "Q\n\nin"
    assert json.loads(hard["response"]) == {"defer_to_cloud": True, "reason": "long"}
    assert make(row | {"local_correct": False, "cloud_correct": False}) is None
    assert make(row | {"local_correct": False, "cloud_correct": None}) is None
    assert make.seen == {KEPT: 1, DEFERRED: 1, BOTH: 1, UNKNOWN: 1}
    for wrong in ({"local_correct": "perhaps"}, {"local_correct": None}, {"prompt": " "}, {"response": None}):
        with pytest.raises(DataError):
            make(row | wrong)
    assert rows.to_messages(told).messages[0]["content"] == "Q"
