"""What the model reads and writes: the listing as system message, the request, calls in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tinygpt.data.world.file_ops.file_system import FileSystem, joined

MAX_ENTRIES = 24


def system_prompt() -> str:
    """A system message to begin with: the listing of a small directory. The tools are fixed, so they are not
    in it."""
    paths = ("notes.md", "budget.csv", "photos/beach.jpg", "photos/city.jpg", "old/")
    nodes = {"/home/" + p.rstrip("/"): None if p.endswith("/") else "" for p in paths}
    return render_state(FileSystem(nodes, "/home"))


def render_state(fs: FileSystem, limit: int = MAX_ENTRIES) -> str:
    """The current directory and what it holds, one path a line, one level into subdirectories.

    A directory with entries shows as those (`logs/a.txt`), one without as `logs/`. Deeper ones are left out.
    Whole paths, because a call needs them whole: `cat logs/a.txt` copies a line.
    """
    lines = []
    for name in fs.children(fs.cwd):
        path = joined(fs.cwd, name)
        inside = fs.children(path) if fs.is_dir(path) else []
        lines += [f"{name}/{n}" + ("/" if fs.is_dir(joined(path, n)) else "") for n in inside]
        if not inside:
            lines.append(name + ("/" if fs.is_dir(path) else ""))
    if len(lines) > limit:
        lines = [*lines[:limit], f"+{len(lines) - limit} more"]
    return "\n".join([fs.cwd + ":", *lines])


def prompt(request: str, fs: FileSystem) -> list[dict[str, Any]]:
    """The messages the model answers: the state, then the request."""
    return [{"role": "system", "content": render_state(fs)}, {"role": "user", "content": request}]


def reply_of(calls: Iterable[Mapping[str, Any]], text: str = "") -> dict[str, Any]:
    """An assistant message: tool calls to be run in order, or a text."""
    entries = [
        {"type": "function", "function": {"name": call["name"], "arguments": dict(call["arguments"])}}
        for call in calls
    ]
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if entries:
        message["tool_calls"] = entries
    return message
