"""The file tools: their OpenAI function entries and what each one does to a file system.

A tool is declared once (name, description, arguments); the same declaration is published as JSON Schema and
checks the arguments of a call, so a model's mistake becomes an error text, never an exception.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from tinygpt.data.world.file_ops.file_system import FileSystem, PathError, joined, name_of


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one call gave: the text shown, the error kind (None when it worked), and what was learned.

    `fact` is the observation free of how it was asked (`ls` and `ls .` learn the same); None for writes.
    """

    text: str
    error: str | None = None
    fact: tuple[Any, ...] | None = None


def _string(text: str) -> dict[str, Any]:
    return {"type": "string", "description": text}


def _entry(
    name: str, description: str, required: dict[str, Any], optional: dict[str, Any] | None = None
) -> dict:
    parameters = {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


_RECURSIVE = {"recursive": {"type": "boolean", "description": "Needed when the source is a directory."}}
_WHERE = {"path": _string("Directory to look in; the current one by default.")}

TOOLS: list[dict[str, Any]] = [
    _entry("pwd", "Show the current directory.", {}),
    _entry("ls", "List a directory.", {}, _WHERE),
    _entry("tree", "Draw a directory with everything below it.", {}, _WHERE),
    _entry("cd", "Change the current directory.", {"path": _string("Directory to go to; .. is the parent.")}),
    _entry(
        "mkdir",
        "Create a directory.",
        {"path": _string("Directory to create.")},
        {"parents": {"type": "boolean", "description": "Also create missing parent directories."}},
    ),
    _entry("touch", "Create an empty file.", {"path": _string("File to create.")}),
    _entry("cat", "Show the text of a file.", {"path": _string("File to show.")}),
    _entry(
        "head",
        "Show the first lines of a file.",
        {"path": _string("File to show.")},
        {"lines": {"type": "integer", "minimum": 1, "description": "How many lines; 10 by default."}},
    ),
    _entry("wc", "Count the lines, words and characters of a file.", {"path": _string("File to count.")}),
    _entry(
        "mv",
        "Move or rename a file or directory.",
        {"source": _string("What to move."), "destination": _string("Existing directory, or the new path.")},
    ),
    _entry(
        "cp",
        "Copy a file or directory.",
        {"source": _string("What to copy."), "destination": _string("Existing directory, or the new path.")},
        _RECURSIVE,
    ),
    _entry(
        "rm",
        "Delete a file, or a directory with all it holds.",
        {"path": _string("What to delete.")},
        {"recursive": {"type": "boolean", "description": "Needed to delete a directory."}},
    ),
    _entry("rmdir", "Delete an empty directory.", {"path": _string("Empty directory to delete.")}),
    _entry(
        "find", "Find files by name.", {"name": _string("Name or pattern, such as a.txt or *.txt.")}, _WHERE
    ),
    _entry(
        "grep",
        "Show the lines that contain a text.",
        {"pattern": _string("Text to look for, taken literally.")},
        {"path": _string("File or directory to search; the current directory by default.")},
    ),
    _entry(
        "write",
        "Write a line to a file, replacing what it holds; the file is created if missing.",
        {"path": _string("File to write."), "content": _string("The text.")},
    ),
    _entry(
        "append",
        "Add a line at the end of a file; the file is created if missing.",
        {"path": _string("File to add to."), "content": _string("The text.")},
    ),
]

PARAMETERS: dict[str, dict[str, Any]] = {t["function"]["name"]: t["function"]["parameters"] for t in TOOLS}
READ_ONLY = frozenset({"pwd", "ls", "tree", "cat", "head", "wc", "find", "grep"})
_TYPES = {"string": str, "boolean": bool, "integer": int}


def execute(fs: FileSystem, call: Mapping[str, Any]) -> str:
    """Run one call on `fs` (changing it) and return the text a user would see; errors read `error: ...`."""
    return run(fs, call).text


def run(fs: FileSystem, call: Mapping[str, Any]) -> Outcome:
    """Run one call (bare or in the OpenAI wrapper) on `fs`. Never raises on a model's output."""
    name, arguments, problem = read_call(call)
    if problem is None:
        problem = _argument_problem(name, arguments)
    if problem is not None:
        return Outcome(text=f"error: {problem[1]}", error=problem[0])
    try:
        text, fact = _DO[name](fs, **arguments)
    except PathError as error:  # every verb checks before it changes, so a refusal leaves the tree as it was
        return Outcome(text=f"error: {name}: {error}", error=error.kind)
    return Outcome(text=text, fact=fact)


def read_call(call: Any) -> tuple[str, dict[str, Any], tuple[str, str] | None]:
    """Name and arguments of a call, bare or in the OpenAI wrapper, arguments as an object or as JSON text."""
    if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping):
        call = call["function"]
    if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
        return "", {}, ("bad_call", "a call needs a name and arguments")
    arguments = call.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            return call["name"], {}, ("bad_argument", f"{call['name']}: the arguments are not JSON")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
        return call["name"], {}, ("bad_argument", f"{call['name']}: the arguments are not an object")
    return call["name"], dict(arguments), None


