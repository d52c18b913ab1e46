"""Run a Python program that nobody has read, and say how it ended.

    outcome = run("print(open('/etc/passwd').read())")
    outcome.verdict, outcome.stderr    # 'failed', '... Permission denied ...'

On Linux the program has a root, users, processes and a network of its own (`namespaces.py`), reads nothing
but Python's library and writes nothing but its own /tmp (also by `landlock.py`), and may make few system
calls (`seccomp.py`). On macOS `sandbox-exec` keeps it in (`macos.py`). Where a piece is missing, `run`
refuses with a `SandboxError`; `unsafe=True` runs it with limits of time, memory and files alone, and marks
the outcome.
"""

from __future__ import annotations

import functools
import os
import selectors
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from tinygpt.core.errors import ConfigError, SandboxError
from tinygpt.core.sandbox import macos, namespaces, seccomp, wire
from tinygpt.core.sandbox.limits import STATUSES, Limits, Outcome, Verdict

_ROOT = str(Path(__file__).resolve().parents[3])  # the folder that `tinygpt` lies in
_START = f"import sys; sys.path.append({_ROOT!r}); from tinygpt.core.sandbox import launch; launch.main()"
_GRACE = 10.0  # seconds in which a stopped supervisor ends all and reports
_SIGXCPU = 24
_HINT = "run it on a kernel that has it, or pass --unsafe-no-sandbox, which marks every row"


def run(
    source: str,
    *,
    files: Mapping[str, bytes] | None = None,
    limits: Limits | None = None,
    unsafe: bool = False,
) -> Outcome:
    """Run a program's source as `__main__`.

    `files` lie in its folder under their relative names. Nothing else goes in: stdin is empty, and so is the
    environment. SandboxError where the sandbox is not whole; nothing has then run."""
    box = Box({"role": "program", "source": source}, files or {}, limits or Limits(), unsafe=unsafe)
    drive(box)
    return box.outcome()


def check() -> None:
    """Refuse now what `run` would refuse later: SandboxError names the piece that is missing."""
    outcome = run("")
    if not outcome.ok:
        raise SandboxError(
            f"an empty program ended with '{outcome.verdict}' in the sandbox: {outcome.stderr.strip()}"
        )


