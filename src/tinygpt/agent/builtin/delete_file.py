"""Delete one file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygpt.agent.builtin._job import PATH, Job, answered, schema
from tinygpt.agent.tool import Outcome

EFFECTS = frozenset({"delete"})
PARAMETERS = schema(("path",), path=PATH)


def call(arguments: Mapping[str, Any], job: Job) -> Outcome:
    """Folders and links are not deleted."""
    path = str(arguments["path"])

    def work() -> str:
        job.workspace.remove(path)
        return f"deleted {path}\n"

    return answered(work)
