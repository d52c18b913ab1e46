"""Replace one exact piece of a text file, which must be there exactly once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygpt.agent.builtin._job import LARGEST, PATH, Failure, Job, answered, decoded, schema
from tinygpt.agent.tool import Outcome

EFFECTS = frozenset({"read", "write"})
PARAMETERS = schema(
    ("path", "old", "new"),
    path=PATH,
    old={"type": "string", "minLength": 1, "description": "The text to replace, exactly as it stands."},
    new={"type": "string", "description": "The text to put in its place."},
)


def call(arguments: Mapping[str, Any], job: Job) -> Outcome:
    """A text that is missing, or there more than once, changes nothing and is a failure."""
    path, old, new = (str(arguments[name]) for name in ("path", "old", "new"))

    def work() -> str:
        text = decoded(job.workspace.read(path, LARGEST), path)
        if (n := text.count(old)) != 1:
            what = "is not there" if n == 0 else f"is there {n} times: give more of what stands around it"
            raise Failure(f"{path} is unchanged: the text to replace {what}")
        at = text.index(old)
        whole = f"{text[:at]}{new}{text[at + len(old) :]}".encode()
        if len(whole) > LARGEST:
            raise Failure(f"{path} would have more than {LARGEST} bytes")
        job.workspace.write(path, whole)
        return f"changed {path} at line {text.count(chr(10), 0, at) + 1}\n"

    return answered(work)
