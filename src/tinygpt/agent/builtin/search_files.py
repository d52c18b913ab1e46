"""Find lines of files that hold a text or match a regular expression."""

from __future__ import annotations

import fnmatch
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from tinygpt.agent import _process
from tinygpt.agent.builtin._job import Failure, Job, answered, schema
from tinygpt.agent.tool import Outcome, Refusal

EFFECTS = frozenset({"read"})
PARAMETERS = schema(
    ("text",),
    text={"type": "string", "minLength": 1, "maxLength": 1000, "description": "What to look for."},
    regex={"type": "boolean", "description": "Whether it is a regular expression, of Python's kind."},
    path={"type": "string", "description": "Folder to look in; the whole workspace by default."},
    pattern={"type": "string", "description": "Only files with such a name, as *.py."},
)
MOST = 200  # lines found
LONGEST = 300  # letters of a line that are shown
LARGEST, TOTAL, FILES = 1 << 20, 16 << 20, 20_000  # bytes of one file and of all, and how many files
# An expression may need for ever, and nothing stops Python's `re`: it runs in a process that can be ended.
PROGRAM = """
import json, re, sys
given = json.load(sys.stdin)
try:
    found = re.compile(given["text"])
except (re.error, RecursionError, OverflowError) as error:
    sys.exit(f"not a regular expression: {error}")
left = given["most"]
for name, text in given["files"]:
    for number, line in enumerate(text.split("\\n"), 1):
        if found.search(line):
            print(json.dumps([name, number, line[: given["longest"]]]))
            left -= 1
            if not left:
                sys.exit(0)
"""


def call(arguments: Mapping[str, Any], job: Job) -> Outcome:
    """Lines as path:number:line. Files that are too large, no text or not to be opened are counted."""
    text, skipped = str(arguments["text"]), [0]

    def work() -> str:
        files = _files(arguments, job, skipped)
        lines = _matched(text, list(files), job) if arguments.get("regex") else list(_held(text, files))
        shown = "".join(f"{path}:{number}:{line}\n" for path, number, line in lines[:MOST])
        more = f"[... there may be more than these {MOST} ...]\n" if len(lines) >= MOST else ""
        passed = f"[{skipped[0]} files were passed over: too large or no text]\n" if skipped[0] else ""
        return (shown or "no line was found\n") + more + passed

    return answered(work)


def _files(arguments: Mapping[str, Any], job: Job, skipped: list[int]) -> Iterator[tuple[str, str]]:
    path, pattern = str(arguments.get("path") or "."), str(arguments.get("pattern") or "*")
    total = seen = 0
    for item in job.workspace.walk(path, deep=True):
        if job.cancel.is_set():
            raise Failure("cancelled")
        if item.kind != "file" or not fnmatch.fnmatchcase(item.path.rpartition("/")[2], pattern):
            continue
        seen += 1
        if seen > FILES or total > TOTAL:
            raise Failure(f"more than {FILES} files or {TOTAL} bytes: name a folder or a pattern")
        try:
            data = job.workspace.read(item.path, LARGEST)
        except (OSError, Refusal):
            skipped[0] += 1
            continue
        if b"\0" in data:
            skipped[0] += 1
            continue
        total += len(data)
        yield item.path, data.decode("utf-8", "replace")


def _held(text: str, files: Iterator[tuple[str, str]]) -> Iterator[tuple[str, int, str]]:
    n = 0
    for path, content in files:
        if text not in content:
            continue
        for number, line in enumerate(content.split("\n"), 1):
            if text in line:
                yield path, number, line[:LONGEST]
                n += 1
                if n >= MOST:
                    return


def _matched(text: str, files: list[tuple[str, str]], job: Job) -> list[tuple[str, int, str]]:
    given = {"text": text, "files": files, "most": MOST, "longest": LONGEST}
    outcome = _process.run(
        [sys.executable, "-I", "-S", "-X", "utf8", "-c", PROGRAM], cwd=job.workspace.here(), environment={},
        seconds=job.seconds, cancel=job.cancel, stdin=json.dumps(given).encode(),
    )  # fmt: skip
    if outcome.exit_code == _process.LATE:
        raise Failure(f"the search took longer than {job.seconds:g} seconds: use a simpler expression")
    if outcome.exit_code:
        raise Failure(outcome.stderr.strip()[-300:])
    return [tuple(json.loads(line)) for line in outcome.stdout.splitlines()]
