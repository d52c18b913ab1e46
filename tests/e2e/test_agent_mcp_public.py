"""Public MCP servers, as they come from the package registries.

TINYGPT_MCP_VENV  a virtual environment with mcp-server-time and mcp-server-git
TINYGPT_MCP_NPM   a folder with node_modules of @modelcontextprotocol/server-everything and
                  @modelcontextprotocol/server-filesystem
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

import nano
from tinygpt.agent import mcp
from tinygpt.agent.tool import Outcome

nano.require("jsonschema")
nano.require("mcp.client.client")
GOING: Any = threading.Event()


def program(variable: str, folder: str, name: str) -> str:
    """The path of a server's program; skipped where nobody says where it is."""
    path = Path(os.environ.get(variable, "")) / folder / name
    if not os.environ.get(variable) or not path.exists():
        pytest.skip(f"{variable} names no place with {name}")
    return str(path)


def python(name: str) -> str:
    return program("TINYGPT_MCP_VENV", "bin", name)


def node(name: str) -> str:
    return program("TINYGPT_MCP_NPM", "node_modules/.bin", name)


def use(opened: mcp.Opened, tool: str, /, **arguments: Any) -> Outcome:
    return next(one for one in opened.tools if one.name == tool).call(arguments, 30, GOING)


def effects(opened: mcp.Opened, tool: str) -> set[str]:
    return set(next(one for one in opened.tools if one.name == tool).effects)


def test_time_and_git(tmp_path: Path) -> None:
    servers = {"time": {"command": python("mcp-server-time")}, "git": {"command": python("mcp-server-git")}}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "a.txt").write_text("one\n")
    subprocess.run([*git, "add", "a.txt"], check=True)
    subprocess.run([*git, "commit", "-qm", "The first one"], check=True)
    with mcp.open(servers) as opened:
        assert len(opened.tools) == 14 and not opened.notes
        assert effects(opened, "time__convert_time") == {"read"}
        assert effects(opened, "git__git_reset") == {"write", "delete"}
        tokyo = use(
            opened, "time__convert_time", source_timezone="UTC", time="12:00", target_timezone="Asia/Tokyo"
        )
        assert json.loads(tokyo.stdout)["time_difference"] == "+9.0h"
        assert "The first one" in use(opened, "git__git_log", repo_path=str(tmp_path)).stdout
        wrong = use(opened, "time__get_current_time", timezone="Nowhere/None")
        assert wrong.exit_code == 1 and "Nowhere" in wrong.stderr


def test_filesystem(tmp_path: Path) -> None:
    with mcp.open({"files": {"command": node("mcp-server-filesystem"), "args": [str(tmp_path)]}}) as opened:
        assert len(opened.tools) == 14
        assert effects(opened, "files__read_text_file") == {"read"}
        assert effects(opened, "files__write_file") == {"write", "delete"}
        path = str(tmp_path / "a.txt")
        assert use(opened, "files__write_file", path=path, content="one\n").exit_code == 0
        assert (tmp_path / "a.txt").read_text() == "one\n"
        assert use(opened, "files__read_text_file", path=path) == Outcome(stdout="one\n")
        outside = use(opened, "files__read_text_file", path="/etc/hostname")
        assert outside.exit_code == 1 and "outside allowed directories" in outside.stderr


def check_everything(opened: mcp.Opened) -> None:
    assert len(opened.tools) == 12 and ["is left out: it is a task" in note for note in opened.notes] == [
        True
    ]
    assert use(opened, "every__get-sum", a=2, b=3) == Outcome(stdout="The sum of 2 and 3 is 5.")
    weather = use(opened, "every__get-structured-content", location="Chicago")
    assert json.loads(weather.stdout).keys() == {"temperature", "conditions", "humidity"}
    assert "[image, image/png, 4,0" in use(opened, "every__get-tiny-image").stdout
    tool = next(one for one in opened.tools if one.name == "every__trigger-long-running-operation")
    assert tool.call({"duration": 60, "steps": 60}, 0.3, GOING).exit_code == 124
    assert use(opened, "every__echo", message="still here").stdout == "Echo: still here"


@contextlib.contextmanager
def listening(how: str) -> Generator[int]:
    """The server over HTTP; it cannot say which port it took."""
    name = node("mcp-server-everything")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [name, how], env={**os.environ, "PORT": str(port)}, stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process, process.stdout:
        try:
            while str(port) not in (line := process.stdout.readline()):
                assert line, "it has ended"
            yield port
        finally:
            process.kill()


def test_everything_over_stdio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_KEY", "not-for-servers")
    with mcp.open({"every": {"command": node("mcp-server-everything")}}) as opened:
        assert "PLANTED_KEY" not in use(opened, "every__get-env").stdout
        check_everything(opened)


@pytest.mark.parametrize(("how", "place"), [("streamableHttp", "mcp"), ("sse", "sse")])
def test_everything_over_http(how: str, place: str) -> None:
    with listening(how) as port, mcp.open({"every": {"url": f"http://127.0.0.1:{port}/{place}"}}) as opened:
        check_everything(opened)
