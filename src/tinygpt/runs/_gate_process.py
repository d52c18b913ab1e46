"""A program that is watched: killed with all its children when it takes too long or too much memory."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinygpt.core.errors import UnsupportedError
from tinygpt.eval.gate.spec import Budget

EVERY = 0.1  # seconds between two looks at its memory


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit code (of a signal, negative), seconds, peak memory, and why it was
    killed."""

    code: int
    seconds: float
    peak_mb: float
    why: str


def watched(argv: Sequence[str], cwd: Path, env: Mapping[str, str], log: Path, budget: Budget) -> Ended:
    """Run a program to its end, or to that of its budget. It is a process group of its own, and what is left
    of the group is ended with it. OSError where it cannot be started."""
    start = time.monotonic()
    with log.open("wb") as file, _few_processors(budget.sandbox_cpus):
        process = subprocess.Popen(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    ended, said = threading.Event(), list[tuple[int, float]]()

    def wait() -> None:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        peak = usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
        said.append((process.returncode, peak))
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    why, peak, most = "", 0.0, budget.sandbox_ram_mb
    try:
        while not why and not ended.wait(EVERY):
            took = time.monotonic() - start
            if budget.wall_seconds is not None and took > budget.wall_seconds:
                why = f"it was killed: it took longer than the budget's wall_seconds, {budget.wall_seconds:g}"
            elif most is not None and (peak := max(peak, memory_mb(process.pid))) > most:
                why = f"it was killed: it took {peak:.0f} MiB; the budget's sandbox_ram_mb is {most:g}"
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left of the group
            os.killpg(process.pid, signal.SIGKILL)
    ended.wait()
    code, largest = said[0]
    return Ended(code, time.monotonic() - start, max(peak, largest), why)


def memory_mb(group: int) -> float:
    """Resident memory of a process group in MiB."""
    proc, found = Path("/proc"), 0.0
    if not (proc / "self" / "stat").is_file():
        done = subprocess.run(["ps", "-ax", "-o", "pgid=,rss="], capture_output=True, text=True, check=True)
        pairs = (line.split() for line in done.stdout.splitlines())
        return sum(int(rss) for pgid, rss in pairs if int(pgid) == group) / 1024
    page = os.sysconf("SC_PAGE_SIZE")
    for path in proc.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended since
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            found += int(fields[21]) * page if int(fields[2]) == group else 0
    return found / (1 << 20)


@contextlib.contextmanager
def _few_processors(n: float | None) -> Generator[None]:
    """What is started in this block has so many processors: it inherits those of this thread."""
    if n is None:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise UnsupportedError(
            "the budget's sandbox_cpus cannot be kept on this system", hint="leave it out of the budget"
        )
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[: math.ceil(n)])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
