"""One heavy run at a time: an operating-system lock that dies with the process that holds it."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Generator

from tinygpt.core.errors import LockedError
from tinygpt.core.files import cache_dir


@contextlib.contextmanager
def gpu_lock(command: str, *, wait: bool = False, enabled: bool = True) -> Generator[None]:
    """Hold the machine's one training-or-serving lock.

    The lock is `flock` on a file, so a killed holder frees it. The file's text says who holds it: {pid,
    command, started}. `wait` blocks until it is free; `enabled=False` (`--no-lock`) does nothing. Raises
    LockedError naming the holder."""
    if not enabled:
        yield
        return
    import fcntl

    path = cache_dir() / "gpu.lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise LockedError(
                f"another run holds the machine: {_holder(file.read())}",
                hint="wait for it with --wait, or run beside it with --no-lock (both will be slower)",
            ) from error
        file.truncate(0)
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        file.write(json.dumps({"pid": os.getpid(), "command": command, "started": started}))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
            fcntl.flock(file, fcntl.LOCK_UN)


def _holder(text: str) -> str:
    try:
        data = json.loads(text)
        return f"'{data['command']}' (process {data['pid']}, since {data['started']})"
    except (ValueError, KeyError, TypeError):
        return "a process that has not written its name yet"
