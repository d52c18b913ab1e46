"""Who is asked, a model of this machine or a server, and where what suites find is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core import config as configs
from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.core.rows import EvalRow, append_records, beside, read_rows, write_rows
from tinygpt.eval.endpoint import Endpoint
from tinygpt.eval.playback import Playback
from tinygpt.runs import _pieces
from tinygpt.runs._adapters import Adapters
from tinygpt.runs._local_endpoint import LocalEndpoint

LOCAL = ("adapter",)  # what no server is told
NOWHERE = Path()  # the model where a server is asked for the first one that it lists


@dataclass(frozen=True, kw_only=True)
class Answering(Adapters):
    """Settings of who answers."""

    REMOTE = ("batch", "seconds", "tries")  # what says nothing to a model of this machine

    model: Annotated[Path, "A model, run or specialist directory; with --url the server's name for it."]
    url: Annotated[str, "An OpenAI-compatible server that is asked, as http://127.0.0.1:8080/v1."] = ""
    batch: Annotated[int, "With --url: requests made at once."] = 8
    seconds: Annotated[float, "With --url: longest time for an answer."] = 600.0
    tries: Annotated[int, "With --url: how often a request is made before its example is given up."] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch", "seconds", "tries"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{configs.flag(name)} must be positive, got {getattr(self, name)}")
        if self.url and (told := next((n for n in LOCAL if getattr(self, n)), None)):
            raise ConfigError(f"{configs.flag(told)} says nothing to a server", hint="leave it out, or --url")
        refuse_idle(self, dict.fromkeys(self.REMOTE, "url"))

    def endpoint(self, events: Events, *, name: str = "", tokenizer: str = "") -> Any:
        """The model or the server; `name` is its own where `model` gives none. RemoteError where the server
        does not answer as it should."""
        if not self.url:
            return LocalEndpoint.open(self.model, **self.worn, events=events)
        from tinygpt.runs._remote_endpoint import RemoteEndpoint

        asked = "" if self.model == NOWHERE else str(self.model)
        return RemoteEndpoint(
            self.url, asked or name, batch=self.batch, seconds=self.seconds, tries=self.tries,
            tokenizer=_pieces.open_tokenizer(tokenizer) if tokenizer else None, events=events,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Asked(Answering):
    """Settings of every command that runs a suite."""

    REMOTE = (*Answering.REMOTE, "tokenizer")

    tokenizer: Annotated[str, "With --url: the model's tokenizer, where its losses are measured."] = ""
    model_name: Annotated[str, "Model name in the rows; empty: the directory's, or the server's."] = ""
    model_step: Annotated[int | None, "Training step in the rows; not given: the model's own."] = None
    baseline: Annotated[bool, "Mark the rows as what others are compared with."] = False
    max_errors: Annotated[int, "Answers that may fail to come before the command ends with an error."] = 0
    out: Annotated[Path | None, "JSONL file to append the rows to."] = None
    examples: Annotated[
        Path | None,
        "JSONL file to append what happened to each example to; not given: beside --out, as "
        "NAME.examples.jsonl.",
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_errors < 0:
            raise ConfigError(f"--max-errors must not be negative, got {self.max_errors}")

    @property
    def records(self) -> Path | None:
        """Where the records of examples go."""
        return self.examples or (None if self.out is None else beside(self.out))

    def check_files(self) -> None:
        """Before anything is measured: no file that is not ours may be written to, and none twice."""
        for name, path in {"out": self.out, "examples": self.examples}.items():
            if path is not None and path.is_dir():
                raise ConfigError(f"--{name}: {path} is a directory", hint="name a file")
        if self.out and self.records and self.out.resolve() == self.records.resolve():
            raise ConfigError(f"--out and --examples both name {self.out}", hint="give each its own file")
        if self.out is not None and self.out.is_file() and (bad := read_rows(self.out)[1]):
            raise ConfigError(f"--out: {bad[0]}", hint="rows are appended only to a file of eval rows")
        if self.records is not None and self.records.is_file() and not _holds_records(self.records):
            raise ConfigError(
                f"--examples: {self.records} exists and holds no records of examples",
                hint="give another file",
            )

    def write(self, rows: list[EvalRow], records: Sequence[dict[str, Any]]) -> None:
        """Append what was found to its files, the records first: no row is there without its own."""
        if self.records is not None:
            append_records(self.records, records)
        if self.out is not None:
            write_rows(self.out, rows, append=True)

    def open(self, events: Events) -> Endpoint:
        """The model or the server. RemoteError where the server does not answer as it should."""
        found = self.endpoint(events, name=self.model_name, tokenizer=self.tokenizer)
        found.name = self.model_name or found.name
        found.baseline = self.baseline
        found.step = found.step if self.model_step is None else self.model_step
        return found


@dataclass(frozen=True, kw_only=True)
class AskedOrGiven(Asked):
    """Settings of the commands of suites that score answers given before, too."""

    predictions: Annotated[
        Path | None, "JSONL of rows that hold answers already, in place of --data: no model is asked."
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.predictions is not None and (self.url or self.adapter or self.model != NOWHERE):
            raise ConfigError(
                "--predictions: no model is asked", hint="leave out the model, or --predictions"
            )

    def open(self, events: Events) -> Endpoint:
        """What plays the answers, or the model."""
        if self.predictions is None:
            return super().open(events)
        found = Playback(name=self.model_name or self.predictions.stem, path=str(self.predictions))
        found.baseline, found.step = self.baseline, self.model_step
        return found


def _holds_records(path: Path) -> bool:
    """Whether a file begins as one of ours does."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline()
    try:
        found = json.loads(first or "null")
    except (ValueError, RecursionError):
        return False
    return not first or (isinstance(found, dict) and {"run_id", "id"} <= found.keys())
