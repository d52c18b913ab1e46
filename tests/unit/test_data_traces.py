"""Traces on their way to rows: what is left out, the very tokens, pairs, near duplicates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tinygpt.agent.turn import REPAIR
from tinygpt.core.errors import ConfigError
from tinygpt.data import rows
from tinygpt.data.atraj import REDACTED, Step
from tinygpt.data.source._preferred import preferred
from tinygpt.data.traces import _examples, _ids
from tinygpt.data.traces._alike import Alike
from tinygpt.data.traces._mend import Mend, Mended, mended
from tinygpt.data.traces._spool import Spool
from tinygpt.data.traces._trace import Trace, linked, masked
from tinygpt.runs._traces_settings import Config

HOW = Mend(repair=REPAIR)
CALL = {"id": "c1", "name": "ls", "arguments": {"path": "a"}}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def bot(text: str, *calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": text} | ({"tool_calls": list(calls)} if calls else {})


def result(text: str, id: str = "c1") -> dict[str, Any]:
    return {"role": "tool", "content": text, "tool_call_id": id, "name": "ls"}


def trace(*messages: dict[str, Any], **more: Any) -> Trace:
    given: dict[str, Any] = {"id": "t", "place": "t.atraj", "messages": linked(messages), **more}
    return Trace(**given)


def texts(left: Mended) -> list[str]:
    return [m["content"] for m in left.messages]


def test_turns_that_were_none_go_with_what_asked_for_them_again() -> None:
    said = (user("Do."), bot("<broken"), user(REPAIR.format(error="odd")), bot("Done."))
    left = mended(trace(*said, errors={1: "odd"}), HOW)
    assert texts(left) == ["Do.", "Done."] and left.places == [0, 3] and left.n_errors == 1
    twice = (*said[:3], bot("<again"), user("Hello?"), bot("Hi."))
    left = mended(trace(*twice, errors={1: "odd", 3: "odd"}), HOW)
    assert texts(left) == ["Hello?", "Hi."], "a request without any reply goes, too"
    assert not mended(trace(*said[:3], bot("<again"), errors={1: "odd", 3: "odd"}), HOW).messages


def test_refused_calls_go_with_their_results() -> None:
    other = {**CALL, "id": "c2"}
    said = (user("Do."), bot("", CALL, other), result("no"), result("b", "c2"), bot("There is b."))
    left = mended(trace(*said, refused=frozenset({2})), HOW)
    assert [c["id"] for c in left.messages[1]["tool_calls"]] == ["c2"]
    assert texts(left) == ["Do.", "", "b", "There is b."] and left.whole == {0, 3, 4} and left.n_refused == 1
    left = mended(trace(*said, refused=frozenset({2, 3})), HOW)
    assert texts(left) == ["Do.", "There is b."]
    kept = mended(trace(*said, refused=frozenset({2})), Mend(repair=REPAIR, refused=False))
    assert len(kept.messages) == 5 and not kept.n_refused


@pytest.mark.parametrize(
    ("message", "left"),
    [
        (bot('{"name": "ls", "arguments": {"path": "a"}}', CALL), [""]),
        (bot('[{"function": {"name": "ls", "arguments": "{\\"path\\": \\"a\\"}"}}]', CALL), [""]),
        (bot('{"tool": "ls", "args": {}}'), []),
        (bot('{"tool": "ls", "answer": "b"}'), ['{"tool": "ls", "answer": "b"}']),
        (bot('{"name": "Ada"}'), ['{"name": "Ada"}']),
        (bot("Let me look.", CALL), ["Let me look."]),
        (bot('{"name": "rm", "arguments": {}}', CALL), ['{"name": "rm", "arguments": {}}']),
    ],
)
def test_texts_that_repeat_a_call_say_nothing(message: dict[str, Any], left: list[str]) -> None:
    said = trace(user("Do."), message, bot("Fine."))
    assert texts(mended(said, HOW)) == ["Do.", *left, "Fine."]
    assert len(texts(mended(said, Mend(repair=REPAIR, echoes=False)))) == 3


def test_a_text_that_repeats_a_result_goes() -> None:
    said = trace(user("Do."), bot("", CALL), result("a\nb"), bot("a b"))
    left = mended(said, HOW)
    assert texts(left) == ["Do.", ""] and left.n_echoes == 1 and left.places == [0, 1]
    assert texts(mended(said, Mend(repair=REPAIR, echoes=False)))[-1] == "a b"


def test_the_last_turn_keeps_the_system_prompt() -> None:
    system = {"role": "system", "content": "Help."}
    said = trace(system, user("1"), bot("one"), user("2"), bot("", CALL), result("x"), bot("two"))
    assert texts(mended(said, HOW).last()) == ["Help.", "2", "", "x", "two"]


def test_results_without_ids_answer_the_open_calls() -> None:
    calls = [{"name": "ls", "arguments": {}}, {"name": "cat", "arguments": {}}]
    bare = [
        {"role": "tool", "content": c, **({"name": n} if n else {})} for c, n in (("b", "cat"), ("a", ""))
    ]
    found = linked([user("Do."), bot("", *calls), *bare])
    assert [m["tool_call_id"] for m in found[2:]] == ["call_1_1", "call_1_0"]
    assert [m["name"] for m in found[2:]] == ["cat", "ls"]


# The very tokens


def step(role: str, ids: list[int] | None, kept: int, sampled: int = 0) -> Step:
    probs = None if not sampled else [None] * (len(ids or []) - sampled) + [-1.0] * sampled
    return Step(role=role, content="x", ids=ids, n_kept=kept, logprobs=probs)


def exact(steps: list[Step], learned: set[int]) -> list[tuple[list[int], list[int]]]:
    made = _ids.rows(trace(user("x"), bot("x"), steps=steps, tokenizer="h"), learned)
    assert all(row["tokenizer_hash"] == "h" for row in made)
    return [(row["ids"], row["learn"]) for row in made]


def test_every_sampled_token_is_learned_once_after_what_was_read() -> None:
    said = [step("user", [1, 2], 0), step("assistant", [3, 4, 5], 2, 2), step("tool", [6], 5)]
    said.append(step("assistant", [7, 8], 6, 1))
    assert exact(said, {1, 3}) == [([1, 2, 3, 4, 5, 6, 7, 8], [0, 0, 0, 1, 1, 0, 0, 1])]
    assert exact(said, {3}) == [([1, 2, 3, 4, 5, 6, 7, 8], [0] * 7 + [1])]
    assert exact(said, {1}) == [([1, 2, 3, 4, 5], [0, 0, 0, 1, 1])], "nothing after the last is read"
    # The template writes the answer otherwise afterwards: token 5 has become 9.
    again = [*said[:2], step("user", [9, 6], 4), step("assistant", [7, 8], 6, 2)]
    assert exact(again, {1, 3}) == [
        ([1, 2, 3, 4, 5], [0, 0, 0, 1, 1]),
        ([1, 2, 3, 4, 9, 6, 7, 8], [0, 0, 0, 0, 0, 0, 1, 1]),
    ]


def test_tokens_end_before_what_is_secret_or_not_known() -> None:
    said = [step("user", [1], 0), step("assistant", [2], 1, 1), step("tool", [REDACTED], 2)]
    said.append(step("assistant", [3], 3, 1))
    assert exact(said, {1, 3}) == [([1, 2], [0, 1])]
    assert exact([said[0], step("assistant", None, 0)], {1}) == []


def test_tokens_of_a_text_that_had_a_secret_go() -> None:
    """A file of others may spell it there: nothing here knows what their ids mean."""
    said = [step("user", [1], 0), step("assistant", [2], 1, 1)]
    key = "sk-ant-api03-" + "aB3dE5gH7jK9mN1p" * 2
    open_ = masked(trace(user(f"use {key}"), bot("ok"), steps=said, tokenizer="h", id=key))
    assert open_.steps is None and open_.redacted and key not in str(open_)
    assert masked(trace(user("use it"), bot("ok"), steps=said, tokenizer="h")).steps == said


# Rows


def test_rows_are_what_sft_and_dpo_read() -> None:
    said = trace(user("Do."), bot("", CALL), result("a"), bot("Done."), tools=[{"function": {"name": "ls"}}])
    (row,) = _examples.sft(said, mended(said, HOW)).rows
    found = rows.to_messages(row)
    assert found.tools == said.tools and [m["role"] for m in found.messages][-2:] == ["tool", "assistant"]
    assert found.messages[1]["tool_calls"] == [CALL] and row["_meta"]["file"] == "t.atraj"
    (row,) = _examples.kto(said, mended(said, HOW), False).rows
    one = preferred(row)
    assert len(one.chosen) == 3 and not one.good and one.tools == said.tools


def pairs(margin: float, *scored: tuple[str, float]) -> tuple[list[dict[str, Any]], _examples.Pairs]:
    made = _examples.Pairs(Spool(), margin)
    for text, score in scored:
        one = trace(user("Do."), bot(text), id=text)
        made.add(one, mended(one, HOW), score)
    return [row for example in made.made() for row in example.rows], made


def test_pairs_are_the_best_with_the_worst_of_one_prompt() -> None:
    found, made = pairs(0.0, ("a", 0.2), ("b", 1.0), ("c", 0.0), ("d", 0.9))
    told = [(p.chosen[0]["content"], p.rejected[0]["content"]) for p in map(preferred, found) if p.rejected]
    assert told == [("b", "c"), ("d", "a")] and not made.n_alone and not made.n_close
    assert found[0]["_meta"]["scores"] == [1.0, 0.0]
    assert pairs(0.8, ("a", 0.2), ("b", 1.0), ("c", 0.1), ("d", 0.9))[1].n_close == 2
    assert not pairs(0.0, ("a", 1.0), ("b", 1.0))[0] and not pairs(0.0, ("a", 1.0))[0]
    assert not pairs(0.0, ("a", 1.0), ("a", 0.0))[0], "equal replies are no pair"


def test_near_duplicates_are_judged_by_all_that_was_said(tmp_path: Path) -> None:
    long = " ".join(f"word{i}" for i in range(60))
    said = [
        f"Do it. {long}",
        f"Do it! {long} x",
        "Do it. Another answer to this, of other words altogether.",
        "",
    ]
    alike = Alike(threshold=0.85, shingle=5, slots=64)
    found = alike.kept(len(said), lambda i: said[i], ["k"] * 4, tmp_path)
    assert found.tolist() == [True, False, True, True]
    assert alike.kept(2, lambda i: said[i], ["good", "bad"], tmp_path).tolist() == [True, True]


def test_a_spool_gives_back_what_it_got(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    values = [{"a": "é\ud800"}, [1, None], "x"]
    assert [spool.add(v) for v in values] == [0, 1, 2] and len(spool) == 3
    assert [spool[i] for i in (2, 0, 1)] == [values[2], values[0], values[1]]
    assert not list(tmp_path.iterdir())
    spool.close()


# Settings


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"token_exact": True, "mode": "dpo"}, "dpo reads text alone"),
        ({"success_only": True, "mode": "kto"}, "learns from failures"),
        ({"by": "x"}, "is for --mode dpo"),
        ({"min_reward": ("x",)}, "is no DIM=x"),
        ({"success_at": "judge=nan"}, "is no DIM=x"),
        ({"near_dup": False, "minhash_perms": 8}, "means nothing without --near-dup"),
        ({"judge_name": "x"}, "means nothing without --judge-model"),
        ({"judge_name": "x", "judge_model": "dir"}, "says nothing to a model directory"),
        ({"judge_seconds": 3.0, "judge_model": "dir"}, "says nothing to a model directory"),
        ({"success_at": "judge=7"}, "without --success-only"),
        ({"success_at": "judge=7", "mode": "dpo", "by": "judge"}, "without --by success"),
        ({"format": "csv"}, "unknown traces 'csv'|unknown"),
    ],
)  # fmt: skip
def test_settings_that_say_nothing_are_refused(more: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Config(paths=(Path("a"),), out=Path("b.jsonl"), **more)


def test_what_traces_are_compared_by() -> None:
    def score(one: Trace, **more: Any) -> float | None:
        return Config(paths=(Path("a"),), out=Path("b.jsonl"), mode="dpo", **more).score(one)

    one = trace(user("a"), bot("b"), reward={"x": 1.0, "y": 0.0}, success=True)
    assert score(one) == 0.5 and score(one, by="x") == 1.0 and score(one, by="success") == 1.0
    assert score(one, by="z") is None and score(one, judge_model="m") is None
    assert (
        score(trace(user("a"), bot("b"), success=False)) == 0.0 and score(trace(user("a"), bot("b"))) is None
    )
