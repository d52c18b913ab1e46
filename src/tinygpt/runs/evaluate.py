"""Evaluate: run suites on a model in this process, or behind a server, and return comparable rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError, RemoteError, nearest
from tinygpt.core.events import Events
from tinygpt.core.rows import EvalRow
from tinygpt.eval.suites import heldout_loss
from tinygpt.model import checkpoint
from tinygpt.runs import _pieces
from tinygpt.runs._asked import Asked, AskedOrGiven
from tinygpt.runs._local_endpoint import LocalEndpoint
from tinygpt.runs._suites import SUITES, measure, settings

__all__ = [
    "SUITES",
    "Asked",
    "AskedOrGiven",
    "Config",
    "LocalEndpoint",
    "measure",
    "n_failed",
    "refuse_errors",
    "run",
    "run_suites",
]


@dataclass(frozen=True, kw_only=True)
class Config(Asked):
    """Settings of `eval`."""

    corpus: Annotated[tuple[Path, ...], "Text files or folders: measure the held-out loss on them."] = ()
    glob: Annotated[str, "Which files of a folder are read, at any depth."] = "*.txt"
    suite: Annotated[
        tuple[str, ...], "Suites to run, e.g. executed_state, exact_match, sort_6; may be repeated."
    ] = ()
    every_step: Annotated[
        bool, "Of a run: measure each of its checkpoints, so that the rows tell when it learned what."
    ] = False
    options: Annotated[dict[str, Any], "Settings of a suite, e.g. --set options.executed_state.n=400."] = (
        field(default_factory=dict[str, Any])
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.corpus and not self.suite:
            raise ConfigError("nothing to measure", hint="give --corpus FILE, or --suite NAME")
        refuse_idle(self, {"glob": "corpus"})
        if self.every_step and self.url:
            raise ConfigError("--every-step: a server shows no checkpoints", hint="leave it out, or --url")


def run(config: Config, events: Events) -> list[EvalRow]:
    """Measure and return the rows; rows and records of examples are appended to their files."""
    paths = _checkpoints(config.model) if config.every_step else ()
    return run_suites(config, _wanted(config), events, paths)


def run_suites(
    asked: Asked, wanted: Mapping[str, Any], events: Events, paths: Sequence[Path] = ()
) -> list[EvalRow]:
    """The rows of suites, each with its settings; `paths`: several models in the place of the one that is
    asked. Nothing is written unless all of them end."""
    asked.check_files()
    name = asked.model_name or asked.model.resolve().name
    several = [dataclasses.replace(asked, model=path, model_name=name) for path in paths]
    rows: list[EvalRow] = []
    records: list[dict[str, Any]] = []
    for one in several or [asked]:
        endpoint = one.open(events)
        for suite, chosen in wanted.items():
            found, happened = measure(endpoint, suite, chosen, events)
            rows += found
            records += happened
    asked.write(rows, records)
    return rows


def _checkpoints(run: Path) -> list[Path]:
    """Of a run, in the order of their steps; its final model where that is none of them."""
    steps = sorted(path.parent for path in run.glob(f"steps/*/{checkpoint.MANIFEST}"))
    if not steps:
        raise ConfigError(
            f"--every-step: {run} holds no checkpoints in steps/", hint="train with --save-every"
        )
    final = _pieces.step_of(run / "final")
    return steps if final in (None, _pieces.step_of(steps[-1])) else [*steps, run / "final"]


def n_failed(rows: Sequence[EvalRow]) -> int:
    """Answers that failed to come, each counted once: of a task by its row over all, else by its subtasks
    that are no part ("names/steps:1") of another. Rows that say about which `leaves` they are, as lm-eval's
    do under each filter and group, count by those."""
    counted: dict[tuple[str, str], int] = {}
    for row in sorted(
        (row for row in rows if "leaves" in row.settings), key=lambda row: len(row.settings["leaves"])
    ):
        mine = [(row.run_id, leaf) for leaf in row.settings["leaves"]]
        if not counted.keys() & mine:  # a group's row says nothing new about leaves with rows of their own
            counted |= dict.fromkeys(mine, 0) | {mine[0]: row.n_failed}
    found = sum(counted.values())
    for model in dict.fromkeys((row.run_id, row.task) for row in rows if "leaves" not in row.settings):
        # Metrics and reruns of one subtask are about the same answers.
        parts = {row.subtask or "": row.n_failed for row in rows if (row.run_id, row.task) == model}
        whole = {"": parts[""]} if "" in parts else parts
        found += sum(n for part, n in whole.items() if part.rpartition("/")[0] not in whole or not part)
    return found


def refuse_errors(rows: Sequence[EvalRow], most: int) -> None:
    """RemoteError where more answers failed to come than may: such rows are no measurement."""
    failed = n_failed(rows)
    if failed > most:
        raise RemoteError(
            f"{failed} answers failed to come; the rows say so, and no gate takes them",
            hint="the records of the examples say why; --max-errors N allows some",
        )


def _wanted(config: Config) -> dict[str, Any]:
    """The suites to run, each with its Config; refuses what would run twice or not at all."""
    wanted: dict[str, dict[str, Any]] = {}
    if config.corpus:
        wanted[heldout_loss.TASK] = {"paths": [str(p) for p in config.corpus], "glob": config.glob}
    for name in (given.replace("-", "_") for given in config.suite):
        if name in wanted:
            raise ConfigError(f"the suite {name} is asked for twice", hint="name it once")
        wanted[name] = {}
    for key, options in config.options.items():
        name = key.replace("-", "_")
        if name not in wanted:
            close = nearest(name, wanted)
            raise ConfigError(f"options for '{key}', which is not run.{close}", hint=f"add --suite {key}")
        if not isinstance(options, Mapping):
            raise ConfigError(f"'options.{key}' must be a table, got {options!r}")
        wanted[name] |= options
    return {name: settings(name, options) for name, options in wanted.items()}
