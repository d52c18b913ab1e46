"""A function of the person's own, in a process that can be ended: `"_python": "tools.py:weather"`.

The path is relative to the file that names it. The file is read when the tools are, so that a model that can
write it changes nothing; its folder is on the import path unless it lies in the workspace. The function gets
the arguments by name; text that it returns is shown as it is, anything else as JSON, after what it prints. It
runs as the person, with PATH, HOME, LANG and what `_env` names.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Mapping
from typing import Any

from tinygpt.agent import _process
from tinygpt.agent.builtin._job import Place
from tinygpt.agent.tool import Cancel, Outcome, Tool
from tinygpt.agent.tools._entry import Entry
from tinygpt.core.errors import nearest

PROGRAM = """
import json, sys
given = json.load(sys.stdin)
if given["folder"]:
    sys.path.insert(0, given["folder"])
import types
module = types.ModuleType("tools")
module.__file__ = given["file"]
sys.modules["tools"] = module
exec(compile(given["source"], given["file"], "exec", dont_inherit=True), module.__dict__)
found = getattr(module, given["function"])(**given["arguments"])
if found is not None:
    print(found if isinstance(found, str) else json.dumps(found, ensure_ascii=False))
"""
Function = ast.FunctionDef


def build(entry: Entry, place: Place) -> Tool:
    """The tool; its effects are `_effects`, or that it executes something."""
    file, colon, name = str(entry.given).rpartition(":")
    if not isinstance(entry.given, str) or not colon or not file or not name.isidentifier():
        raise entry.fault("'_python' names no function", hint="write it as file.py:function")
    path = entry.folder / file
    try:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
    except (OSError, ValueError, SyntaxError) as error:
        raise entry.fault(f"{path} cannot be read: {error}") from error
    functions = {node.name: node for node in tree.body if isinstance(node, Function)}
    if name not in functions:
        raise entry.fault(f"{path} has no function '{name}'.{nearest(name, functions)}")
    _fits(entry, functions[name])
    if entry.text:
        raise entry.fault("'_text' means nothing for a function", hint="leave it out")
    entry.environment()
    inside = place.workspace.holds(path)
    if inside:
        place.workspace.protect(path)
    fixed = {
        "file": str(path), "source": source, "function": name,
        "folder": "" if inside else str(path.parent.resolve()),
    }  # fmt: skip

    def call(arguments: Mapping[str, Any], seconds: float, cancel: Cancel) -> Outcome:
        return _process.run(
            [sys.executable, "-E", "-P", "-X", "utf8", "-c", PROGRAM], cwd=place.workspace.here(),
            environment=_process.environment(entry.names, place.workspace.root),
            seconds=seconds, cancel=cancel,
            stdin=json.dumps({**fixed, "arguments": dict(arguments)}).encode(),
        )  # fmt: skip

    effects = entry.effects if entry.effects is not None else {"execute"}
    return entry.tool(source="python", effects=effects, call=call)


def _fits(entry: Entry, function: Function) -> None:
    """A fault where the function does not take what the schema lets a model give."""
    taken = function.args
    if taken.posonlyargs or taken.vararg:
        raise entry.fault(f"{function.name} must take its arguments by name", hint="no '/' and no '*args'")
    plain = [a.arg for a in taken.args]
    without = plain[: len(plain) - len(taken.defaults)]
    without += [a.arg for a, default in zip(taken.kwonlyargs, taken.kw_defaults) if default is None]
    known = [*plain, *(a.arg for a in taken.kwonlyargs)]
    for name in entry.properties:
        if name not in known and taken.kwarg is None:
            raise entry.fault(f"{function.name} takes no '{name}'.{nearest(name, known)}")
    if (missing := [name for name in without if name not in entry.required]) != []:
        raise entry.fault(
            f"{function.name} needs '{missing[0]}', and the schema does not require it",
            hint="add it to 'required', or give it a default",
        )
