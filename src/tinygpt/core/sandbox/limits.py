"""What a program may use, and how its run ended: each limit has a verdict of its own."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from tinygpt.core.errors import ConfigError

# ok: ended with status 0 (or passed its tests). failed: an exception, another status, a wrong value.
# crashed: a signal. The others name the limit that was met.
Verdict = Literal["ok", "failed", "crashed", "time", "cpu", "memory", "output", "processes", "disk"]

# Statuses with which the program's side names the limit behind an error that nobody caught. A program may
# end with them on its own: it then has a verdict that is no pass, as with any other status but 0.
STATUSES: dict[int, Verdict] = {97: "memory", 98: "disk", 99: "processes"}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one run may use."""

    seconds: Annotated[float, "wall time, from the start of the process"] = 10.0
    cpu_seconds: Annotated[int, "CPU time of one process"] = 10
    memory_bytes: Annotated[int, "address space of one process; what all hold together"] = 512 << 20
    output_bytes: Annotated[int, "stdout and stderr together"] = 1 << 20
    processes: Annotated[int, "processes and threads at a time"] = 32
    file_bytes: Annotated[int, "all files together; they live in memory"] = 16 << 20

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ConfigError(f"the sandbox's {field.name} is {value}", hint="a limit is more than 0")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended. `stdout` and `stderr` are cut at the output limit; `message` says why in one line."""

    verdict: Verdict
    code: int  # the exit status, or minus the signal
    stdout: str
    stderr: str
    seconds: float
    message: str = ""
    unsafe: bool = False  # it ran without the kernel sandbox

    @property
    def ok(self) -> bool:
        return self.verdict == "ok"
