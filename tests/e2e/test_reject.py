"""Right answers become rows: drawn and checked, cloned from gold, and learned in rounds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.shell import Done, refused, tinygpt
from fake_openai import FakeOpenAI, Reply, chat
from tinygpt.data import rows
from tinygpt.data.world import file_ops as world
from tinygpt.eval.endpoint import Reply as Answer
from tinygpt.runs._accept import Works

SPECIALIST = Path(__file__).resolve().parents[2] / "specialists" / "file-ops-tiny"


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def works(n: int) -> dict[str, Any]:
    return {repr(work.messages): work for work in Works(world="file_ops", n=n).works([])}


def test_what_leaves_the_right_state_is_kept(tmp_path: Path) -> None:
    out, words = tmp_path / "kept.jsonl", ("--world", "file_ops", "--n", 24, "--samples", 3, "--keep", 2)
    done = tinygpt("reject", SPECIALIST, *words, "--out", out, "--json")
    assert done.code == 0, done.err
    told, made, asked = done.json, lines(out), works(24)
    assert told["n"] == 24 and told["n_answers"] == 72 and told["rows"] == len(made) > 15
    assert (
        told["rate"] == round(told["n_right"] / 72, 4) and sum(told["why"].values()) == 72 - told["n_right"]
    )
    assert {name: sum(g[name] for g in told["groups"].values()) for name in ("n", "n_right", "n_solved")} == {
        name: told[name] for name in ("n", "n_right", "n_solved")
    }
    seen: list[str] = []
    for row in made:
        *prompt, answer = row["messages"]
        reply = Answer(message=answer, text="", finish_reason="stop", n_tokens=0)
        assert asked[repr(prompt)].accept(reply) == "" and answer.get("tool_calls") != []
        assert rows.to_messages(row).messages[:-1] == prompt
        seen.append(json.dumps(row, sort_keys=True))
    assert len(set(seen)) == len(seen)
    card = json.loads(Path(told["card"]).read_text())
    assert card["stages"][0] == {
        "name": "reject", "n_in": 24, "n_out": len(made),
        "dropped": {"no right answer": 24 - told["n_solved"]},
        "notes": {"answers": 72, "right": told["n_right"]},
    }  # fmt: skip
    again = tmp_path / "again.jsonl"
    assert tinygpt("reject", SPECIALIST, *words, "--out", again).code == 0
    assert again.read_bytes() == out.read_bytes()


def sums(path: str, body: dict[str, Any]) -> Reply:
    """Adds two numbers, wrongly where the seed is odd; one question it cannot answer."""
    if "messages" not in body:
        return {"data": [{"id": "adder"}]}
    said = body["messages"][-1]["content"]
    if said.startswith("4"):
        return (500, {}, {"error": {"message": "no"}})
    a, b = said.rstrip("?").split("+") if "+" in said else ("0", "0")
    return chat(str(int(a) + int(b) + body.get("seed", 0) % 2))


def asked(tmp_path: Path, *words: object, questions: int = 5) -> Done:
    data = tmp_path / "asked.jsonl"
    rows.write(data, ({"prompt": f"{i}+2?", "answer": str(i + 2)} for i in range(questions)))
    with FakeOpenAI(sums).serving() as live:
        url = ("--url", live.url, "--tries", 1, "--batch", 1, "--samples", 2, "--json")
        return tinygpt("reject", *url, "--data", data, *words)


CHECK = "import os, sys; sys.exit(sys.stdin.read() != str(eval(os.environ['TINYGPT_PROMPT'].rstrip('?'))))"


def test_a_command_says_what_is_right_and_failures_are_counted(tmp_path: Path) -> None:
    out, script = tmp_path / "kept.jsonl", tmp_path / "check.py"
    script.write_text(CHECK)
    done = asked(tmp_path, "--command", f"{sys.executable} {script}", "--out", out)
    assert done.code == 0, done.err
    told = done.json
    assert (told["n"], told["n_right"], told["n_solved"], told["rows"]) == (5, 4, 4, 4)
    assert told["why"]["the command says no"] == 4 and sum(told["why"].values()) == 6
    assert [row["messages"][-1]["content"] for row in lines(out)] == ["2", "3", "4", "5"]
    card = json.loads(Path(told["card"]).read_text())
    assert [one["name"] for one in card["sources"]] == ["asked.jsonl", "adder"]


def test_a_reward_says_what_is_right(tmp_path: Path) -> None:
    script = tmp_path / "score.py"
    script.write_text("def score(answer):\n    return float(answer.text == answer.expected)\n")
    done = asked(tmp_path, "--reward-fn", f"{script}:score", "--out", tmp_path / "kept.jsonl")
    assert done.code == 0 and done.json["n_solved"] == 4, done.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--reward-fn", "never.py:score"), "none of 4 answers is right"),
        ((), "who says what is right"),
        (("--command", "true", "--reward-fn", "x.py:y"), "who says what is right"),
        (("--command", "true", "--keep", 3), "--keep 3 of 2 answers"),
        (("--command", "true", "--world", "file_ops"), "nothing to ask"),
        (("--command", "true", "--trajectory"), "--trajectory"),
        (("--command", "true", "--batch", 0), "--batch must be positive"),
        (("--command", "true", "--adapter", "a"), "--adapter says nothing to a server"),
        (("--command", "true", "--temperature", 0), "the same answer each time"),
    ],
)
def test_what_cannot_be_is_refused(
    words: tuple[object, ...], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("never.py").write_text("def score(answer):\n    return 0.0\n")
    done = asked(tmp_path, *words, "--out", tmp_path / "kept.jsonl", questions=2)
    refused(done, why)
    assert not list(tmp_path.glob("kept*"))


def test_gold_is_run_before_it_is_cloned(tmp_path: Path) -> None:
    out = tmp_path / "gold.jsonl"
    done = tinygpt("gold-clone", "--n", 40, "--out", out, "--json")
    assert done.code == 0 and done.json["rows"] == done.json["n"] == 40, done.err
    tasks = world.splits(0, 40, 400)["train"]
    for task, row in zip(tasks, lines(out), strict=True):
        messages = row["messages"]
        if task.kind != "calls":
            assert len(messages) == 3 and messages[-1]["content"]
            continue
        state = task.initial.copy()
        calls = messages[2]["tool_calls"]
        shown = [world.execute(state, call) for call in calls]
        assert [m["content"] for m in messages if m["role"] == "tool"] == shown
        assert state.nodes == task.expected.nodes and len(calls) == len(task.gold)
        assert messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]
        conversation = rows.to_messages(row)
        assert conversation.unlearned == () and len(conversation.messages) == 4 + len(calls)
    short = tinygpt("gold-clone", "--n", 40, "--no-trajectory", "--out", out)
    assert short.code == 0 and {len(row["messages"]) for row in lines(out)} == {3}


def test_rounds_of_answering_and_learning(tmp_path: Path) -> None:
    out = tmp_path / "rest"
    words = ("--world", "file_ops", "--n", 12, "--samples", 2, "--out", out, "--set", "sft.steps=1")
    words += ("--set", "sft.batch=4", "--set", "sft.context=256", "--set", "sft.lock=false", "--json")
    words += ("--set", "sft.full=true", "--set", "sft.compile=false")
    done = tinygpt("rest", SPECIALIST, *words, "--rounds", 1)
    assert done.code == 0, done.err
    (first,) = done.json["rounds"]
    weights = Path(first["path"]) / "model.safetensors"
    began = weights.stat().st_mtime_ns
    done = tinygpt("rest", SPECIALIST, *words, "--rounds", 2)
    assert done.code == 0 and done.json["rounds"][0] == first and weights.stat().st_mtime_ns == began
    second = json.loads((out / "round-2" / "run" / "run.json").read_text())
    assert second["config"]["base"] == str(SPECIALIST), "each round begins at the first model"
    drawn = json.loads((out / "round-2" / "rows.card.json").read_text())
    assert drawn["settings"]["model"] == first["path"], "the newest model answers"
    other = tinygpt("rest", SPECIALIST, *words, "--rounds", 2, "--seed", 7)
    refused(other, "made with other settings: seed")
