"""MCP servers as tools of an agent: ours over stdio, HTTP and SSE, and the policy before them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import nano
from e2e import shell
from e2e.shell import good, tinygpt
from mcp_servers import GOING, PATIENCE, PLAIN, Ears, by_name, hearing, odd, plain, refused, serving, use
from scripted_turns import ScriptedTurns, call
from tinygpt.agent import mcp, toolbox
from tinygpt.agent.builtin._job import Place
from tinygpt.agent.policy import Policy, Rules
from tinygpt.agent.tool import Outcome, Refusal
from tinygpt.agent.workspace import Workspace
from tinygpt.core.errors import RemoteError

nano.require("jsonschema")
nano.require("mcp.client.client")


@pytest.fixture
def ears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ears]:
    with hearing(tmp_path, monkeypatch) as found:
        yield found


# What a server offers, and what its results are


def test_tools_of_a_program(ears: Ears, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_KEY", "not-for-servers-1")
    monkeypatch.setenv("GIVEN_KEY", "given-by-name-2")
    given = {"KEY": "Bearer ${GIVEN_KEY}"}
    with mcp.open(plain(ears, env=given, cwd=str(tmp_path), effects={"large": ["read"]})) as opened:
        tools = by_name(opened)
        assert opened.notes == []
        assert tools["plain__add"].entry["function"] == {
            "name": "plain__add", "description": "Add two numbers.",
            "parameters": {
                "type": "object", "title": tools["plain__add"].parameters["title"], "required": ["a", "b"],
                "properties": {
                    "a": {"title": "A", "type": "integer"}, "b": {"title": "B", "type": "integer"},
                },
            },
        }  # fmt: skip
        assert {tool.source for tool in opened.tools} == {"plain"}
        effects = {name.removeprefix("plain__"): set(tool.effects) for name, tool in tools.items()}
        assert effects["add"] == {"read"} and effects["environment"] == {"read", "network"}
        assert effects["picture"] == {"write"} and effects["fail"] == {"write", "delete", "network"}
        assert effects["table"] == {"execute", "network"} and effects["large"] == {"read"}

        assert use(opened, "plain__add", a=2, b=3) == Outcome(stdout="5")
        squares = json.loads(use(opened, "plain__table", n=3).stdout)
        assert squares == {"squares": {"0": 0, "1": 1, "2": 4}, "n": 3}
        said = use(opened, "plain__picture").stdout
        assert said == "a pixel\n[image, image/png, 70 bytes, not shown]"
        wrong = use(opened, "plain__fail", why="no such room")
        assert wrong.exit_code == 1 and "no such room" in wrong.stderr and not wrong.stdout
        wrong = use(opened, "plain__add", a="two", b=3)
        assert wrong.exit_code == 1 and "integer" in wrong.stderr
        assert len(use(opened, "plain__large", letters=3_000_000).stdout) == 3_000_000
        there = json.loads(use(opened, "plain__environment").stdout)
        assert there["KEY"] == "Bearer [GIVEN_KEY]" and there["cwd"] == str(tmp_path)
        usual = {"HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LC_CTYPE", "PWD", "cwd"}
        assert not there.keys() - usual - {"EARS", "KEY"}
        process = int(use(opened, "plain__leave", child=True).stdout)
        ears.hear("child")
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    ears.end()
    with pytest.raises(RemoteError, match="is closed"):
        use(opened, "plain__add", a=2, b=3)


@pytest.mark.parametrize("how", ["http", "sse"])
def test_tools_of_a_server(how: str, ears: Ears, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIVEN_KEY", "given-by-name-2")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # where nobody is
    with serving(how, ears) as url:
        entry = {"url": url, "headers": {"Authorization": "Bearer ${GIVEN_KEY}"}}
        with mcp.open({"far": entry}) as opened:
            assert set(by_name(opened)["far__add"].effects) == {"read", "network"}  # it leaves the machine
            assert use(opened, "far__add", a=2, b=3) == Outcome(stdout="5")
            if how == "http":
                assert use(opened, "far__header", name="Authorization").stdout == "Bearer [GIVEN_KEY]"
            late = by_name(opened)["far__wait"].call({"seconds": 600}, 0.5, GOING)
            assert late == Outcome(stderr="stopped after 0.5 seconds", exit_code=124)
            ears.hear("cancelled")
            assert use(opened, "far__add", a=1, b=1).stdout == "2"
        with mcp.open({"far": {**entry, "type": how}}) as opened:
            assert use(opened, "far__add", a=2, b=2).stdout == "4"
        if how == "sse":
            refused({"far": {**entry, "type": "http"}}, "answers 405 at http://127.0.0.1:")
    refused({"far": entry}, "cannot be reached at http://127.0.0.1:")


def test_a_server_that_comes_back_is_connected_to_again(ears: Ears) -> None:
    told: list[str] = []
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        url = first.enter_context(serving("http", ears))
        opened = stack.enter_context(mcp.open({"far": {"url": url}}, note=told.append))
        assert use(opened, "far__add", a=1, b=1).stdout == "2"
        first.close()
        for _ in range(2):
            with pytest.raises(RemoteError, match="MCP server 'far' cannot be reached"):
                use(opened, "far__add", a=1, b=1)
        stack.enter_context(serving("http", ears, url.split(":")[2].split("/")[0]))
        assert use(opened, "far__add", a=2, b=2).stdout == "4"
        assert told[-1] == "MCP server 'far' was connected to again"


def test_behind_the_policy(ears: Ears, tmp_path: Path) -> None:
    path = tmp_path / "tools.json"
    path.write_text(json.dumps({"tools": [{"_builtin": "list_files"}], "mcpServers": plain(ears)}))
    workspace = Workspace(tmp_path)
    box = toolbox.load(path, Place(workspace=workspace))
    assert mcp.files(box.servers) == [Path(sys.executable), Path(PLAIN)]
    asked: list[str] = []
    with mcp.open(box.servers) as opened:

        def no(question: str) -> bool:
            asked.append(question)
            return False

        policy = Policy([*box.tools, *opened.tools], Rules(deny=("*__fail",), output=1000), confirm=no)
        found = {
            name: policy.run(name, arguments, GOING)
            for name, arguments in {
                "plain__add": {"a": 1, "b": 2}, "plain__table": {"n": 1}, "plain__fail": {"why": "x"},
                "plain__subtract": {}, "list_files": {},
            }.items()
        }  # fmt: skip
        rules = {name: decision.rule for name, (decision, _) in found.items()}
        assert rules == {
            "plain__add": "harmless", "plain__table": "confirm", "plain__fail": "not-allowed",
            "plain__subtract": "unknown-tool", "list_files": "harmless",
        }  # fmt: skip
        assert found["plain__add"][1].stdout == "3"
        assert asked == ['plain__table (execute, network) {"n": 1}']
        assert policy.run("plain__add", {"a": 1, "b": 2, "c": 3}, GOING)[0].rule == "bad-arguments"
        assert policy.harmless("plain__add") and not policy.harmless("plain__table")
        yes = Policy(opened.tools, Rules(yes=frozenset({"execute", "network"}), output=1000))
        _, outcome = yes.run("plain__large", {"letters": 100_000}, GOING)
        assert outcome.cut == 99_000 and len(outcome.stdout) < 1100
    workspace.close()


# Ends


def test_calls_that_take_too_long_are_cancelled(ears: Ears) -> None:
    with mcp.open(plain(ears)) as opened:
        tool = by_name(opened)["plain__wait"]
        assert tool.call({"seconds": 600}, 0.3, GOING).exit_code == 124
        ears.hear("cancelled")
        ears.said = ""
        cancel, found = threading.Event(), list[Outcome]()
        thread = threading.Thread(target=lambda: found.append(tool.call({"seconds": 600}, 600, cancel)))
        thread.start()
        ears.hear("begun")
        assert use(opened, "plain__add", a=1, b=1).stdout == "2"  # beside it
        cancel.set()
        thread.join(PATIENCE)
        assert found[0].exit_code == 130
        ears.hear("cancelled")


def test_a_program_that_dies_is_started_again_once(ears: Ears) -> None:
    told: list[str] = []
    with mcp.open(plain(ears), note=told.append) as opened:
        crashed = r"MCP server 'plain' has ended \(exit code 3\): out of paper; it is not known whether"
        with pytest.raises(RemoteError, match=crashed):
            use(opened, "plain__crash")
        assert use(opened, "plain__add", a=1, b=1).stdout == "2"
        assert told == opened.notes == ["MCP server 'plain' had ended, and was started again"]
        with pytest.raises(RemoteError, match=crashed):
            use(opened, "plain__crash")
        for _ in range(2):
            with pytest.raises(
                RemoteError, match="MCP server 'plain' has ended twice, and is not started again"
            ):
                use(opened, "plain__add", a=1, b=1)


def test_tools_that_change_are_noticed(ears: Ears) -> None:
    heard = threading.Event()
    told: list[str] = []

    def note(line: str) -> None:
        told.append(line)
        heard.set()

    def changed(how: str) -> str:
        heard.clear()
        assert use(opened, "plain__change", how=how).stdout == how
        assert heard.wait(PATIENCE)
        return told[-1]

    with mcp.open(plain(ears), note=note) as opened:
        said = "MCP server 'plain' has changed its tools: "
        assert changed("more") == f"{said}new are 'subtract', to be had after a new start"
        assert changed("gone") == f"{said}'table' is not there any more, so it is not called any more"
        with pytest.raises(Refusal, match="'table' of MCP server 'plain' is not there any more") as gone:
            use(opened, "plain__table", n=1)
        assert gone.value.rule == "tool-changed"
        assert changed("other") == f"{said}'add' takes or does something else, so it is not called any more"
        with pytest.raises(Refusal, match="'add' .* takes or does something else since the start"):
            use(opened, "plain__add", a=1, b=1)
    assert by_name(opened)["plain__add"].description == "Add two numbers."


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_the_servers(times: int, ears: Ears) -> None:
    servers = plain(ears) if times == 1 else {**plain(ears), **odd("stay", ears)}
    program = f"""
