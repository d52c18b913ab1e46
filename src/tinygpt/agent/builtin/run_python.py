"""Run a Python program in a sandbox: standard library only, no network, copies of the files named."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from tinygpt.agent.builtin._job import Failure, Job, answered, schema
from tinygpt.agent.tool import Outcome, Refusal
from tinygpt.core.errors import SandboxError
from tinygpt.core.sandbox.limits import Limits
from tinygpt.core.sandbox.run import Box, drive

EFFECTS = frozenset({"execute"})
PARAMETERS = schema(
    ("code",),
    code={"type": "string", "description": "The program. What it prints is the result."},
    files={
        "type": "array", "maxItems": 20, "items": {"type": "string"},
        "description": "Files of the workspace that it may read, as copies under the same names.",
    },
)  # fmt: skip
LARGEST, TOTAL = 4 << 20, 8 << 20  # bytes of one copy, and of all
TICK = 0.05


def paths(arguments: Mapping[str, Any]) -> list[str]:
    """What it reads of the workspace."""
    return [str(path) for path in arguments.get("files") or ()]


def call(arguments: Mapping[str, Any], job: Job) -> Outcome:
    """stdout and stderr of the program. Refusal where the sandbox is not whole: nothing has run then."""
    copies: dict[str, bytes] = {}

    def read() -> str:
        for path in paths(arguments):
            copies["/".join(job.workspace.parts(path))] = job.workspace.read(path, LARGEST)
        if sum(map(len, copies.values())) > TOTAL:
            raise Failure(f"the files have more than {TOTAL} bytes together")
        return ""

    if (failed := answered(read)).exit_code:
        return failed
    limits = Limits(seconds=job.seconds, cpu_seconds=max(1, round(job.seconds)))
    try:
        box = Box(
            {"role": "program", "source": str(arguments["code"])}, copies, limits, unsafe=False,
        )  # fmt: skip
        _drive(box, job)
        ended = box.outcome()
    except SandboxError as error:
        raise Refusal("sandbox", f"not run: {error.message}") from error
    note = f"{ended.verdict}: {ended.message}\n" if ended.verdict not in ("ok", "failed") else ""
    code = ended.code if ended.code else int(not ended.ok)
    return Outcome(stdout=ended.stdout, stderr=f"{ended.stderr}{note}", exit_code=code, seconds=ended.seconds)


def _drive(box: Box, job: Job) -> None:
    """Until it has ended, or is not wanted any more."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(TICK):
            if job.cancel.is_set():
                box.stop("cancelled")

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        drive(box)
    finally:
        ended.set()
        watching.join()
