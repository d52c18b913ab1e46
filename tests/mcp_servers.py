"""Our MCP servers in tests: what starts them, and a pipe by which they are heard to come and go."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tinygpt.agent import _mcp_wire, mcp
from tinygpt.agent.tool import Outcome, Tool
from tinygpt.core.errors import TinyGPTError

HERE = Path(__file__).parent
PLAIN, ODD = str(HERE / "plain_mcp.py"), str(HERE / "odd_mcp.py")
PATIENCE = 30.0
GOING: Any = threading.Event()  # nobody cancels


class Ears:
    """A pipe that servers write to. It is at its end when none of them has it open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.ours: int | None = os.open(path, os.O_WRONLY)  # so that it ends when we say so
        self.said = ""

    def hear(self, word: str) -> None:
        """Wait for a line."""
        while word not in self.said.splitlines():
            assert select.select([self.fd], [], [], PATIENCE)[0], f"{word!r} is not heard"
            piece = os.read(self.fd, 4096).decode()
            assert piece, f"all have left without {word!r}: {self.said}"
            self.said += piece

    def end(self) -> None:
        """Wait until all have left."""
        self.close()
        while True:
            assert select.select([self.fd], [], [], PATIENCE)[0], f"somebody is still there: {self.said}"
            if not os.read(self.fd, 4096):
                return

    def close(self) -> None:
        if self.ours is not None:
            os.close(self.ours)
            self.ours = None


def plain(ears: Ears, **more: Any) -> dict[str, Any]:
    env = {"EARS": str(ears.path), **more.pop("env", {})}
    return {"plain": {"command": sys.executable, "args": [PLAIN, "stdio"], "env": env, **more}}


def odd(mode: str, ears: Ears, **more: Any) -> dict[str, Any]:
    return {"odd": {"command": sys.executable, "args": [ODD, mode], "env": {"EARS": str(ears.path)}, **more}}


@contextlib.contextmanager
def serving(how: str, ears: Ears, port: str = "0") -> Generator[str]:
    """Our server over HTTP; its address."""
    env = {**os.environ, "EARS": str(ears.path)}
    process = subprocess.Popen([sys.executable, PLAIN, how, port], stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    with process, process.stdout:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def use(opened: mcp.Opened, tool: str, /, **arguments: Any) -> Outcome:
    return by_name(opened)[tool].call(arguments, PATIENCE, GOING)


def by_name(opened: mcp.Opened) -> dict[str, Tool]:
    return {tool.name: tool for tool in opened.tools}


def refused(servers: dict[str, Any], *words: str, seconds: float = PATIENCE) -> None:
    """Not opened: one line, which names the server."""
    with pytest.raises(TinyGPTError) as caught, mcp.open(servers, seconds):
        pytest.fail("it was opened")
    said = caught.value.message
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value) and "\x1b" not in said
    assert len(said) < 500 and said.startswith("MCP server '"), said
    for word in words:
        assert word in said, said


@contextlib.contextmanager
def hearing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Ears]:
    """Ears for the servers of a test. Those that do not leave are not waited for as long as usual."""
    monkeypatch.setattr(_mcp_wire, "LEAVE", 0.5)
    monkeypatch.setattr(_mcp_wire, "STOP", 0.3)
    found = Ears(folder / "ears")
    yield found
    found.close()
    os.close(found.fd)
