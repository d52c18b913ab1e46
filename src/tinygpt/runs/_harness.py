"""Environments of other people's benchmarks: made once, pinned, kept in the cache, and run as processes.

A benchmark wants old versions of what we use ourselves, so each has an interpreter and packages of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tinygpt.core.errors import ConfigError, RemoteError
from tinygpt.core.events import Events, Progress
from tinygpt.core.files import cache_dir, sha256, write_json
from tinygpt.core.lock import only_one

DONE = "tinygpt-harness.json"  # written last: an environment without it was not finished
LOOK = 0.5  # seconds between two looks at how far a process is
SHOWN = 300  # letters of what a process said last


@dataclass(frozen=True)
class Harness:
    """A benchmark, and the package that proves that its environment is there. `requirements` lists all that
    is installed, each at one version; `pythons` are versions that its packages have wheels for, the best one
    first."""

    name: str
    package: str
    requirements: Path
    pythons: tuple[str, ...]

    @property
    def command(self) -> str:
        """What a person types to make the environment without us."""
        return (
            f"python{self.pythons[0]} -m venv DIR && DIR/bin/python -m pip install --no-deps "
            f"-r {self.requirements}, then --harness-python DIR/bin/python"
        )


def python_of(harness: Harness, given: Path | None, events: Events) -> Path:
    """The interpreter that has the harness: the given one, or that of our own environment, which is made
    where there is none. ConfigError where it cannot be."""
    if given is not None:
        given = given.absolute()  # not resolved: what a link in a venv leads to knows nothing of the venv
        version_of(harness, given)
        return given
    folder = cache_dir("harness") / f"{harness.name}-{sha256(harness.requirements)[:12]}"
    python = folder / "bin" / "python"

    def busy() -> None:
        events.note(f"another process makes the environment of {harness.name}: waiting for it")

    with only_one(folder.with_name(f"{folder.name}.lock"), busy):
        if not (folder / DONE).is_file():
            _make(harness, folder, python, events)
    return python


def version_of(harness: Harness, python: Path) -> str:
    """The version of the harness that an interpreter has; ConfigError where it has none."""
    code = f"import importlib.metadata as m; print(m.version({harness.package!r}))"
    try:
        found = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, check=False)
    except OSError as error:
        raise ConfigError(
            f"--harness-python {python} cannot be run: {error.strerror}", hint="name an interpreter"
        ) from error
    if found.returncode:
        raise ConfigError(f"{python} has no {harness.package}", hint=harness.command)
    return found.stdout.strip()


def _make(harness: Harness, folder: Path, python: Path, events: Events) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # what a killed process left
    base, uv = _base(harness.pythons), shutil.which("uv")
    if base is None and uv is None:
        raise ConfigError(
            f"{harness.name} needs Python {' or '.join(harness.pythons)} with pip; none is on the PATH",
            hint=f"install one, or uv, which brings its own; or yourself: {harness.command}",
        )
    wanted = [line for line in harness.requirements.read_text("utf-8").splitlines() if line[:1] not in "#"]
    events.note(f"making the environment of {harness.name} once, in {folder}")
    if base:
        venv: list[Any] = [base, "-I", "-m", "venv", "--without-pip", folder]
        install: list[Any] = [
            base, "-I", "-m", "pip", "--python", python, "install", "--progress-bar", "off", "--no-input",
            "--disable-pip-version-check",
        ]  # fmt: skip
    else:
        venv = [uv, "venv", "--python", harness.pythons[0], folder]
        install = [uv, "pip", "install", "--python", python]
    install += ["--no-deps", "-r", harness.requirements]
    log = folder.with_name(f"{folder.name}.log")
    log.unlink(missing_ok=True)
    try:
        run(venv, log, what=f"a venv for {harness.name}")

        def got() -> int:
            text = log.read_text(encoding="utf-8", errors="replace")
            return min(len(wanted), text.count("Collecting "))

        told = watching(events, f"install {harness.name}", got, len(wanted), "packages")
        run(install, log, what=f"the installation of {harness.name}", look=told)
    except RemoteError as error:
        raise ConfigError(error.message, hint=f"try again with a network, or: {harness.command}") from error
    write_json(folder / DONE, {"made_by": "tinygpt", "packages": wanted})


def _base(versions: Sequence[str]) -> str | None:
    """An interpreter of one of the versions that has pip: this one, or one on the PATH."""
    own = [sys.executable] if f"{sys.version_info.major}.{sys.version_info.minor}" in versions else []
    for name in (*own, *filter(None, (shutil.which(f"python{v}") for v in versions))):
        if subprocess.run([name, "-I", "-c", "import pip"], capture_output=True, check=False).returncode == 0:
            return name
    return None


def watching(events: Events, task: str, done: Callable[[], int], total: int, unit: str) -> Callable[[], None]:
    """Tell how far a process is, as `done` sees it."""
    return lambda: events.emit(Progress(task=task, done=done(), total=total, unit=unit))


def run(
    words: Sequence[Any],
    log: Path,
    *,
    what: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    look: Callable[[], None] = lambda: None,
) -> None:
    """A process to its end; `log` gets what it says, `look` is called now and then. RemoteError with its last
    line where it fails. It does not outlive this one's end by an exception."""
    with log.open("ab") as out, ended_with_us():
        process = subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})}, cwd=cwd,
        )  # fmt: skip
        try:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK)
                look()
            look()
        finally:
            stop(process)
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing was said"]
        raise RemoteError(f"{what} failed: {lines[-1][:SHOWN]}", hint=f"all of it: {log}")


@contextlib.contextmanager
def folder(path: Path | None, mark: str, *, resume: bool | None) -> Generator[Path]:
    """Where a harness writes: `path`, which must be new or without results, or with `resume` that of an
    earlier run, whose file `mark` is there; None: a temporary one. `resume` is None where there is no such
    flag."""
    if path is None:
        with tempfile.TemporaryDirectory(prefix="tinygpt-harness-") as made:
            yield Path(made)
        return
    path = path.resolve()
    empty = (path / mark).is_file() and not any(one.is_file() for one in (path / "result").rglob("*"))
    if not (resume or empty) and path.exists() and (not path.is_dir() or any(path.iterdir())):
        way = "" if resume is None else "--resume goes on with it; or "
        raise ConfigError(f"{path} is there already", hint=f"{way}name another folder")
    if resume and not (path / mark).is_file():
        raise ConfigError(f"{path} holds no run to go on with", hint="leave --resume out")
    path.mkdir(parents=True, exist_ok=True)
    yield path


def stop(process: subprocess.Popen[Any], seconds: float = 20.0) -> None:
    """Ask a process to end, then make it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def ended_with_us() -> Generator[None]:
    """Within it the first SIGTERM or SIGHUP is an exception, as SIGINT is, so that processes which were
    started are ended; others of them do not disturb that. One that is ignored (nohup) stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = list[int]()

    def handler(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) == 1:
            raise KeyboardInterrupt

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
