"""The agent's command: tools, their policy, what is kept, and going on after a kill."""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import stat
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from e2e.person import Person
from e2e.shell import Done, good, refused, tinygpt
from scripted_cloud import ScriptedCloud, refusing, said
from scripted_turns import HANG, ScriptedTurns, call
from serving import tiny_chat_model
from tinygpt.agent.loop import UNKNOWN
from tinygpt.data import atraj

NO_SECRETS = ("email", "phone", "ssn", "ip", "credit_card", "iban", "mac", "name")
ALL = "builtin:read_file,write_file,list_files"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A workspace with a file in it."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "a.txt").write_text("one\ntwo\n")
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def words(server: ScriptedTurns, place: Path, *more: object) -> tuple[object, ...]:
    return ("agent", "--endpoint", server.url, "--workspace", place, "--tools", ALL, *more)


def ran(server: ScriptedTurns, place: Path, *more: object, stdin: str = "") -> Done:
    return good(*words(server, place, *more), stdin=stdin)


def test_a_request_is_worked_on_and_everything_is_kept(place: Path, tmp_path: Path) -> None:
    turns = ([call("read_file", path="a.txt"), call("list_files", path=".")], "It says one and two.")
    kept = ("--transcript", tmp_path / "t.jsonl", "--trajectory-dir", tmp_path / "traces")
    with ScriptedTurns(*turns) as server:
        done = ran(server, place, "--single", "what is in a.txt?", "--trajectory-task", "reading", *kept)
    assert done.out == "It says one and two.\n"
    assert '> read_file("path": "a.txt")' in done.err and "2 turns, 2 calls" in done.err
    results = [m["content"] for m in server.asked[1]["messages"] if m["role"] == "tool"]
    assert "one" in results[0] and "a.txt" in results[1]
    assert [t["function"]["name"] for t in server.asked[0]["tools"]] == [
        "read_file",
        "write_file",
        "list_files",
    ]
    assert [line["event"] for line in lines(tmp_path / "t.jsonl")] == [
        "user", "assistant", "tool_call", "tool_call", "tool_result", "tool_result", "assistant", "answer",
    ]  # fmt: skip
    (path,) = (tmp_path / "traces").glob("*.atraj")
    found = atraj.read(path)
    assert [step.role for step in found.steps] == ["user", "assistant", "tool", "tool", "assistant"]
    assert found.header.task == "reading" and found.end is not None and found.end.outcome == "answered"
    for kept_file in (path, tmp_path / "t.jsonl"):
        assert stat.S_IMODE(kept_file.stat().st_mode) == 0o600


def test_what_does_more_than_read_needs_a_yes(place: Path) -> None:
    turns = ([call("write_file", path="b.txt", content="x")], "Done.")
    with ScriptedTurns(*turns) as server:
        done = ran(server, place, "--single", "write b", "--json")
    assert not (place / "b.txt").exists() and done.json["refused_calls"] == 1
    assert "nobody to ask" in server.asked[1]["messages"][-1]["content"]
    with ScriptedTurns(*turns) as server:
        done = ran(server, place, "--single", "write b", "--dry-run", "--yes", "write")
    assert not (place / "b.txt").exists() and "not made (dry-run): Not carried out" in done.err
    with ScriptedTurns(*turns) as server:
        ran(server, place, "--single", "write b", "--yes", "write")
    assert (place / "b.txt").read_text() == "x"
    with ScriptedTurns(*turns) as server:
        done = ran(server, place, "--single", "write b", "--yes", "write", "--deny", "write_*")
    assert "not made" in done.err


def test_ctrl_c_at_a_question_is_a_no_and_ends_the_request_alone(place: Path) -> None:
    turns = (
        [
            call("write_file", "1", path="b.txt", content="x"),
            call("write_file", "2", path="c.txt", content="x"),
        ],
        "As you wish.",
    )
    with ScriptedTurns(*turns) as server:
        person = Person(*words(server, place))
        person.sees("/quit ends")
        person.types("write b and c")
        person.sees("[y/N]")
        person.process.send_signal(signal.SIGINT)
        person.sees("no answer: cancelled")
        person.types("and now?")
        done = person.ended_after("/quit")
    assert done.code == 0 and "As you wish." in done.out and not list(place.glob("[bc].txt"))
    said_ = [m["content"] for m in server.asked[1]["messages"] if m["role"] == "tool"]
    assert "the person said no" in said_[0] and "wants no more" in said_[1]


