"""Programs that tools start: a bare environment, a group of their own, an end in time, and capped output."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tinygpt.agent.tool import Cancel, Outcome

BARE = ("HOME", "LANG")  # and a cleaned PATH: all that a program gets unasked
TICK = 0.05  # seconds between two looks at the clock, the person's wish and the program
GRACE = 2.0  # seconds from SIGTERM to SIGKILL, and for pipes that others hold open after the program's end
LATE, CANCELLED, MISSING = 124, 130, 127  # exit codes, as of `timeout`, a shell after Ctrl-C, and a shell


def environment(names: Iterable[str] = (), avoid: Path | None = None) -> dict[str, str]:
    """PATH, HOME, LANG and the variables named. PATH without folders below `avoid`, where a model may put a
    program of its own, and without relative ones."""
    found = {name: os.environ[name] for name in (*BARE, *names) if name in os.environ}
    if "PATH" not in found:
        places = os.environ.get("PATH", os.defpath).split(os.pathsep)
        found["PATH"] = os.pathsep.join(p for p in places if os.path.isabs(p) and not _below(p, avoid))
    return found


def _below(place: str, folder: Path | None) -> bool:
    return folder is not None and Path(place).resolve().is_relative_to(folder)


class _Kept:
    """The beginning and the end of what a pipe gave, within a bound of bytes."""

    def __init__(self, most: int) -> None:
        self.head, self.tail, self.half, self.n = bytearray(), deque[bytes](), most // 2, 0
        self._held = 0

    def take(self, piece: bytes) -> None:
        self.n += len(piece)
        room = self.half - len(self.head)
        self.head += piece[:room]
        if rest := piece[max(room, 0) :]:
            self.tail.append(rest)
            self._held += len(rest)
            while self._held - len(self.tail[0]) >= self.half:
                self._held -= len(self.tail.popleft())

    def text(self) -> tuple[str, int]:
        """What was kept, and how many bytes were not."""
        tail = b"".join(self.tail)[-self.half :] if self.half else b""
        cut = self.n - len(self.head) - len(tail)
        marker = f"\n[... {cut} bytes left out ...]\n" if cut else ""
        return f"{self.head.decode('utf-8', 'replace')}{marker}{tail.decode('utf-8', 'replace')}", cut


def run(
    command: Sequence[str],
    *,
    cwd: str,
    environment: Mapping[str, str],
    seconds: float,
    cancel: Cancel,
    stdin: bytes = b"",
    most: int = 1 << 20,
) -> Outcome:
    """Start a program and wait for its end. Its group gets SIGTERM after `seconds` or where the person wants
    no more, and SIGKILL soon after; whatever is left of the group when it has ended is killed too."""
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            list(command), cwd=cwd, env=dict(environment), start_new_session=True,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        return Outcome(stderr=f"{command[0]} cannot be started: {error.strerror}", exit_code=MISSING)
    kept = {"stdout": _Kept(most), "stderr": _Kept(most)}
    try:
        why = _attend(process, kept, stdin, started + seconds, cancel)
    finally:
        _signal(process, signal.SIGKILL)  # also those that it left behind
        code = process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was still to be written has no reader
                    pipe.close()
    (stdout, cut), (stderr, more) = kept["stdout"].text(), kept["stderr"].text()
    if why:
        note = f"stopped after {seconds:g} seconds" if why == LATE else "stopped, since it was cancelled"
        stderr = f"{stderr}{note}\n"
    spent = time.monotonic() - started
    return Outcome(stdout=stdout, stderr=stderr, exit_code=why or code, seconds=spent, cut=cut + more)


def _attend(
    process: subprocess.Popen[bytes], kept: Mapping[str, _Kept], stdin: bytes, end: float, cancel: Cancel
) -> int:
    """Read and write until all is said; the exit code of an end that was not the program's own, else 0."""
    why, killed, gone = 0, False, 0.0
    with selectors.DefaultSelector() as selector:
        for name, pipe in (("stdout", process.stdout), ("stderr", process.stderr)):
            assert pipe is not None
            selector.register(pipe, selectors.EVENT_READ, name)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE, "stdin")
        while selector.get_map() or process.poll() is None:
            for key, _ in selector.select(TICK):
                if key.data == "stdin":
                    stdin = _written(key.fd, stdin)
                    open_ = bool(stdin)
                else:
                    piece = os.read(key.fd, 1 << 16)
                    kept[key.data].take(piece)
                    open_ = bool(piece)
                if not open_:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
            if not selector.get_map():
                with contextlib.suppress(subprocess.TimeoutExpired):  # its time is looked at below
                    process.wait(TICK)
            now = time.monotonic()
            if not why and (cancel.is_set() or now >= end):
                why, end = CANCELLED if cancel.is_set() else LATE, now + GRACE
                _signal(process, signal.SIGTERM)
            elif why and not killed and now >= end:
                killed = True
                _signal(process, signal.SIGKILL)
            if process.poll() is not None:
                gone = gone or now
                if now - gone >= GRACE or (why and now - gone >= TICK):
                    break  # others hold its pipes open
    return why


def _written(fd: int, data: bytes) -> bytes:
    """What is left to write; nothing where nobody reads."""
    try:
        return data[os.write(fd, data[: 1 << 16]) :]
    except BrokenPipeError:
        return b""


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """To the whole group, whose number is that of its first process."""
    with contextlib.suppress(
        ProcessLookupError, PermissionError
    ):  # none of it is left; macOS says the latter
        os.killpg(process.pid, number)
