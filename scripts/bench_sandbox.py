"""What the sandbox costs: milliseconds of a run in it over the same program in a bare `python -S`.

    python scripts/bench_sandbox.py [--runs 50]

Each starts an interpreter; they take turns, so that a busy machine slows all. `judge` starts two at once.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from tinygpt.core.sandbox.judge import judge
from tinygpt.core.sandbox.run import run

PROGRAM = "def f(x):\n    return x + 1\nassert f(1) == 2\n"
BARE = [sys.executable, "-s", "-S", "-P", "-X", "utf8", "-c", PROGRAM]


def cost(work: Callable[[], object]) -> tuple[float, float]:
    """(milliseconds on the clock, milliseconds of CPU time of all processes that it started)."""
    start, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * wall, 1000 * (after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=50)
    works: dict[str, Callable[[], object]] = {
        # In a session of its own, too: the scheduler shares time among sessions.
        "bare": lambda: subprocess.run(BARE, env={}, check=True, start_new_session=True),
        "run": lambda: run(PROGRAM),
        "judge": lambda: judge(PROGRAM, "assert f(2) == 3"),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(parser.parse_args().runs):
        for name, work in works.items():
            found[name].append(cost(work))
    heads = (
        ("wall ms: median", 16),
        ("least", 7),
        ("over bare", 10),
        ("CPU ms: median", 16),
        ("over bare", 10),
    )
    print(" ".join(["      ", *(f"{name:>{width}}" for name, width in heads)]))
    bare = [statistics.median(one) for one in zip(*found["bare"])]
    for name, costs in found.items():
        wall, cpu = ([one[i] for one in costs] for i in (0, 1))
        middle = statistics.median(wall), statistics.median(cpu)
        print(
            f"{name:6} {middle[0]:16.1f} {min(wall):7.1f} {middle[0] - bare[0]:10.1f} {middle[1]:16.1f} "
            f"{middle[1] - bare[1]:10.1f}"
        )


if __name__ == "__main__":
    main()