def _argument_problem(name: str, arguments: dict[str, Any]) -> tuple[str, str] | None:
    """(kind, message) when the arguments do not fit the tool's schema."""
    schema = PARAMETERS.get(name)
    if schema is None:
        return "unknown_tool", f"unknown tool {name!r}"
    for key in schema["required"]:
        if key not in arguments:
            return "missing_argument", f"{name}: missing argument {key!r}"
    for key, value in arguments.items():
        wanted = schema["properties"].get(key)
        if wanted is None:
            return "bad_argument", f"{name}: unknown argument {key!r}"
        # bool is an int in Python, but `lines: true` is a mistake
        if not isinstance(value, _TYPES[wanted["type"]]) or (
            wanted["type"] == "integer" and isinstance(value, bool)
        ):
            return "bad_argument", f"{name}: {key} must be a {wanted['type']}"
        if "minimum" in wanted and value < wanted["minimum"]:
            return "bad_argument", f"{name}: {key} must be at least {wanted['minimum']}"
    return None


# --- the tools: (fs, arguments) -> (text, fact) -------------------------------------------------------------


def _ls(fs: FileSystem, path: str = ".") -> tuple[str, tuple]:
    found = fs.existing(path)
    if fs.is_file(found):
        return path, ("entries", found)
    names = [n + "/" if fs.is_dir(joined(found, n)) else n for n in fs.children(found)]
    return "\n".join(names) or "(empty)", ("entries", found, tuple(names))


def _tree(fs: FileSystem, path: str = ".") -> tuple[str, tuple]:
    found = fs.directory(path)
    text = fs.render(found)
    return text, ("tree", text)


def _head(fs: FileSystem, path: str, lines: int = 10) -> tuple[str, tuple]:
    text = "".join(fs.text_of(path).splitlines(keepends=True)[:lines])
    return text or "(empty file)", ("text", text)


def _cat(fs: FileSystem, path: str) -> tuple[str, tuple]:
    text = fs.text_of(path)
    return text or "(empty file)", ("text", text)


def _wc(fs: FileSystem, path: str) -> tuple[str, tuple]:
    text = fs.text_of(path)
    counts = (text.count("\n"), len(text.split()), len(text))
    return "{} {} {} ".format(*counts) + path, ("counts", fs.resolve(path), counts)


def _find(fs: FileSystem, name: str, path: str = ".") -> tuple[str, tuple]:
    start = fs.directory(path)
    hits = [p for p in fs.below(start) if fnmatchcase(name_of(p), name)]
    cut = len(start.rstrip("/")) + 1
    shown = [f"{path.rstrip('/')}/{p[cut:]}" for p in hits]
    return "\n".join(shown) or "(no matches)", ("found", name, tuple(hits))


def _grep(fs: FileSystem, pattern: str, path: str = ".") -> tuple[str, tuple]:
    start = fs.existing(path)
    files = [start] if fs.is_file(start) else [p for p in fs.below(start) if fs.is_file(p)]
    hits = [(p, line) for p in files for line in (fs.nodes[p] or "").splitlines() if pattern in line]
    shown = [line if fs.is_file(start) else f"{p}:{line}" for p, line in hits]
    return "\n".join(shown) or "(no matches)", ("lines", pattern, tuple(hits))


def _change(verb: str) -> Callable[..., tuple[str, None]]:
    def do(fs: FileSystem, **arguments: Any) -> tuple[str, None]:
        getattr(fs, verb)(**arguments)
        return "ok", None

    return do


_DO: dict[str, Callable[..., tuple[str, tuple | None]]] = {
    "pwd": lambda fs: (fs.cwd, ("cwd", fs.cwd)),
    "ls": _ls,
    "tree": _tree,
    "cat": _cat,
    "head": _head,
    "wc": _wc,
    "find": _find,
    "grep": _grep,
    "cd": _change("change_directory"),
    "mkdir": _change("make_directory"),
    "touch": _change("touch"),
    "mv": _change("move"),
    "cp": _change("duplicate"),
    "rm": _change("remove"),
    "rmdir": _change("remove_directory"),
    "write": lambda fs, path, content: (fs.write(path, content) or "ok", None),
    "append": lambda fs, path, content: (fs.write(path, content, append=True) or "ok", None),
}
