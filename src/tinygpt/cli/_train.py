"""How every training command ends: where the result lies, what to type next, and the exit code."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.cli._exit import INTERRUPTED
from tinygpt.cli._render import Output, cell, clock, line
from tinygpt.data.template._choice import names as templates
from tinygpt.model import presets
from tinygpt.model.checkpoint import read_json
from tinygpt.runs._pieces import base_of
from tinygpt.runs._suites import SUITES

if TYPE_CHECKING:
    from tinygpt.train.loop import Result

CHOICES: Mapping[str, Sequence[str]] = {
    "preset": presets.names(), "eval_tasks": SUITES.names(), "template": templates(),
}  # fmt: skip
KNOBS: Mapping[str, str] = {"warmup": "schedule.warmup"}
# Flags of an adapter and of the base under it, for every command that tunes.
ADAPTER: Mapping[str, str] = {name: f"adapter.{name}" for name in ("rank", "alpha", "targets")}
PACKED: Mapping[str, str] = {f"qlora_{name}": name for name in ("bits", "mode", "group_size")}
# Said of flags that are given, whatever their value; changed settings are refused where they are checked.
NEEDS: Mapping[str, str] = {"regime": "depth", "tokenizer": "no base", "preset": "no base"}

HOW: Mapping[str, str] = {"time": "stopped by --max-minutes", "early": "stopped early, by --patience"}


def use(where: Path) -> str:
    """The command line that tries what was trained: an adapter goes on its base."""
    base = base_of(where)
    words = [where] if base is None else [base, "--adapter", where]
    return shlex.join(["tinygpt", "sample", *map(str, words)])


def finish(
    result: Result,
    out: Path,
    output: Output,
    *,
    use: Callable[[Path], str] = use,
    shown: Callable[[dict[str, Any]], None] | None = None,
) -> int:
    """Render the result, and by `shown` the report that a run has made; 130 when a signal ended the run after
    it saved. `use`: the command line that tries what was trained."""
    stopped = result.status == "interrupted"
    where = out / "steps" if stopped else out / "final"
    report = read_json(where / "report.json") if shown and not stopped else {}

    def render() -> None:
        metrics = {} if report else result.metrics
        numbers = "".join(f", {k.replace('_', ' ')} {cell(v)}" for k, v in metrics.items())
        how = HOW.get(result.status, result.status)
        print(f"{how} at step {result.step} after {clock(result.seconds)}{numbers}")
        if shown and report:
            shown(report)
        best = result.metrics.get("best_step") and (out / "best").is_dir()
        line(f"saved in {where}" + (f", the best in {out / 'best'}" if best else ""))
        line("continue with the same command and --resume" if stopped else f"try: {use(where)}")

    told = {**dataclasses.asdict(result), "path": str(where)}
    output.result(told | ({"report": report} if shown else {}), render)
    return INTERRUPTED if stopped else 0
