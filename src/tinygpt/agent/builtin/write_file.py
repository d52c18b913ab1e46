"""Write a text file, whole or at its end; folders on the way are made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygpt.agent.builtin._job import LARGEST, PATH, Failure, Job, answered, schema
from tinygpt.agent.tool import Outcome

EFFECTS = frozenset({"write"})
PARAMETERS = schema(
    ("path", "content"),
    path=PATH,
    content={"type": "string", "description": "The text."},
    append={"type": "boolean", "description": "Add it to the end of the file instead of replacing the file."},
)


def call(arguments: Mapping[str, Any], job: Job) -> Outcome:
    """The file is replaced in one step, also where text is added to it."""
    path, data = str(arguments["path"]), str(arguments["content"]).encode()

    def work() -> str:
        whole = data
        if arguments.get("append"):
            try:
                whole = job.workspace.read(path, LARGEST) + data
            except FileNotFoundError:
                whole = data
        if len(whole) > LARGEST:
            raise Failure(f"{path} would have more than {LARGEST} bytes")
        new = job.workspace.write(path, whole)
        return f"{'created' if new else 'wrote'} {path}, {len(whole)} bytes\n"

    return answered(work)
