"""Evaluate: run suites on a model in this process and return comparable rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError, nearest
from tinygpt.core.events import Events
from tinygpt.core.rows import EvalRow, read_rows, write_rows
from tinygpt.data.rows import write
from tinygpt.eval.suites import heldout_loss
from tinygpt.runs._local_endpoint import LocalEndpoint
from tinygpt.runs._suites import SUITES, measure, settings

__all__ = ["SUITES", "Config", "LocalEndpoint", "measure", "run"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of `eval`."""

    model: Annotated[Path, "A model, run or specialist directory."]
    adapter: Annotated[Path | None, "Adapter directory to put on the model."] = None
    corpus: Annotated[tuple[Path, ...], "Text files or folders: measure the held-out loss on them."] = ()
    glob: Annotated[str, "Which files of a folder are read, at any depth."] = "*.txt"
    suite: Annotated[
        tuple[str, ...], "Suites to run, e.g. executed_state, exact_match, sort_6; may be repeated."
    ] = ()
    options: Annotated[dict[str, Any], "Settings of a suite, e.g. --set options.executed_state.n=400."] = (
        field(default_factory=dict[str, Any])
    )
    name: Annotated[str, "Model name in the rows; empty: the directory's."] = ""
    out: Annotated[Path | None, "JSONL file to append the rows to."] = None
    examples: Annotated[Path | None, "JSONL file to write what happened to each example."] = None
    force: Annotated[bool, "Open an adapter that was trained on other weights too."] = False

    def __post_init__(self) -> None:
        if not self.corpus and not self.suite:
            raise ConfigError("nothing to measure", hint="give --corpus FILE, or --suite NAME")
        refuse_idle(self, {"glob": "corpus", "force": "adapter"})


def run(config: Config, events: Events) -> list[EvalRow]:
    """Measure and return the rows; what happened to each example is written to `examples` when given."""
    wanted = _wanted(config)
    _check_files(config)
    endpoint = LocalEndpoint.open(config.model, config.adapter, events, force=config.force)
    endpoint.name = config.name or endpoint.name
    rows: list[EvalRow] = []
    records: list[dict[str, Any]] = []
    for name, chosen in wanted.items():
        found, happened = measure(endpoint, name, chosen, events)
        rows += found
        records += happened
    if config.out is not None:
        write_rows(config.out, rows, append=True)
    if config.examples is not None:
        write(config.examples, records)
    return rows


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


def _check_files(config: Config) -> None:
    """Before anything is measured: no file that is not ours may be written to, and none twice."""
    for name, path in {"out": config.out, "examples": config.examples}.items():
        if path is not None and path.is_dir():
            raise ConfigError(f"--{name}: {path} is a directory", hint="name a file")
    if config.out and config.examples and config.out.resolve() == config.examples.resolve():
        raise ConfigError(f"--out and --examples both name {config.out}", hint="give each its own file")
    if config.examples is not None and config.examples.is_file():
        raise ConfigError(
            f"--examples: {config.examples} exists", hint="choose another name, or move it away"
        )
    if config.out is not None and config.out.is_file() and (bad := read_rows(config.out)[1]):
        raise ConfigError(f"--out: {bad[0]}", hint="rows are appended only to a file of eval rows")
