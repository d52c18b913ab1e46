"""One heavy run at a time, and one writer of a run: operating-system locks that die with their process.

A lock is `flock` on a file, so a killed holder frees it. The file's text says who holds it: {pid, command,
started}.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TextIO

from tinygpt.core.errors import LockedError
from tinygpt.core.files import cache_dir, unwritable

IN_USE = ".in-use"  # the lock of a run directory: there while the run lives


@contextlib.contextmanager
def gpu_lock(command: str, *, wait: bool = False, enabled: bool = True) -> Generator[None]:
    """Hold the machine's one training-or-serving lock.

    `wait` blocks until it is free; `enabled=False` (`--no-lock`) does nothing. Raises LockedError naming the
    holder."""
    if not enabled:
        yield
        return
    import fcntl

    with (cache_dir() / "gpu.lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(
                f"another run holds the machine: {_holder(file)}",
                hint="wait for it with --wait, or run beside it with --no-lock (both will be slower)",
            ) from error
        _sign(file, command)
        try:
            yield
        finally:
            file.truncate(0)
            fcntl.flock(file, fcntl.LOCK_UN)


@contextlib.contextmanager
def run_lock(folder: Path, command: str) -> Generator[bool]:
    """Be the only writer of a run directory, which is made if need be; LockedError names another one.

    Yields False where the file system knows no locks."""
    path, made = folder / IN_USE, not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file, held = _only(path, folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    with file:
        try:
            _sign(file, command)
            yield held
        finally:
            path.unlink(missing_ok=True)  # before the lock goes: whoever has it open then looks again
            if made:
                with contextlib.suppress(OSError):  # it holds something now
                    folder.rmdir()


@contextlib.contextmanager
def only_one(path: Path, busy: Callable[[], None]) -> Generator[None]:
    """Be alone in what follows, among processes that name the same file; `busy` is called before waiting.

    The file is there while it is held. Where the file system knows no locks, nobody waits."""
    import fcntl

    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise unwritable(path, error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                busy()
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                    raise
            if not _is_at(file, path):
                continue  # its holder removed it: whoever comes next has a file of their own
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _only(path: Path, folder: Path) -> tuple[TextIO, bool]:
    """The file at `path`, locked (or not, where that cannot be)."""
    import fcntl

    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            with file:
                raise LockedError(
                    f"another process writes to {folder}: {_holder(file)}",
                    hint="wait until it has ended, or choose another --out",
                ) from error
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                return file, False
            file.close()
            raise
        if _is_at(file, path):
            return file, True
        file.close()  # its holder removed it and ended after it was opened here


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sign(file: TextIO, command: str) -> None:
    """Write who holds the lock. On a full disk it stays unsigned, and whatever is written next says why."""
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    signature = json.dumps({"pid": os.getpid(), "command": command, "started": started})
    with contextlib.suppress(OSError):  # past the file's buffer, which would be written again when it closes
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), signature.encode())


def _holder(file: TextIO) -> str:
    file.seek(0)
    try:
        data = json.loads(file.read())
        return f"'{data['command']}' (process {data['pid']}, since {data['started']})"
    except (ValueError, KeyError, TypeError):
        return "a process that has not written its name yet"
