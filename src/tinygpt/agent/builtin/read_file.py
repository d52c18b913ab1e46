"""Read a text file, or a range of its lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

from tinygpt.agent.builtin._job import PATH, Failure, Job, answered, schema
from tinygpt.agent.tool import Outcome

EFFECTS = frozenset({"read"})
PARAMETERS = schema(
    ("path",),
    path=PATH,
    first={"type": "integer", "minimum": 1, "description": "First line, counted from 1."},
    last={"type": "integer", "minimum": 1, "description": "Last line, which is read too."},
)
SHOWN = 256 << 10  # bytes that are given at most
SCANNED = 512 << 20  # bytes that are passed over at most, to reach the first line
PIECE = 1 << 16


def call(arguments: Mapping[str, Any], job: Job) -> Outcome:
    """The lines as they are; a note where some of those asked for are left out."""
    path, first = str(arguments["path"]), int(arguments.get("first") or 1)
    last = int(arguments.get("last") or 0)

    def work() -> str:
        if last and last < first:
            raise Failure(f"'last' ({last}) comes before 'first' ({first})")
        with job.workspace.reading(path) as file:
            return _lines(file, path, first, last, job)

    return answered(work)


def _lines(file: BinaryIO, path: str, first: int, last: int, job: Job) -> str:
    found = bytearray()
    line, scanned = 1, 0
    whole = True
    while piece := file.readline(PIECE):
        if line == 1 and b"\0" in piece:
            raise Failure(f"{path} is no text: it holds a zero byte")
        if last and line > last:
            break
        if line >= first:
            found += piece
        scanned += len(piece)
        line += piece.endswith(b"\n")
        if len(found) > SHOWN or scanned > SCANNED or job.cancel.is_set():
            whole = False
            break
    if line < first and whole and not found:
        raise Failure(f"{path} has {line - 1} whole lines, line {first} is none of them")
    text = bytes(found[:SHOWN]).decode("utf-8", "replace")
    return (
        text if whole else f"{text}\n[... {path} goes on after line {line - 1}: read a range of lines ...]\n"
    )
