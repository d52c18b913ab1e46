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
from tinygpt.core.events import Events
from tinygpt.core.files import cache_dir, unwritable

IN_USE = ".in-use"  # the lock of a run directory: there while the run lives


@contextlib.contextmanager
def gpu_lock(
    command: str, *, wait: bool = False, enabled: bool = True, events: Events | None = None
) -> Generator[None]:
    """Hold the machine's one training-or-serving lock.

    `wait` blocks until it is free; `enabled=False` (`--no-lock`) does nothing. Raises LockedError naming the
    holder. Where the file system knows no locks, `events` are told and nothing is held."""
    if not enabled:
        yield
        return
    import fcntl

    path = cache_dir() / "gpu.lock"
    with contextlib.ExitStack() as closing:
        try:
            file = closing.enter_context(path.open("a+", encoding="utf-8"))
            held = _flock(file, wait=wait)
        except OSError as error:
            raise unwritable(path, error) from error
        if held is False:
            raise LockedError(
                f"another run holds the machine: {_holder(file)}",
                hint="wait for it with --wait, or run beside it with --no-lock (both will be slower)",
            )
        if held is None:
            if events is not None:
                events.note(f"nothing keeps other runs off the machine: {path} cannot be locked", "warning")
            yield
            return
        _sign(file, command)
        try:
            yield
        finally:
            file.truncate(0)
            fcntl.flock(file, fcntl.LOCK_UN)  # closing it does not, where a forked child has it open too


@contextlib.contextmanager
def run_lock(folder: Path, command: str) -> Generator[bool]:
    """Be the only writer of a run directory, which is made if need be; LockedError names another one.

    Yields False where the file system knows no locks."""

    def busy(file: TextIO) -> None:
        raise LockedError(
            f"another process writes to {folder}: {_holder(file)}",
            hint="wait until it has ended, or choose another --out",
        )

    made = not folder.exists()
    try:
        with _alone(folder / IN_USE, busy) as (file, held):
            _sign(file, command)
            yield held
    finally:
        if made:
            with contextlib.suppress(OSError):  # it holds something now
                folder.rmdir()


@contextlib.contextmanager
def only_one(path: Path, busy: Callable[[], None]) -> Generator[None]:
    """Be alone in what follows, among processes that name the same file; `busy` is called before waiting.

    The file is there while it is held. Where the file system knows no locks, nobody waits."""
    with _alone(path, lambda _: busy()):
        yield


@contextlib.contextmanager
def _alone(path: Path, busy: Callable[[TextIO], None]) -> Generator[tuple[TextIO, bool]]:
    """The file at `path`, and whether it is locked: not where that cannot be. `busy` is called before waiting
    for another holder, and may raise. The file is removed in the end."""
    while True:
        with contextlib.ExitStack() as closing:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                file = closing.enter_context(path.open("a+", encoding="utf-8"))
                held = _flock(file)
            except OSError as error:
                raise unwritable(path.parent, error) from error
            if held is False:
                busy(file)
                held = _flock(file, wait=True)
            if not _is_at(file, path):
                continue  # its holder removed it: whoever comes next has a file of their own
            try:
                yield file, held is not None
            finally:
                path.unlink(missing_ok=True)  # before the lock goes: whoever has it open then looks again
            return


def _flock(file: TextIO, *, wait: bool = False) -> bool | None:
    """Lock a file until it is closed: True; False when another process holds it; None where the file system
    knows no locks."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            return None
        raise
    return True


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