@functools.cache
def trees() -> list[str]:
    """Folders that a Python program reads: its library and the system's shared ones. Links are followed."""
    mine = {sysconfig.get_path("stdlib"), f"{sys.base_prefix}/lib", f"{sys.base_exec_prefix}/lib"}
    system = {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"}
    found = sorted({os.path.realpath(path) for path in mine | system if os.path.isdir(path)})
    if any(path.startswith(f"{namespaces.SCRATCH}/") for path in found):
        raise SandboxError(f"Python lies in {namespaces.SCRATCH}, which the sandbox replaces", hint="move it")
    return [path for path in found if not any(path.startswith(f"{other}/") for other in found)]


def _walls(unsafe: bool) -> str:
    """What keeps a program in on this machine: "kernel", "outer" or, where that is wished, "none"."""
    if unsafe:
        return "none"
    if sys.platform == "darwin" and macos.available():
        return "outer"
    if sys.platform == "linux" and seccomp.supported():
        return "kernel"
    machine = f"{sys.platform} on {os.uname().machine}" if hasattr(os, "uname") else sys.platform
    raise SandboxError(f"there is no sandbox for {machine}", hint=_HINT)


def _plain_name(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


class Box:
    """One sandboxed process: what it has written, and how it ended."""

    def __init__(
        self,
        job: dict[str, Any],
        files: Mapping[str, bytes],
        limits: Limits,
        *,
        unsafe: bool,
        keep: tuple[int, ...] = (),
    ) -> None:
        for name in files:
            if not _plain_name(name):
                raise ConfigError(
                    f"a program's file is called {name!r}", hint="names are relative, without '..'"
                )
        self.limits, self.unsafe = limits, unsafe
        walls = _walls(unsafe)
        self.folder = (
            None if walls == "kernel" else os.path.realpath(tempfile.mkdtemp(prefix="tinygpt-sandbox-"))
        )
        scratch = self.folder or namespaces.SCRATCH
        self.texts: dict[str, bytearray] = {
            "stdout": bytearray(),
            "stderr": bytearray(),
            "report": bytearray(),
        }
        self.report: dict[str, Any] = {}
        self.stopped: str = ""  # why the caller's side ended it
        self.ended: float | None = None
        reads, writes = os.pipe()
        command = [sys.executable, "-s", "-S", "-P", "-X", "utf8", "-c", _START]
        if walls == "outer":
            command = macos.command(command, read=[*trees(), _ROOT], write=scratch)
        self.started = time.monotonic()
        self.deadline, self.late_because = self.started + limits.seconds, "time"
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
                env={"PYTHONHASHSEED": "0"}, pass_fds=(writes, *keep), start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(writes)
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.control = self.process.stdin
        self.pipes = {
            "stdout": self.process.stdout,
            "stderr": self.process.stderr,
            "report": os.fdopen(reads, "rb"),
        }
        job |= {
            "walls": walls, "report": writes, "keep": list(keep), "files": dict(files), "scratch": scratch,
            "root": _ROOT, "shown": trees() if walls == "kernel" else [], "limits": asdict(limits),
        }  # fmt: skip
        self._tell(wire.dump(job))

    def _tell(self, data: bytes) -> None:
        try:
            wire.send(self.control.fileno(), data)
        except BrokenPipeError:
            return  # it has ended, and its report or stderr says why

    def finish(self, why: str, seconds: float) -> None:
        """It is not needed any more: stop it, if it has not ended by itself soon."""
        soon = time.monotonic() + seconds
        if soon < self.deadline and not self.stopped:
            self.deadline, self.late_because = soon, why

    def stop(self, why: str) -> None:
        """End it and all that it started; the first reason counts."""
        if not self.stopped:
            self.stopped, self.deadline = why, time.monotonic() + _GRACE
            self.control.close()

    def late(self) -> None:
        """The deadline has passed: that of its time, or that of its end after it was stopped."""
        if self.stopped:
            self.process.kill()  # the namespace ends with its supervisor
        self.stop(self.late_because)

    def read(self, name: str) -> bool:
        """Take what has come on a pipe; False at its end."""
        piece = os.read(self.pipes[name].fileno(), 1 << 16)
        self.texts[name] += piece
        if name == "report":
            self._hear()
        elif len(self.texts["stdout"]) + len(self.texts["stderr"]) > self.limits.output_bytes:
            self.stop("output")
        return bool(piece)

    def _hear(self) -> None:
        heard = self.texts["report"]
        while len(heard) >= 8 and len(heard) >= (end := 8 + int.from_bytes(heard[:8], "little")):
            message = wire.load(bytes(heard[8:end]))
            del heard[:end]
            self.report.update(message)
            if "ask" in message:
                self._map()

    def _map(self) -> None:
        try:
            namespaces.map_users(self.process.pid)
        except OSError as error:
            self.report["missing"] = f"user namespace: its users cannot be named: {error.strerror}"
            self.stop("missing")
        else:
            self._tell(wire.dump("go"))

    def close(self) -> None:
        """Nothing of it is left afterwards."""
        self.control.close()
        try:
            self.process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in self.pipes.values():
            pipe.close()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def outcome(self) -> Outcome:
        """How it ended. SandboxError if it never began, or if its supervisor was ended by somebody else."""
        stdout, stderr = self._texts()
        if "missing" in self.report:
            raise SandboxError(f"the sandbox is not whole: {self.report['missing']}", hint=_HINT)
        if "status" not in self.report:
            raise SandboxError(f"the sandbox's own process has ended: {stderr.strip()[-500:] or 'killed'}")
        code, cpu = self.report["status"], self.report["cpu"]
        verdict, message = self._verdict(code, cpu)
        seconds = (self.ended or time.monotonic()) - self.started
        return Outcome(
            verdict=verdict,
            code=code,
            stdout=stdout,
            stderr=stderr,
            seconds=seconds,
            message=message,
            unsafe=self.unsafe,
        )

    def _texts(self) -> tuple[str, str]:
        left = self.limits.output_bytes
        cut = bytes(self.texts["stdout"][:left])
        rest = bytes(self.texts["stderr"][: left - len(cut)])
        return cut.decode("utf-8", "replace"), rest.decode("utf-8", "replace")

    def _verdict(self, code: int, cpu: float) -> tuple[Verdict, str]:
        limits = self.limits
        if self.report["limit"] == "memory":
            return "memory", f"its processes held more than {limits.memory_bytes} bytes"
        if self.stopped == "output":
            return "output", f"it wrote more than {limits.output_bytes} bytes"
        if self.stopped == "time" and self.report["full"]:
            return "processes", f"it had {limits.processes} processes and threads at the end of its time"
        if self.stopped == "time":
            return "time", f"it ran for {limits.seconds:g} seconds"
        if code == -_SIGXCPU or cpu >= limits.cpu_seconds:
            return "cpu", f"it used {cpu:.1f} of {limits.cpu_seconds} seconds of CPU time"
        if self.stopped:
            return "failed", self.stopped
        if code < 0:
            return "crashed", f"signal {-code}"
        if code in STATUSES:
            return STATUSES[code], f"an error of its own says so (exit status {code})"
        return ("ok", "") if code == 0 else ("failed", f"exit status {code}")


def drive(*boxes: Box, ended: Callable[[Box], None] = lambda box: None) -> None:
    """Read from all until all have ended; nothing of them is left, also where this is interrupted."""
    try:
        with selectors.DefaultSelector() as selector:
            open_ = {box: len(box.pipes) for box in boxes}
            for box in boxes:
                for name, pipe in box.pipes.items():
                    selector.register(pipe, selectors.EVENT_READ, (box, name))
            while any(open_.values()):
                waiting = [box for box in boxes if open_[box]]
                until = min(box.deadline for box in waiting)
                for key, _ in selector.select(max(0.0, until - time.monotonic())):
                    box, name = key.data
                    if not box.read(name):
                        selector.unregister(key.fileobj)
                        open_[box] -= 1
                        if not open_[box]:
                            box.ended = time.monotonic()
                            ended(box)
                for box in waiting:
                    if open_[box] and time.monotonic() >= box.deadline:
                        box.late()
    finally:
        for box in boxes:
            box.close()
