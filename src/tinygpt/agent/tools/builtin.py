"""A tool of the house, by its name: `"_builtin": "read_file"`.

run_tests takes its command from the person: `"_builtin": {"name": "run_tests", "command": ["pytest", "-q"]}`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from tinygpt.agent.builtin._job import Job, Place
from tinygpt.agent.tool import ASKED, Cancel, Outcome, Tool
from tinygpt.agent.tools._entry import Entry
from tinygpt.core.errors import ConfigError
from tinygpt.core.family import Family

BUILTIN = Family("tinygpt.agent.builtin", verb="call")
TESTS = "run_tests"


def build(entry: Entry, place: Place) -> Tool:
    """The tool of the house under the entry's name and description. It has parameters and effects of its own;
    effects that the entry names come on top."""
    given = entry.given if isinstance(entry.given, Mapping) else {"name": entry.given}
    if not isinstance(given.get("name"), str):
        raise entry.fault("'_builtin' must be a name", hint=f"known: {', '.join(BUILTIN.names())}")
    try:
        module = BUILTIN.load(given["name"])
    except ConfigError as error:
        raise entry.fault(error.message, hint=error.hint) from error
    if entry.parameters is not None and entry.parameters != module.PARAMETERS:
        raise entry.fault("a built-in tool has parameters of its own", hint="leave 'parameters' out")
    if entry.names or entry.text:
        raise entry.fault("'_env' and '_text' mean nothing for a built-in tool", hint="leave them out")
    command = _command(entry, given, place)
    writes = bool(module.EFFECTS & (ASKED - {"execute"}))
    paths = getattr(module, "paths", _path)

    def check(arguments: Mapping[str, Any]) -> None:
        for path in paths(arguments):
            place.workspace.check(path, write=writes)

    def call(arguments: Mapping[str, Any], seconds: float, cancel: Cancel) -> Outcome:
        return module.call(
            arguments,
            Job(workspace=place.workspace, seconds=seconds, cancel=cancel, test_command=command),
        )

    return Tool(
        name=entry.name, description=entry.description or BUILTIN.summary(given["name"]),
        parameters=module.PARAMETERS, effects=module.EFFECTS | (entry.effects or frozenset()),
        seconds=entry.seconds, source="builtin", extra=entry.extra, check=check, call=call,
    )  # fmt: skip


def _command(entry: Entry, given: Mapping[str, Any], place: Place) -> tuple[str, ...]:
    """What run_tests runs; nothing for the others."""
    odd = sorted(set(given) - {"name", "command"})
    if odd or ("command" in given and given["name"] != TESTS):
        raise entry.fault(f"'{given['name']}' has no option '{(odd or ['command'])[0]}'")
    if given["name"] != TESTS:
        return ()
    if "command" not in given:
        place.testers.append(entry.name)
    command = given.get("command", list(place.test_command))
    if isinstance(command, str):
        try:
            command = shlex.split(command)
        except ValueError as error:
            raise entry.fault(f"the command {command!r} cannot be read: {error}") from error
    if not isinstance(command, list) or not command or not all(isinstance(one, str) for one in command):
        raise entry.fault(
            "run_tests needs the command to run", hint='"command": ["pytest", "-q"], or --test-command'
        )
    return tuple(command)


def _path(arguments: Mapping[str, Any]) -> list[str]:
    return [str(arguments["path"])] if arguments.get("path") is not None else []