import signal, sys, threading
from tinygpt.agent import _mcp_wire, mcp
_mcp_wire.LEAVE = _mcp_wire.STOP = 0.5
with mcp.open({servers!r}) as opened:
    next(t for t in opened.tools if t.name == "plain__leave").call({{"child": True}}, 30, threading.Event())
    print("up", flush=True)
    signal.pause()
"""
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None and process.stderr is not None
    with process, process.stdout, process.stderr:
        assert process.stdout.readline() == b"up\n"
        ears.hear("child")
        for _ in range(times):
            process.send_signal(signal.SIGINT)
        ears.end()
        assert process.wait(PATIENCE) in (1, 130, -signal.SIGINT)


def test_an_error_ends_the_servers(ears: Ears) -> None:
    with pytest.raises(ZeroDivisionError), mcp.open({**plain(ears), **odd("stay", ears)}) as opened:
        use(opened, "plain__leave", child=True)
        ears.hear("up")
        ears.hear("child")
        raise ZeroDivisionError
    ears.end()


def test_the_command_uses_them(ears: Ears, tmp_path: Path) -> None:
    path = tmp_path / "tools.json"
    turns = ([call("plain__add", a=2, b=3)], [call("plain__crash")], [call("plain__add", a=4, b=4)], "Eight.")
    with ScriptedTurns(*turns) as server:
        words = (
            "agent",
            "--endpoint",
            server.url,
            "--workspace",
            tmp_path,
            "--tools",
            path,
            "--single",
            "add",
        )
        path.write_text(json.dumps({"mcpServers": plain(ears)}))
        done = good(*words, "--yes", "execute", "--yes", "network")
        assert done.out == "Eight.\n" and "'plain' had ended, and was started again" in done.err
        said = [m["content"] for m in server.asked[-1]["messages"] if m["role"] == "tool"]
        assert said[0] == "5" and said[1].startswith("MCP server 'plain' has ended (exit code 3)")
        assert said[2] == "8"
        ears.end()
        path.write_text(json.dumps({"mcpServers": odd("gone", ears)}))
        shell.refused(tinygpt(*words), "MCP server 'odd' did not start: has ended .exit code 5.: no licence")
        assert len(server.asked) == 4
