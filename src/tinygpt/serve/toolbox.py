"""Tools that the server itself offers to every conversation, in full or deferred.

full:     the prompt shows each tool with its schema, as if the client had sent it.
deferred: the prompt shows a line for each, "name — what it does", and one tool `get_tool_info(name)`, whose
          calls the server answers with the schema, at most `HOPS` times an answer. So a long catalogue costs
          few tokens, and one more turn where a tool is used.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data.template._calls import to_json
from tinygpt.serve.calls import name_of

MODES = ("full", "deferred")
HOPS = 3
INFO = "get_tool_info"
INFO_TOOL = {
    "type": "function",
    "function": {
        "name": INFO,
        "description": "Get the description and the parameters of a tool of the catalogue, before its call.",
        "parameters": {
            "type": "object",
            "properties": {"name": {"type": "string", "description": "The tool's name."}},
            "required": ["name"],
        },
    },
}
CATALOGUE = "Tools of the catalogue (look one up with get_tool_info before you call it):\n"
ENOUGH = "No more tools can be looked up for this answer. Call a tool that you know, or answer."


@dataclass(frozen=True)
class Toolbox:
    """Tools in OpenAI's form, by their names' order, and how they are shown."""

    tools: tuple[Mapping[str, Any], ...]
    mode: str = "full"
    names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"'tool_mode' must be one of {', '.join(MODES)}, got '{self.mode}'")
        object.__setattr__(self, "tools", tuple(sorted(self.tools, key=name_of)))
        names = list(map(name_of, self.tools))
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None or INFO in names:
            raise ConfigError(f"two tools have the name '{twice or INFO}'")
        object.__setattr__(self, "names", frozenset(names))

    @property
    def deferred(self) -> bool:
        return self.mode == "deferred" and bool(self.tools)

    def shown(self, tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The tools of the prompt: the client's, and the own ones that the client has none of that name
        for."""
        given = set(map(name_of, tools))
        own = [INFO_TOOL] if self.deferred else [t for t in self.tools if name_of(t) not in given]
        return [*tools, *own]

    def catalogue(self) -> str:
        """What a deferred prompt tells of the tools."""
        return CATALOGUE + "\n".join(f"{name_of(tool)} \u2014 {_first_line(tool)}" for tool in self.tools)

    def info(self, arguments: Mapping[str, Any]) -> str:
        """The answer to a call of get_tool_info."""
        name = arguments.get("name")
        found = next((tool for tool in self.tools if name_of(tool) == name), None)
        if found is None:
            return to_json({"error": f"there is no tool {name!r}", "tools": sorted(self.names)})
        return to_json(found.get("function") or found)


def turn(box: Toolbox, text: str, asked: Sequence[Mapping[str, Any]], *, last: bool) -> list[dict[str, Any]]:
    """The messages of a turn that asked for tools' information: what the model wrote, and the answers.
    `last`: it may ask no more."""
    ids = [f"call{i:05d}" for i in range(len(asked))]
    said = [{"id": id, **call} for id, call in zip(ids, asked, strict=True)]
    answers = [
        {"role": "tool", "tool_call_id": id, "name": call["name"], "content": box.info(call["arguments"])}
        for id, call in zip(ids, asked, strict=True)
    ]
    if last:
        answers[-1]["content"] += "\n" + ENOUGH
    return [{"role": "assistant", "content": text.rstrip(), "tool_calls": said}, *answers]


def load(path: Path, mode: str = "full") -> Toolbox:
    """The tools of a JSON file: a list of them, or {"tools": [...]}."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    listed = data.get("tools") if isinstance(data, dict) else data
    if not isinstance(listed, list):
        raise DataError(f"{path} must hold a list of tools, or an object with one under 'tools'")
    tools: list[dict[str, Any]] = []
    for i, one in enumerate(listed):
        function = one.get("function", one) if isinstance(one, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise DataError(f"{path}: tool {i + 1} has no name", hint="tools have OpenAI's function form")
        if not isinstance(function.get("parameters", {}), dict):
            raise DataError(f"{path}: the parameters of tool '{function['name']}' must be a JSON Schema")
        tools.append({"type": "function", "function": function})
    return Toolbox(tuple(tools), mode)


class Metrics:
    """A JSON line for each answer that tools were offered for. Safe from any thread. note: hears once that
    they cannot be written; the answers are given all the same."""

    def __init__(self, path: Path, note: Callable[[str], None] = lambda _: None) -> None:
        self.path, self._note, self._lock = Path(path), note, threading.Lock()
        self._failed = False
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, mode: str, hops: int, prompt: int, completion: int, streaming: bool) -> None:
        row = {
            "timestamp": datetime.now(UTC).isoformat(), "tool_mode": mode, "get_tool_info_hops": hops,
            "prompt_tokens": prompt, "completion_tokens": completion, "streaming": streaming,
        }  # fmt: skip
        with self._lock:
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            except OSError as error:
                if not self._failed:
                    self._note(f"{self.path} cannot be written: {error.strerror or error}")
                self._failed = True


def _first_line(tool: Mapping[str, Any]) -> str:
    text = str((tool.get("function") or tool).get("description") or "").strip()
    return text.splitlines()[0] if text else "no description"
