"""One heavy run at a time, and a dead one never blocks."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tinygpt.core.errors import LockedError
from tinygpt.core.lock import gpu_lock

HOLDER = """
import sys, time
from tinygpt.core.lock import gpu_lock
with gpu_lock("train --preset tiny"):
    print("held", flush=True)
    time.sleep(float(sys.argv[1]))
"""


def hold(seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_who_holds_it_and_kill_frees_it() -> None:
    holder = hold(60)
    try:
        with (
            pytest.raises(
                LockedError, match=rf"'train --preset tiny' \(process {holder.pid}, since 2"
            ) as caught,
            gpu_lock("sft"),
        ):
            pytest.fail("two hold the lock")
        assert "--wait" in caught.value.hint and caught.value.exit_code == 2
        with gpu_lock("sft", enabled=False):
            pass
    finally:
        holder.kill()
        holder.wait()
    with gpu_lock("sft"):
        pass
    with gpu_lock("sft again"):
        pass


def test_waiting() -> None:
    holder = hold(0.3)
    began = time.monotonic()
    with gpu_lock("sft", wait=True):
        assert time.monotonic() - began > 0.05
    assert holder.wait() == 0


def test_an_error_inside_frees_it() -> None:
    with pytest.raises(ZeroDivisionError), gpu_lock("a"):
        _ = 1 / 0
    with gpu_lock("b"):
        pass
