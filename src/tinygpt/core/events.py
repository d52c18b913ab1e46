"""Facts of a run as they happen: one dataclass a kind, one JSON object a line, any number of sinks.

The `Events` object is passed in, never global. A run writes `events.jsonl`; tests listen in memory; the
terminal draws progress; a page follows by server-sent events. Kinds are the classes below: `train.step` is
TrainStep."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from tinygpt.core.files import unwritable, write_text

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all facts. `kind` is fixed per class."""

    kind: ClassVar[str] = ""


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """A run begins or resumes at `step` of `steps`; `facts` holds counts worth showing (parameters, tokens,
    rows)."""

    kind: ClassVar[str] = "run.started"
    command: str
    step: int
    steps: int
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TrainStep(Event):
    """One optimizer step: mean loss over the learned tokens, global gradient norm before clipping, tokens
    that were read (padding is none) and how many that is a second, the share of the machine's measured
    product speed that they need (`mfu`, null where it is not known; `run.started` has that speed), most
    memory so far."""

    kind: ClassVar[str] = "train.step"
    step: int
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    tok_s: float
    mem_bytes: int
    metrics: dict[str, float]
    mfu: float | None = None


@dataclass(frozen=True, kw_only=True)
class Spike(Event):
    """Loss or gradient norm of `step` is no finite number, or beyond its limit (null: none yet). Where it is
    not `applied`, the step changed nothing and its batch is skipped."""

    kind: ClassVar[str] = "train.spike"
    step: int
    loss: float
    grad_norm: float
    loss_limit: float
    grad_norm_limit: float
    applied: bool


@dataclass(frozen=True, kw_only=True)
class RolledBack(Event):
    """After `step` weights and optimizer are those after step `to` again; `lr_scale` is the factor on the
    learning rate from now on."""

    kind: ClassVar[str] = "train.rollback"
    step: int
    to: int
    lr_scale: float


@dataclass(frozen=True, kw_only=True)
class Evaluated(Event):
    """Held-out metrics after `step`, by name."""

    kind: ClassVar[str] = "train.eval"
    step: int
    name: str
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Sampled(Event):
    """A text the model wrote after `step`."""

    kind: ClassVar[str] = "train.sample"
    step: int
    prompt: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Saved(Event):
    """A checkpoint directory is whole on disk."""

    kind: ClassVar[str] = "checkpoint.saved"
    step: int
    path: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """Work other than training moves on: `done` of `total` units of a named task (total 0: unknown)."""

    kind: ClassVar[str] = "progress"
    task: str
    done: int
    total: int
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Note(Event):
    """Something a person should know: rows skipped, a fallback taken, a value derived."""

    kind: ClassVar[str] = "note"
    text: str
    level: str = "info"


@dataclass(frozen=True, kw_only=True)
class RunEnded(Event):
    """The run is over: done, interrupted, out of time, or early for want of progress."""

    kind: ClassVar[str] = "run.ended"
    status: str
    step: int
    seconds: float
    metrics: dict[str, float]


KINDS: dict[str, type[Event]] = {cls.kind: cls for cls in Event.__subclasses__()}


class Sink(Protocol):
    """Anything that listens to a run."""

    def write(self, event: Event) -> None: ...

    def close(self) -> None: ...


class Events:
    """Fans events out to its sinks, in order."""

    def __init__(self, *sinks: Sink) -> None:
        self.sinks = list(sinks)

    def emit(self, event: Event) -> None:
        for sink in self.sinks:
            sink.write(event)

    def note(self, text: str, level: str = "info") -> None:
        self.emit(Note(text=text, level=level))

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()


class MemorySink:
    """Keeps every event in a list; used by tests and by commands that report at the end."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def write(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        """Nothing to release."""

    def of(self, kind: type[Event]) -> list[Any]:
        return [e for e in self.events if isinstance(e, kind)]


class FileSink:
    """Appends one JSON object a line. With `resume_at`, facts after that step and a torn last line are
    dropped first."""

    def __init__(self, path: Path, *, resume_at: int | None = None) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if resume_at is not None and path.exists():
                _rewind(path, resume_at)
            # Line-buffered: a killed process loses at most the line it was writing.
            self.file = path.open("a" if resume_at is not None else "w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise unwritable(path, error) from error

    def write(self, event: Event) -> None:
        if isinstance(event, Progress):
            return  # many a second, and of no use afterwards
        try:
            self.file.write(json.dumps(to_json(event), ensure_ascii=False) + "\n")
            if isinstance(event, Saved | RunEnded):
                os.fsync(self.file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from error

    def close(self) -> None:
        try:
            self.file.close()
        except OSError as error:
            raise unwritable(self.path, error) from error


def to_json(event: Event) -> dict[str, Any]:
    """The line of an event: version, time, kind, then its fields; numbers that JSON cannot hold become
    null."""
    return {
        "v": VERSION,
        "t": round(time.time(), 3),
        "kind": event.kind,
        **_finite(dataclasses.asdict(event)),
    }


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines of an events file; a torn last line is left out."""
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _rewind(path: Path, step: int) -> None:
    kept = [r for r in read(path) if r.get("step", 0) <= step and r.get("kind") != RunEnded.kind]
    write_text(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in kept))
