"""`escalate`: asks before it sends, streams what comes, and ends the connection with Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from e2e.person import Person
from e2e.shell import good, refused, tinygpt
from scripted_cloud import N_IN, N_OUT, Reply, ScriptedCloud, refusing, said
from serving import tiny_chat_model
from tinygpt.agent.escalate import Preview, outgoing
from tinygpt.cli import _leaving
from tinygpt.core.events import Events
from tinygpt.data.atraj import MASK, Header, Step, Writer
from tinygpt.runs._cloud import Target, open_cloud

KEY = "the-key-of-this-test-4711"
SECRET = "sk-" + "aB3dE5gH7jK9mN1pQ3sT5vW7"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)


def words(server: ScriptedCloud, api: str, *more: object) -> list[object]:
    return ["escalate", "--provider", server.url, "--api", api, "--model", "m", "--prompt", "Why?", *more]


@pytest.mark.parametrize("api", ["openai", "anthropic"])
def test_a_question_and_its_answer(api: str) -> None:
    with ScriptedCloud(said("Because", " of it.")) as server:
        done = good(*words(server, api, "--yes", "--system", "Be brief.", "--price", "3,15"))
        found = good(*words(server, api, "--yes", "--price", "3,15", "--json")).json
    assert done.out == "Because of it.\n"
    assert f"to {server.host}: m\n" in done.err and f"{N_IN} tokens read, {N_OUT} written" in done.err
    cost = (N_IN * 3 + N_OUT * 15) / 1e6
    assert found["text"] == "Because of it." and found["cost"] == pytest.approx(cost)
    told = {name: found[name] for name in ("host", "model", "finish_reason", "error", "tokens_in", "masked")}
    assert told == {
        "host": server.host, "model": "m", "finish_reason": "stop", "error": "", "tokens_in": N_IN,
        "masked": 0,
    }  # fmt: skip
    first, second = server.bodies
    assert "Be brief." in json.dumps(first) and "Be brief." not in json.dumps(second)
    assert KEY not in done.out + done.err


def test_silence_is_no_yes() -> None:
    with ScriptedCloud(said("never")) as server:
        done = tinygpt(*words(server, "openai"))
        refused(done, "there is no terminal, so nothing was sent", hint="--yes")
        assert not server.asked


def test_errors_are_a_line_without_the_key() -> None:
    with ScriptedCloud(refusing(401, "wrong key {key}")) as server:
        done = tinygpt(*words(server, "openai", "--yes", "--quiet"))
        refused(done, "does not take OPENAI_API_KEY", r"wrong key \[SECRET\]", hint="check OPENAI_API_KEY")
    assert KEY not in done.err


def test_a_part_is_shown_and_said_to_be_one() -> None:
    with ScriptedCloud(said("half an", then="cut")) as server:
        done = tinygpt(*words(server, "anthropic", "--yes", "--quiet"))
        assert (done.code, done.out) == (2, "half an\n") and "error: the answer is not whole" in done.err
        done = tinygpt(*words(server, "anthropic", "--yes", "--json", "--quiet"))
        assert done.code == 2 and done.json["finish_reason"] == "cut" and done.json["text"] == "half an"


TALK: list[dict[str, Any]] = [
    {"role": "user", "content": f"My key is {SECRET}"},
    {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "name": "ls", "arguments": {"at": "."}}]},
    {"role": "tool", "content": "a.txt", "tool_call_id": "1", "name": "ls"},
]
TOOL = {"name": "ls", "description": "List.", "parameters": {"type": "object"}}


def test_conversations_of_files(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(json.dumps(TALK))
    (tmp_path / "object.json").write_text(json.dumps({"messages": TALK, "tools": [TOOL]}))
    writer = Writer.begin(tmp_path, Header(id="run", tools=[{"type": "function", "function": TOOL}]))
    writer.step(Step(role="user", content=TALK[0]["content"]))
    writer.step(Step(role="assistant", content="", calls=TALK[1]["tool_calls"]))
    writer.step(Step(role="tool", content="a.txt", name="ls", call_id="1"))
    writer.close()
    with ScriptedCloud(said("ok")) as server:
        for name in ("list.json", "object.json", "run.atraj"):
            found = good(*words(server, "openai", "--yes", "--json", "--messages", tmp_path / name)).json
            assert found["masked"] == (0 if name == "run.atraj" else 1), "trajectories have none"
        refused(
            tinygpt(*words(server, "openai", "--yes", "--messages", tmp_path / "none.json")), "cannot be read"
        )
        (tmp_path / "bad.json").write_text('{"messages": 3}')
        refused(
            tinygpt(*words(server, "openai", "--yes", "--messages", tmp_path / "bad.json")),
            "expected messages, got a number", hint=".atraj",
        )  # fmt: skip
        (tmp_path / "system.json").write_text('[{"role": "system", "content": "a"}]')
        given = ("--system", "b", "--messages", tmp_path / "system.json")
        refused(tinygpt(*words(server, "openai", "--yes", *given)), "both bring a system prompt")
    bodies = server.bodies
    assert len(bodies) == 3 and all(body["messages"] == bodies[0]["messages"] for body in bodies)
    assert bodies[0]["messages"][0]["content"] == f"My key is {MASK}"
    assert bodies[0]["messages"][-1] == {"role": "user", "content": "Why?"}
    described = [body["tools"][0]["function"].get("description") for body in bodies]
    assert described == [None, "List.", "List."]


def test_what_is_asked_and_where(tmp_path: Path) -> None:
    refused(tinygpt("escalate", "--provider", "openai"), "nothing to ask", hint="--prompt")
    refused(tinygpt("escalate", "--provider", "opnai", "--prompt", "a"), "Did you mean 'openai'")
    refused(
        tinygpt("escalate", "--provider", "openai", "--prompt", "a", "--key", KEY), "no option --key", hint=""
    )
    with ScriptedCloud(said("ok")) as server:
        piped = [word if word != "Why?" else "-" for word in words(server, "openai", "--yes")]
        assert tinygpt(*piped, stdin="from a pipe").code == 0
    assert server.bodies[0]["messages"] == [{"role": "user", "content": "from a pipe"}]


def test_a_bigger_model_of_this_machine(tmp_path: Path) -> None:
    model = tiny_chat_model(tmp_path)
    given = ("escalate", "--provider", model, "--prompt", "hi", "--max-tokens", 12)
    done = good(*given)
    found = good(*given, "--json").json
    assert done.out == found["text"] + "\n" and found["host"] == "this machine"
    assert found["tokens_out"] == 12 and found["finish_reason"] == "length"
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"prompt": "hi"}\n')
    good("generate", model, "--data", asked, "--out", tmp_path / "out.jsonl", "--chat", "--max-tokens", 12)
    assert json.loads((tmp_path / "out.jsonl").read_text())["output"] == found["text"]
    refused(tinygpt(*given, "--model", "x"), "says nothing to a model of this machine")
    refused(tinygpt(*given, "--yes"), "nothing leaves this machine")


def test_a_bigger_model_of_this_machine_streams_and_can_be_cancelled(tmp_path: Path) -> None:
    cloud = open_cloud(Target(provider=str(tiny_chat_model(tmp_path)), max_tokens=200), Events())
    said_so, cancel = [{"role": "user", "content": "hi"}], threading.Event()
    pieces: list[str] = []
    told = cloud.ask(said_so, on_text=pieces.append)
    assert "".join(pieces) == told.text and len(pieces) > 5 and told.n_out == 200 and told.whole
    part = cloud.ask(said_so, on_text=lambda text: cancel.set(), cancel=cancel)
    assert (part.finish_reason, part.whole) == ("cancelled", False)
    assert told.text.startswith(part.text) and part.n_out is not None and part.n_out < 50


# On a terminal


def test_a_person_says_no_and_yes() -> None:
    long = f"{SECRET} {'a' * 3000} {'z' * 3000}"
    with ScriptedCloud(said("Because.")) as server:
        given = [word if word != "Why?" else long for word in words(server, "openai")]
        person = Person(*given)
        person.sees("ll of the text: ")
        assert f"to {server.host}: m" in person.seen and MASK in person.seen
        assert "letters are not shown" in person.seen and SECRET not in person.seen
        person.types("a")
        person.sees("z" * 3000)
        person.sees("ll of the text: ")
        person.types("n")
        done = person.ended()
        assert (done.code, done.out) == (1, "") and not server.asked
        person = Person(*given)
        person.sees("ll of the text: ")
        person.types("y")
        assert (person.ended().out, len(server.bodies)) == ("Because.\n", 1)


def test_ctrl_c_ends_the_connection() -> None:
    with ScriptedCloud(said("half an", then="hang")) as server:
        person = Person(*words(server, "openai", "--yes"))
        assert person.process.stdout is not None
        assert person.process.stdout.read(7) == b"half an"
        person.process.send_signal(signal.SIGINT)
        assert server.left.wait(20), "the server sees it"
        assert person.ended().code == 130


def test_an_end_of_input_is_a_no(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    def typing(*lines: str) -> Terminal:
        ours, theirs = os.pipe()
        os.write(theirs, "".join(lines).encode())
        os.close(theirs)
        return Terminal(open(ours, "rb"))

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    out = outgoing([{"role": "user", "content": "\x1b[2Jhi"}])
    preview = Preview(host="h", model="m", key="", encrypted=True, out=out)
    said_so: list[bool] = []
    for lines in ([], ["\n"], ["no\n"], ["what?\n"], ["a\n", "y\n"], ["YES\n"]):
        with typing(*lines) as terminal:
            monkeypatch.setattr(sys, "stdin", terminal)
            said_so.append(_leaving.confirming(yes=False)(preview))
    assert said_so == [False, False, False, False, True, True]
    shown = capsys.readouterr().err
    assert "\\x1b[2Jhi" in shown and "\x1b" not in shown, "a text does not steer the terminal"


def test_a_server_may_not_be_waited_for() -> None:
    with ScriptedCloud(Reply(then="silent")) as server:
        done = tinygpt(*words(server, "openai", "--yes", "--quiet", "--timeout", "0.1"))
        refused(done, "said nothing for 0.1 s", hint="--timeout")
        assert server.left.wait(20)
