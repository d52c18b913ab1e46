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
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tinygpt.core import resident
from tinygpt.core.errors import UnsupportedError
from tinygpt.eval.gate.spec import Budget

EVERY = 0.1  # seconds between two looks at its memory
TAIL = 500  # letters of what a crashed program wrote
GRACE = 5.0  # seconds that a program has to end by itself where the gate is interrupted
# Hears a process group, and ends it when who told it is gone, even by SIGKILL, without a second line.
GUARD = 'read -r group && { read -r _ || kill -KILL "-$group"; }'


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit code (of a signal, negative), seconds, peak memory, and why it was
    killed."""

    code: int
    seconds: float
    peak_mb: float
    why: str


def watched(
    argv: Sequence[str],
    cwd: Path | None,
    env: Mapping[str, str],
    log: Path,
    budget: Budget,
    *,
    begun: Callable[[], float] = lambda: 0.0,
) -> Ended:
    """Run a program to its end, or to that of its budget. It is a process group of its own, and what is left
    of the group is ended with it, also where this process is interrupted or killed. `begun`: since when its
    time counts (monotonic), where that is later than its start; it is called at every look. OSError where it
    cannot be started."""
    with _guarded() as guard:
        return _watched(argv, cwd, env, log, budget, begun, guard)


def _watched(
    argv: Sequence[str],
    cwd: Path | None,
    env: Mapping[str, str],
    log: Path,
    budget: Budget,
    begun: Callable[[], float],
    guard: Callable[[int], None],
) -> Ended:
    start, own = time.monotonic(), resident.peak() / (1 << 20)
    with log.open("wb") as file, _few_processors(budget.sandbox_cpus):
        process = subprocess.Popen(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    ended, said = threading.Event(), list[tuple[int, float]]()

    def wait() -> None:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.append((process.returncode, mib(usage.ru_maxrss)))
        ended.set()

    why, peak, most = "", 0.0, budget.sandbox_ram_mb
    try:
        guard(process.pid)
        threading.Thread(target=wait, daemon=True).start()
        while not why and not ended.wait(EVERY):
            took = time.monotonic() - max(start, begun())
            if budget.wall_seconds is not None and took > budget.wall_seconds:
                why = f"it was killed: it took longer than the budget's wall_seconds, {budget.wall_seconds:g}"
            elif (peak := max(peak, memory_mb(process.pid))) > (math.inf if most is None else most):
                why = f"it was killed: it took {peak:.0f} MiB; the budget's sandbox_ram_mb is {most:g}"
    except BaseException:
        _tell(process.pid, signal.SIGTERM)
        ended.wait(GRACE)
        raise
    finally:
        _tell(process.pid, signal.SIGKILL)
    ended.wait()
    code, largest = said[0]
    # Linux begins a child's largest at what this process had taken: up to that it says nothing.
    return Ended(code, time.monotonic() - start, max(peak, largest) if largest > own else peak, why)


def _tell(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left of the group
        os.killpg(group, number)


@contextlib.contextmanager
def _guarded() -> Generator[Callable[[int], None]]:
    """The process group that is told in this block ends with this process, whatever ends that."""
    guard = subprocess.Popen(
        ["/bin/sh", "-c", GUARD], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    pipe = guard.stdin
    assert pipe is not None

    def tell(group: int) -> None:
        pipe.write(f"{group}\n".encode())
        pipe.flush()

    try:
        yield tell
    finally:
        guard.communicate(b"ended\n")


def spent(seconds: float, peak_mb: float, budget: Budget) -> list[str]:
    """What a suite that has ended took too much of."""
    found: list[str] = []
    if budget.wall_seconds is not None and seconds > budget.wall_seconds:
        found.append(f"it took {seconds:.1f} s; the budget's wall_seconds is {budget.wall_seconds:g}")
    if budget.sandbox_ram_mb is not None and peak_mb > budget.sandbox_ram_mb:
        most = budget.sandbox_ram_mb
        found.append(f"it took {peak_mb:.0f} MiB; the budget's sandbox_ram_mb is {most:g}")
    return found


def how(code: int, log: Path) -> str:
    """How a program ended that should not have, with the end of what it wrote."""
    tail = log.read_text(encoding="utf-8", errors="replace").strip()[-TAIL:]
    if code == -signal.SIGKILL and not tail:
        tail = "a machine that is out of memory does that"
    end = f"exit code {code}" if code >= 0 else f"signal {-code}"
    return f"it ended with {end}" + (f": {tail}" if tail else "")


def mib(maxrss: int) -> float:
    """Peak memory of a process in MiB: Linux counts KiB, macOS bytes."""
    return maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


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
