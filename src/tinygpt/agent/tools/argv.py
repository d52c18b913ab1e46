"""A program and its arguments, as a template: `"_exec_args": ["git", "log", "-n{count}", "--", "{path}"]`.

    {name}       an argument, as a whole or as a part of one; "{name...}" spreads a list, {{ is a brace
    [..., ...]   a list in the list is left out whole where an argument of it is missing

There is no shell, so nothing in a value is read as a command. A value that begins with "-" is refused unless
it stands behind "--" or is glued to a flag ("--depth={n}"), for a program would take it for an option. One
that leads out of the workspace as a path ("/x", "~", "..", a link) is refused too, also behind "=" or ":";
`"_text": ["message"]` names arguments that are text and no paths. The program is found once, when the file is
read; it is never one that lies in the workspace, where the model could replace it. It starts there, as the
person, with PATH, HOME, LANG and what `_env` names. What it opens then it opens by itself: that a file was
swapped for a link since the check is not seen, which the built-in tools do see.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygpt.agent import _process
from tinygpt.agent._template import Field, Template, as_text, fill, given, names
from tinygpt.agent.builtin._job import Place
from tinygpt.agent.tool import Cancel, Outcome, Refusal, Tool
from tinygpt.agent.tools._entry import Entry

FLAG = re.compile(r"-[^-\s=]|--?[^\s=]+=.*", re.DOTALL)  # what may stand before a value that is glued to it
Group = Sequence[Template]  # left out together


def build(entry: Entry, place: Place) -> Tool:
    """The tool; its effects are `_effects`, or that it executes something."""
    groups = _groups(entry)
    program = _program(entry, place)
    entry.environment()

    def check(arguments: Mapping[str, Any]) -> None:
        _guarded(entry, place, arguments)
        list(_rendered(groups, arguments))

    def call(arguments: Mapping[str, Any], seconds: float, cancel: Cancel) -> Outcome:
        check(arguments)
        return _process.run(
            [program, *_rendered(groups, arguments)], cwd=place.workspace.here(),
            environment=_process.environment(entry.names, place.workspace.root),
            seconds=seconds, cancel=cancel,
        )  # fmt: skip

    effects = entry.effects if entry.effects is not None else {"execute"}
    return entry.tool(source="argv", effects=effects, check=check, call=call)


def _groups(entry: Entry) -> list[Group]:
    """The template after the program: each element alone, or those that are left out together."""
    if not isinstance(entry.given, list) or not entry.given or not isinstance(entry.given[0], str):
        raise entry.fault(
            "'_exec_args' must be a list that begins with a program", hint='as ["ls", "{path}"]'
        )
    if names(entry.template(entry.given[0])):
        raise entry.fault("the program itself cannot be an argument", hint="write a tool for each program")
    found: list[Group] = []
    used: set[str] = set()
    for one in entry.given[1:]:
        group = [entry.template(part) for part in (one if isinstance(one, list) else [one])]
        for template in group:
            entry.spelled(template, lists=True)
            _no_open_flag(entry, template)
        wanted = set[str]().union(*map(names, group))
        if isinstance(one, list) and not wanted:
            raise entry.fault(
                f"{one} has no argument, so nothing says when to leave it out", hint="spread it"
            )
        optional = sorted(wanted - entry.required)
        if not isinstance(one, list) and optional:
            raise entry.fault(
                f"'{optional[0]}' may be missing, and {one!r} needs it",
                hint="put it into a list of its own, which is then left out, or make it required",
            )
        used |= wanted
        found.append(group)
    entry.used(used)
    return found


def _no_open_flag(entry: Entry, template: Template) -> None:
    """A value must not say which option it is: "--{name}" would let it."""
    head = template[0] if template else ""
    if isinstance(head, str) and head.startswith("-") and len(template) > 1 and not FLAG.fullmatch(head):
        raise entry.fault(
            f"'{head}{{...' lets a value choose the option", hint="write the flag out: '--name={value}'"
        )


def _program(entry: Entry, place: Place) -> str:
    """The path of the program, which is nothing that the model can change."""
    name = fill(entry.template(entry.given[0]), {})
    path = _process.environment(avoid=place.workspace.root)["PATH"]
    found = shutil.which(str(entry.folder / name) if "/" in name else name, path=path)
    if found is None:
        raise entry.fault(f"there is no program '{name}'", hint="install it, or give its path")
    if place.workspace.holds(Path(found)):
        raise entry.fault(
            f"the program {found} lies in the workspace, where it could be replaced", hint="keep it elsewhere"
        )
    return str(Path(found).absolute())


def _guarded(entry: Entry, place: Place, arguments: Mapping[str, Any]) -> None:
    for name, value in arguments.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and "\0" in one:
                raise Refusal("bad-arguments", f"'{name}' holds a zero byte, which no program can be given")
            if isinstance(one, str) and name not in entry.text:
                place.workspace.guard(one)


def _rendered(groups: Sequence[Group], arguments: Mapping[str, Any]) -> Iterator[str]:
    """The arguments of the program. Refusal for one that would be an option of the model's."""
    behind = False
    for group in groups:
        if not given(arguments, set[str]().union(*map(names, group))):
            continue
        for template in group:
            yield from _one(template, arguments, behind)
            behind = behind or template == ("--",)


def _one(template: Template, arguments: Mapping[str, Any], behind: bool) -> Iterator[str]:
    first = template[0] if template else ""
    spread = isinstance(first, Field) and first.spread
    values = map(as_text, arguments[first.name]) if spread else [fill(template, arguments)]  # type: ignore[union-attr]
    for value in values:
        if value.startswith("-") and not behind and not (isinstance(first, str) and first.startswith("-")):
            raise Refusal(
                "option-injection",
                f"{value[:60]!r} begins with '-' and would be read as an option: give a value that does not",
            )
        yield value