def test_requests_of_a_pipe_are_one_conversation(place: Path) -> None:
    with ScriptedTurns("One.", "Two.") as server:
        done = ran(
            server, place, "--system", "Be short.", "--json-out", stdin="first\nsecond\n/quit\nthird\n"
        )
    said = [m["content"] for m in server.asked[1]["messages"]]
    assert said == ["Be short.", "first", "One.", "second"]
    events = [json.loads(line) for line in done.out.splitlines()]
    assert [e["content"] for e in events if e["event"] == "answer"] == ["One.", "Two."]


def test_a_test_command_is_run_by_what_takes_it(place: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text(json.dumps([{"name": "check", "_builtin": "run_tests"}]))
    told = tmp_path / "told.json"
    told.write_text(json.dumps([{"name": "check", "_builtin": {"name": "run_tests", "command": "true"}}]))
    with ScriptedTurns([call("check")], "Done.") as server:
        line = ("--yes", "execute", "--test-command", "echo it was run", "--single", "x")
        ran(server, place, "--tools", own, *line)
        assert "it was run" in server.asked[1]["messages"][-1]["content"]
        refused(tinygpt(*words(server, place, "--tools", told, *line)), "--test-command: no tool runs it")


def test_a_tool_of_a_file(place: Path, tmp_path: Path) -> None:
    entry = {
        "type": "function",
        "function": {
            "name": "count",
            "description": "Count the lines of a file.",
            "parameters": {
                "type": "object",
                "properties": {"path": {"type": "string"}},
                "required": ["path"],
            },
        },
        "_exec_args": ["wc", "-l", "--", "{path}"],
        "_effects": ["read"],
    }
    (tmp_path / "tools.json").write_text(json.dumps([entry]))
    with ScriptedTurns([call("count", path="a.txt")], [call("count", path="../tools.json")], "2") as server:
        done = ran(
            server, place, "--tools", tmp_path / "tools.json", "--single", "how long is a.txt?", "--json"
        )
    results = [m["content"] for m in server.asked[2]["messages"] if m["role"] == "tool"]
    assert results[0] == "2 a.txt" and "Not carried out" in results[1]
    assert done.json["answers"][0]["text"] == "2"


def test_the_tools_of_a_server(place: Path, tmp_path: Path) -> None:
    """See test_agent_mcp for what servers may do."""
    (tmp_path / "server.py").write_text(SERVER)
    servers = {"sums": {"command": sys.executable, "args": [str(tmp_path / "server.py")]}}
    (tmp_path / "tools.json").write_text(json.dumps({"mcpServers": servers}))
    with ScriptedTurns([call("sums__add", a=2, b=3)], "5") as server:
        more = (
            "--tools",
            tmp_path / "tools.json",
            "--yes",
            "execute,network",
            "--single",
            "2 + 3?",
            "--json",
        )
        done = ran(server, place, *more)
    assert server.asked[1]["messages"][-1]["content"].strip() == "5" and done.json["refused_calls"] == 0


SERVER = """
from mcp.server.mcpserver import MCPServer

server = MCPServer("sums")


@server.tool()
def add(a: int, b: int) -> int:
    \'\'\'Add two numbers.\'\'\'
    return a + b


server.run()
"""


def test_a_run_that_is_killed_is_readable_and_goes_on(place: Path, tmp_path: Path) -> None:
    turns = ([call("read_file", path="a.txt")], HANG)
    kept = ("--trajectory-dir", tmp_path / "traces", "--transcript", tmp_path / "t.jsonl")
    with ScriptedTurns(*turns) as server:
        command = words(server, place, "--single", "what is in a.txt?", *kept)
        running = subprocess.Popen([sys.executable, "-m", "tinygpt", *map(str, command)])
        try:
            assert server.hung.wait(60)
        finally:
            os.kill(running.pid, signal.SIGKILL)
            running.wait()
    (path,) = (tmp_path / "traces").glob("*.atraj")
    found = atraj.read(path)
    assert [step.role for step in found.steps] == ["user", "assistant", "tool"] and found.end is None
    assert lines(tmp_path / "t.jsonl")[-1]["event"] == "tool_result"
    with ScriptedTurns("It says one and two.") as server:
        done = ran(server, place, "--resume", path, "--json", stdin="")
    assert done.json["answers"][0]["text"] == "It says one and two."
    assert [m["role"] for m in server.asked[0]["messages"]] == ["user", "assistant", "tool"]
    whole = atraj.read(path)
    assert whole.steps[:3] == found.steps and whole.end is not None and len(whole.steps) == 4

    cut = path.read_bytes().splitlines(keepends=True)[:3]
    path.write_bytes(b"".join(cut)[:-9])  # the call was made; that it was is lost
    assert atraj.read(path).n_lost == 1
    path.write_bytes(b"".join(cut))
    with ScriptedTurns("I cannot know.") as server:
        ran(server, place, "--resume", path)
    assert UNKNOWN in server.asked[0]["messages"][-1]["content"]
    before = path.read_bytes()
    with ScriptedTurns() as server:
        done = tinygpt(*words(server, place, "--resume", path, "--tools", "builtin:read_file"))
        refused(done, "with other tools")
        refused(tinygpt(*words(server, place, "--resume", path, "--router", place)), "has no tinygpt.json")
        kept = ("--trajectory-dir", tmp_path / "none", "--router", place)
        refused(tinygpt(*words(server, place, *kept)), "has no tinygpt.json")
    assert path.read_bytes() == before and not (tmp_path / "none").exists()


def test_a_stronger_model_is_asked_once_it_may_be(place: Path) -> None:
    with (
        ScriptedTurns('{"defer_to_cloud": true, "reason": "hard"}') as server,
        ScriptedCloud(said("42")) as cloud,
    ):
        more = ("--cloud-escalate", cloud.url, "--yes", "send", "--single", "what is it?", "--json")
        done = ran(server, place, *more)
    assert done.json["answers"][0] == {"text": "42", "outcome": "escalated", "fallback": False, "steps": 1}
    assert done.json["escalation"]["answered"] == 1 and "escalate" in str(server.asked[0]["tools"])
    with ScriptedTurns('{"defer_to_cloud": true}') as server, ScriptedCloud(said("42")) as cloud:
        line = words(server, place, "--cloud-escalate", cloud.url, "--single", "what is it?")
        refused(tinygpt(*line), "nobody can be asked", hint="--yes send")
        assert not cloud.asked and not server.asked
    turns = ('{"defer_to_cloud": true}', "I do not know.")
    with ScriptedTurns(*turns) as server, ScriptedCloud(refusing(401)) as cloud:
        line = ("--cloud-escalate", cloud.url, "--yes", "send", "--single", "what is it?")
        done = ran(server, place, *line)
    assert "I do not know." in done.out and "stays here: No answer came" in done.err
    assert "go on by yourself" in server.asked[1]["messages"][-1]["content"]


def test_no_tool_passes_for_the_stronger_model(model: Path, tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text(json.dumps([{"name": "escalate", "_builtin": "read_file"}]))
    line = ("agent", model, "--tools", tmp_path / "tools.json", "--cloud-escalate", model, "--single", "hi")
    refused(tinygpt(*line), "a tool is called 'escalate'", hint="rename")


def test_a_stronger_model_that_says_nothing_has_not_answered(place: Path) -> None:
    with ScriptedTurns('{"defer_to_cloud": true}', "I try.") as server, ScriptedCloud(said("")) as cloud:
        line = ("--cloud-escalate", cloud.url, "--yes", "send", "--single", "what is it?", "--json")
        done = ran(server, place, *line)
    assert done.json["answers"][0] == {"text": "I try.", "outcome": "answered", "fallback": False, "steps": 2}
    assert "no text came" in server.asked[1]["messages"][-1]["content"]


def test_a_line_that_a_crash_cut_off_stays_one_line(place: Path, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"event": "user", "con')
    with ScriptedTurns("One.") as server:
        ran(server, place, "--single", "hi", "--transcript", tmp_path / "t.jsonl")
    first, *rest = (tmp_path / "t.jsonl").read_text().splitlines()
    assert first.endswith('"con') and [json.loads(one)["event"] for one in rest][0] == "user"


def test_secrets_are_in_nothing_that_is_kept_or_shown(place: Path, tmp_path: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
    try:
        of = importlib.import_module("planted_held_out")
    finally:
        del sys.path[0]
    draw = random.Random(5)
    kinds = [kind for kind in of.VALUES if kind not in NO_SECRETS]
    planted: list[tuple[str, str]] = []
    for n in range(45):
        makers, frames = of.VALUES[kinds[n % len(kinds)]]
        value = makers[n // len(kinds) % len(makers)](draw)
        planted.append((value, frames[n % len(frames)].format(value)))
    assert len(kinds) >= 15
    for n, (_, text) in enumerate(planted):
        (place / f"{n}.txt").write_text(text + "\n")
    turns = [[call("read_file", f"r{n}", path=f"{n}.txt")] for n in range(40)]
    asked, said_ = planted[40][1], planted[41][1]
    kept = ("--transcript", tmp_path / "t.jsonl", "--trajectory-dir", tmp_path / "traces", "--json-out")
    with ScriptedTurns(*turns, f"I found: {said_}") as server:
        done = ran(server, place, "--single", f"Use this: {asked}", "--max-steps", 50, *kept)
    assert planted[0][1].splitlines()[0] in str(server.asked[1]["messages"]), "the model itself reads them"
    (path,) = (tmp_path / "traces").glob("*.atraj")
    for name, text in (
        ("trace", path.read_text()),
        ("transcript", (tmp_path / "t.jsonl").read_text()),
        ("events", done.out),
        ("log", done.err),
    ):
        for value, _ in planted[:42]:
            for part in value.splitlines():
                assert len(part) < 8 or part.startswith("-----") or part not in text, (
                    f"{part} is in the {name}"
                )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    yield tiny_chat_model(tmp_path_factory.mktemp("agent"))


def test_a_model_of_this_process(model: Path, place: Path, tmp_path: Path) -> None:
    line = ("agent", model, "--workspace", place, "--max-steps", 2, "--max-tokens", 24, "--temperature", 1)
    kept = ("--trajectory-dir", tmp_path, "--seed", 1, "--json")
    first = good(*line, *kept, "--single", "hi").json
    assert first["turns"] >= 1 and first["answers"][0]["outcome"] in ("answered", "steps", "unparsable")
    (path,) = tmp_path.glob("*.atraj")
    found = atraj.read(path)
    assert all(step.ids for step in found.steps) and found.header.model["hash"]
    assert "read_file" in found.steps[0].text, "the prompt lists the tools"
    again = good(*line, "--resume", path, "--json", stdin="and now?\n").json
    assert len(again["answers"]) == 1 and len(atraj.read(path).steps) > len(found.steps)
    other = tiny_chat_model(tmp_path / "other", seed=4)
    refused(tinygpt("agent", other, "--resume", path, "--workspace", place), "by another model")


def test_one_request_is_never_a_word_of_the_conversation(place: Path) -> None:
    with ScriptedTurns("It is four.") as server:
        assert ran(server, place, "--single", "/quit").out == "It is four.\n"


def test_the_tasks_of_a_world(model: Path, tmp_path: Path) -> None:
    line = ("agent", model, "--world", "file_ops", "--n", 3, "--no-show-tools", "--max-tokens", 8)
    found = good(*line, "--trajectory-dir", tmp_path / "traces", "--json").json
    assert found["n"] == 3 and found["right"] == 0 and sum(found["outcomes"].values()) == 3
    ends = [atraj.read(path).end for path in sorted((tmp_path / "traces").glob("*.atraj"))]
    assert [end is not None and end.success for end in ends] == [False] * 3
    for flag in (("--single", "x"), ("--json-out",)):
        refused(tinygpt(*line, *flag), f"{flag[0]} says nothing to the tasks of a world")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--tools", "builtin:reed_file"), "Did you mean 'read_file'"),
        (("--tools", "none.json"), "none.json cannot be read"),
        (("--workspace", "/no/such/place"), "cannot be opened"),
        (("--allow", "reed_file"), "no tool is called 'reed_file'"),
        (("--yes", "anything"), "anything"),
        (("--max-steps", "0"), "at least 1"),
        (("--output-cap", "5"), "out of range"),
        (("--max-calls", "-1"), "out of range"),
        (("--router", "x", "--router-threshold", "2"), "from 0 to 1"),
        (("--router-threshold", "0.5"), "--router-threshold means nothing without --router"),
        (("--router", "x", "--no-constrained"), "says nothing with --no-constrained"),
        (("--key-file", "k"), "--key-file means nothing without --cloud-escalate"),
        (("--resume", "x", "--system", "y"), "--resume goes on with its file"),
        (("--resume", "none.atraj"), "none.atraj"),
        (("--endpoint", "http://127.0.0.1:1/v1", "--kv-bits", "8"), "--kv-bits says nothing to a server"),
        (("--world", "nowhere"), "nowhere"),
        (("--price", "1"), "two numbers|means nothing"),
        (("--test-command", "pytest '"), "No closing quotation"),
        (("--yes", "send"), "--yes send means nothing where nothing leaves"),
        (("--yes", "write,send", "--cloud-escalate", "."), "--yes send means nothing where nothing leaves"),
        (("--cloud-escalate", "nowhere"), "--cloud-escalate 'nowhere' is no provider"),
        (("--test-command", "true"), "--test-command: no tool runs it"),
        (("--tools", "builtin:run_tests"), "run_tests needs the command"),
    ],
)
def test_settings_that_cannot_be_meant(model: Path, more: tuple[str, ...], message: str) -> None:
    refused(tinygpt("agent", model, "--single", "hi", *more), message)
