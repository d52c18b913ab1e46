"""What a built-in tool gets beside its arguments, and how it says that it failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tinygpt.agent.tool import Cancel, Outcome
from tinygpt.agent.workspace import Workspace

PATH = {"type": "string", "description": "Path of the file, relative to the workspace."}
LARGEST = 8 << 20  # bytes of a file that is read whole, to be changed


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where tools work. test_command: the person's, for run_tests; none: that tool is not there. testers:
    names of the tools that run it."""

    workspace: Workspace
    test_command: tuple[str, ...] = ()
    testers: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, kw_only=True)
class Job:
    """One call: where, how long, and whether it is still wanted."""

    workspace: Workspace
    seconds: float
    cancel: Cancel
    test_command: tuple[str, ...] = ()


class Failure(Exception):
    """The call was made and came to nothing, for a reason that the model may read."""


def schema(required: tuple[str, ...], **properties: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a tool's arguments, which has no others."""
    return {
        "type": "object", "properties": dict(properties), "required": list(required),
        "additionalProperties": False,
    }  # fmt: skip


def answered(work: Callable[[], str]) -> Outcome:
    """What a call came to; a failure of its own is an exit code and a line."""
    try:
        return Outcome(stdout=work())
    except Failure as failure:
        return Outcome(stderr=str(failure), exit_code=1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return Outcome(stderr=f"{where}{error.strerror or error}", exit_code=1)


def decoded(data: bytes, path: str) -> str:
    """The text of a file that is to be written again as it was; Failure where it is none."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Failure(f"{path} is not UTF-8 text (byte {error.start})") from error
    if "\0" in text:
        raise Failure(f"{path} is no text: it holds a zero byte")
    return text
