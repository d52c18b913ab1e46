"""List a folder of the workspace; folders end in a slash."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

from tinygpt.agent.builtin._job import Failure, Job, answered, schema
from tinygpt.agent.tool import Outcome

EFFECTS = frozenset({"read"})
PARAMETERS = schema(
    (),
    path={"type": "string", "description": "Folder to list; the workspace itself by default."},
    recursive={"type": "boolean", "description": "Also list what lies below its folders."},
    pattern={"type": "string", "description": "Only files with such a name, as *.py."},
)
MOST = 2000  # lines
SEEN = 200_000  # entries that are looked at
LONGEST = 1024  # letters of a pattern


def call(arguments: Mapping[str, Any], job: Job) -> Outcome:
    """One line an entry, by name; a note where there are more."""
    path, pattern = str(arguments.get("path") or "."), arguments.get("pattern")

    def work() -> str:
        if pattern is not None and len(pattern) > LONGEST:
            raise Failure(f"the pattern has more than {LONGEST} letters, and no name has")
        lines: list[str] = []
        for n, item in enumerate(job.workspace.walk(path, deep=bool(arguments.get("recursive")))):
            if len(lines) >= MOST or n >= SEEN or job.cancel.is_set():
                return "".join(lines) + f"[... more than {len(lines)} lines: list a folder inside ...]\n"
            name = item.path.rpartition("/")[2]
            if pattern is None or (item.kind != "folder" and fnmatch.fnmatchcase(name, str(pattern))):
                note = {"folder": "/", "link": " (link, not followed)", "other": " (no file)"}
                lines.append(f"{item.path}{note.get(item.kind, '')}\n")
        return "".join(lines) or "nothing is there\n"

    return answered(work)
