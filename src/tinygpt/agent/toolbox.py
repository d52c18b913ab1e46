"""tools.json: OpenAI function entries, each with the way its calls are carried out, and MCP servers.

    {"tools": [{"type": "function", "function": {...}, "_exec_args": ["ls", "--", "{path}"]}, ...],
     "mcpServers": {"name": {"command": "...", "args": [...]}}}

or the list of tools alone. A key that begins with "_" may stand beside "function" or inside of it. Without a
file the tools of the house are chosen by name: `builtin`, `builtin:read_file,list_files`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinygpt.agent.builtin._job import Place
from tinygpt.agent.tool import EFFECTS, Tool
from tinygpt.agent.tools._entry import Entry
from tinygpt.agent.tools.builtin import BUILTIN, TESTS
from tinygpt.core.errors import ConfigError, DataError, nearest, unknown
from tinygpt.core.family import Family
from tinygpt.data import table
from tinygpt.data.message import json_of

EXECUTORS = Family("tinygpt.agent.tools", verb="build")
BY_KEY = {"_exec_args": "argv", "_python": "python", "_http": "http", "_builtin": "builtin"}
SAID = ("_effects", "_timeout", "_env", "_text")
NAME = re.compile(r"[\w.:/-]{1,128}")  # as the constraint of calls has it
SHAPE = "a list of tools, or an object with 'tools' and 'mcpServers'"
LARGEST = 16 << 20  # bytes
GONE = {
    "_exec": (
        "'_exec' is text for a shell, which is never run",
        'write the arguments as a list: "_exec_args": ["wc", "-l", "--", "{path}"]',
    ),
    "_handler": ("'_handler' names no executor", 'a Python function is "_python": "file.py:function"'),
}


@dataclass(frozen=True, kw_only=True)
class Toolbox:
    """What a file offers. servers: entries of "mcpServers" by name, as they stand there."""

    tools: tuple[Tool, ...]
    servers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Any])


def load(spec: str | Path, place: Place) -> Toolbox:
    """The tools that `--tools` means. ConfigError or DataError: one line with the file and the tool."""
    text = str(spec)
    if text == "builtin" or text.startswith("builtin:"):
        return Toolbox(tools=tuple(_house(text.partition(":")[2], place)))
    path = Path(text)
    found = _read(path)
    place.workspace.protect(path)
    if isinstance(found, list):
        found = {"tools": found}
    if not isinstance(found, dict) or not {"tools", "mcpServers"} & found.keys():
        raise DataError(f"{path} holds no tools", hint=SHAPE)
    known = ("tools", "mcpServers")
    if (odd := next((key for key in found if key not in known), None)) is not None:
        raise DataError(f"{path}: unknown key '{odd}'.{nearest(odd, known)}", hint=SHAPE)
    entries, servers = found.get("tools", []), found.get("mcpServers", {})
    if not isinstance(entries, list):
        raise DataError(f"{path}: 'tools' must be a list", hint=SHAPE)
    if not isinstance(servers, dict) or not all(isinstance(one, dict) for one in servers.values()):
        raise DataError(f"{path}: 'mcpServers' must be an object of objects, by name")
    tools = tuple(_built(one, i, path, place) for i, one in enumerate(entries))
    _one_each(tools, path)
    return Toolbox(tools=tools, servers=servers)


def _house(names: str, place: Place) -> Iterator[Tool]:
    """Built-in tools by name; all of them without names, run_tests where it has a command."""
    known = BUILTIN.names()
    chosen = [name.strip() for name in names.split(",")] if names else known
    if not names and not place.test_command:
        chosen = [name for name in known if name != TESTS]
    for name in chosen:
        if name not in known:
            raise unknown("built-in tool", name, known)
        if chosen.count(name) > 1:
            raise ConfigError(f"--tools names '{name}' twice")
        entry = Entry(where=f"--tools builtin: tool '{name}'", name=name, given=name, folder=Path())
        yield EXECUTORS.load("builtin").build(entry, place)


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise DataError(
            f"the tools {path} cannot be read: {error.strerror or error}",
            hint="a JSON file, or builtin:NAME,NAME",
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: byte {error.start}") from error
    if len(data) > LARGEST:
        raise DataError(f"{path} has more than {LARGEST} bytes")
    try:
        found = table.parse(text)
    except DataError as error:
        raise DataError(f"{path} is {error.message}") from error
    return json_of(found, str(path))


def _built(given: Any, number: int, path: Path, place: Place) -> Tool:
    """One entry as a tool."""
    where = f"{path}: tools[{number}]"
    if not isinstance(given, Mapping):
        raise DataError(f"{where} must be an object, got {type(given).__name__}")
    inner = given.get("function", {} if "_builtin" in given and "name" not in given else given)
    if not isinstance(inner, Mapping):
        raise DataError(f"{where}: 'function' must be an object")
    said = {k: v for one in (given, inner) for k, v in one.items() if k.startswith("_")}
    if given is not inner and (twice := sorted(k for k in inner if k.startswith("_") and k in given)):
        raise DataError(f"{where}: '{twice[0]}' stands beside 'function' and inside of it", hint="keep one")
    keys = [key for key in said if key in BY_KEY]
    name = inner.get("name")
    if name is None and keys == ["_builtin"]:
        named = said["_builtin"]
        name = named.get("name") if isinstance(named, Mapping) else named
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise DataError(f"{where} has no name, or an odd one: {name!r}", hint="letters, digits, and _-.:/")
    where = f"{path}: tool '{name}'"
    _known(said, given, inner, where)
    if len(keys) != 1:
        raise DataError(
            f"{where} has {'no executor' if not keys else ' and '.join(keys)}",
            hint=f"one of {', '.join(BY_KEY)}",
        )
    parameters = inner.get("parameters")
    if parameters is not None and (not isinstance(parameters, Mapping) or not _object(parameters)):
        raise DataError(f"{where}: 'parameters' must be a JSON Schema of an object")
    description = inner.get("description", "")
    if not isinstance(description, str):
        raise DataError(f"{where}: 'description' must be text")
    plain = ("name", "description", "parameters", "type")
    entry = Entry(
        where=where, name=name, given=said[keys[0]], folder=path.parent, description=description,
        parameters=parameters, effects=_effects(said, where), seconds=_seconds(said, where),
        names=tuple(_texts(said, "_env", where)), text=frozenset(_texts(said, "_text", where)),
        extra={k: v for k, v in inner.items() if k not in plain and not k.startswith("_")},
    )  # fmt: skip
    if (odd := sorted(entry.text - set(entry.properties))) != []:
        raise DataError(f"{where}: '_text' names '{odd[0]}'.{nearest(odd[0], entry.properties)}")
    return EXECUTORS.load(BY_KEY[keys[0]]).build(entry, place)


def _known(said: Mapping[str, Any], given: Mapping[str, Any], inner: Mapping[str, Any], where: str) -> None:
    """Refuse keys that nobody reads."""
    for key in said:
        if key in GONE:
            raise DataError(f"{where}: {GONE[key][0]}", hint=GONE[key][1])
        if key not in BY_KEY and key not in SAID:
            raise DataError(f"{where}: unknown key '{key}'.{nearest(key, [*BY_KEY, *SAID])}")
    if given is not inner:
        for key in given:
            if key not in ("type", "function") and not key.startswith("_"):
                raise DataError(f"{where}: unknown key '{key}' beside 'function'")
    if given.get("type", "function") != "function":
        raise DataError(f"{where}: its type is {given['type']!r}, known is 'function'")


def _object(schema: Mapping[str, Any]) -> bool:
    properties, required = schema.get("properties", {}), schema.get("required", [])
    fits = isinstance(properties, Mapping) and all(
        isinstance(one, Mapping | bool) for one in properties.values()
    )
    named = isinstance(required, list) and all(isinstance(one, str) for one in required)
    return schema.get("type", "object") == "object" and fits and named


def _effects(said: Mapping[str, Any], where: str) -> frozenset[str] | None:
    if "_effects" not in said:
        return None
    found = _texts(said, "_effects", where)
    if (odd := next((one for one in found if one not in EFFECTS), None)) is not None:
        raise DataError(f"{where}: unknown effect '{odd}'.{nearest(odd, EFFECTS)}", hint=", ".join(EFFECTS))
    return frozenset(found)


def _seconds(said: Mapping[str, Any], where: str) -> float | None:
    found = said.get("_timeout")
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found <= 86_400:
        raise DataError(f"{where}: '_timeout' is {json.dumps(found)}", hint="seconds, more than 0")
    return float(found)


def _texts(said: Mapping[str, Any], key: str, where: str) -> Sequence[str]:
    found = said.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, str) and one for one in found):
        raise DataError(f"{where}: '{key}' must be a list of texts")
    return found


def _one_each(tools: Sequence[Tool], path: Path) -> None:
    names = [tool.name for tool in tools]
    if (twice := next((name for name in names if names.count(name) > 1), None)) is not None:
        raise DataError(f"{path}: two tools have the name '{twice}'", hint="rename one")
