"""One heavy run at a time, one writer of a run directory, and a dead one never blocks."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinygpt.core.errors import DataError, LockedError
from tinygpt.core.events import Events, MemorySink, Note
from tinygpt.core.lock import IN_USE, gpu_lock, only_one, run_lock

HOLDER = """
import sys, time
from pathlib import Path
from tinygpt.core.lock import gpu_lock, run_lock
folder = sys.argv[2]
with run_lock(Path(folder), "train") if folder else gpu_lock("train --preset tiny"):
    print("held", flush=True)
    time.sleep(float(sys.argv[1]))
"""


def hold(seconds: float, folder: object = "") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(seconds), str(folder)], stdout=subprocess.PIPE, text=True
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


def test_one_writer_of_a_run_directory(tmp_path: Path) -> None:
    run = tmp_path / "deep" / "run"
    holder = hold(60, run)
    try:
        with (
            pytest.raises(
                LockedError, match=rf"writes to {run}: 'train' \(process {holder.pid}, since 2"
            ) as caught,
            run_lock(run, "sft"),
        ):
            pytest.fail("two hold the lock")
        assert "another --out" in caught.value.hint and caught.value.exit_code == 2
        with run_lock(tmp_path / "other", "sft"):
            pass
    finally:
        holder.kill()
        holder.wait()
    assert (run / IN_USE).exists()
    for _ in range(2):
        with run_lock(run, "sft") as held:
            assert held and str(os.getpid()) in (run / IN_USE).read_text()
        assert not list(run.iterdir()), "nothing is left in the directory"


def test_a_lock_that_was_removed_while_it_was_awaited_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder ends between our opening and our locking: a lock on the removed file would be no lock."""
    take = fcntl.flock

    def slowly(file: object, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", take)
        (tmp_path / IN_USE).unlink()
        take(file, how)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", slowly)
    with run_lock(tmp_path, "a"), pytest.raises(LockedError), run_lock(tmp_path, "b"):
        pytest.fail("two hold the lock")


def test_a_full_disk_leaves_no_directory_and_does_not_speak_for_what_is_written_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DataError, match="run.json"), run_lock(tmp_path / "run", "a") as held:
        assert held
        raise DataError("cannot write run.json")
    assert not list(tmp_path.iterdir())
    with gpu_lock("b"):
        pass


def test_where_nothing_can_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: MemorySink
) -> None:
    code = errno.ENOSYS

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with run_lock(tmp_path, "a") as held:
        assert not held
    code, done = errno.ENOLCK, []
    with gpu_lock("a", events=Events(memory)), only_one(tmp_path / "b", lambda: done.append("busy")):
        done.append("inside")
    assert done == ["inside"] and not (tmp_path / "b").exists()
    (note,) = memory.of(Note)
    assert note.level == "warning" and "gpu.lock cannot be locked" in note.text
    code = errno.EIO
    for lock in (run_lock(tmp_path, "a"), gpu_lock("a")):
        with pytest.raises(DataError, match="cannot write"), lock:
            pytest.fail("it was locked")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="Not a directory"), run_lock(tmp_path / "file" / "run", "a"):
        pytest.fail("it was locked")
