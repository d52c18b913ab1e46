"""The gate: run suites or read their rows, judge them against a baseline, write what was found."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.errors import ConfigError, TinyGPTError
from tinygpt.core.events import Events
from tinygpt.core.files import write_json, write_text
from tinygpt.eval.gate.evidence import Key, Side
from tinygpt.eval.gate.limits import breaches
from tinygpt.eval.gate.report import Found, Spent, junit, markdown, result
from tinygpt.eval.gate.spec import Spec
from tinygpt.eval.gate.verdict import judge
from tinygpt.runs import _gate_files, _gate_suites, _gate_training, _package
from tinygpt.runs._gate_spec import BLOCK, PROJECT, SPEC, budget, find
from tinygpt.runs._harness import ended_with_us


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of `eval-gate`."""

    spec: Annotated[Path | None, f"The gate; not given: ./{SPEC}, or the {BLOCK} block of ./{PROJECT}."] = (
        None
    )
    candidate: Annotated[Path | None, "Rows that were measured already; not given: the suites are run."] = (
        None
    )
    baseline: Annotated[Path | None, "Rows to compare with; not given: the gate's."] = None
    model: Annotated[Path | None, "The model that suites of tinygpt ask; not given: the gate's."] = None
    threshold: Annotated[float | None, "How far a score may fall, where its suite does not say."] = None
    budget: Annotated[str, "What suites may spend, as JSON or a file of it; not given: the gate's."] = ""
    passes: Annotated[int | None, "How often each suite is run, each time with another seed."] = None
    strict_noise: Annotated[bool, "Fail a fall beyond the threshold even where it may be noise."] = False
    update_baseline: Annotated[bool, "Make the candidate's rows the baseline, if they are whole."] = False
    out: Annotated[Path, "Where the result goes, as JSON."] = Path("gate-result.json")
    summary: Annotated[Path | None, "Markdown file for a pull request."] = None
    junit: Annotated[Path | None, "JUnit XML file."] = None

    def __post_init__(self) -> None:
        if self.passes is not None and self.passes < 1:
            raise ConfigError(f"--passes must be at least 1, got {self.passes}")
        if self.threshold is not None and self.threshold < 0:
            raise ConfigError(f"--threshold must not be negative, got {self.threshold}")
        if self.candidate is not None and self.model is not None:
            raise ConfigError("--model is not asked where --candidate has its rows", hint="leave one out")


def run(config: Config, events: Events) -> Found:
    """What was found; it is written to the files too. From the start on they say that nothing passed, so that
    no earlier result is taken for this one."""
    given = {"out": config.out, "summary": config.summary, "junit": config.junit}
    files = {name: path for name, path in given.items() if path is not None}
    read = {"candidate": config.candidate, "baseline": config.baseline, "spec": config.spec}
    _gate_files.check_outputs(files, {name: path for name, path in read.items() if path is not None})
    _write(config, Found(problems=[("", "the gate has not ended")]))
    try:
        found = _gate(config, events)
    except TinyGPTError as error:
        _write(config, Found(problems=[("", str(error))]))
        raise
    _write(config, found)
    return found


def _write(config: Config, found: Found) -> None:
    write_json(config.out, result(found))
    if config.summary is not None:
        write_text(config.summary, markdown(found))
    if config.junit is not None:
        write_text(config.junit, junit(found))


def _gate(config: Config, events: Events) -> Found:
    own = config.candidate is not None and config.baseline is not None
    spec, base = find(config.spec, _changes(config), needed=not own)
    baseline = config.baseline or (base / spec.baseline if spec.baseline else None)
    if baseline is None:
        raise ConfigError("the gate has no baseline", hint="give --baseline FILE, or 'baseline' in its file")
    old, problems = None, list[tuple[str, str]]()
    if config.update_baseline:
        _gate_files.check_baseline(baseline)
        if baseline.is_file() and any(suite.wants != "hold" for suite in spec.suites):
            old, bad = _gate_files.side(baseline)  # a champion goes only where it is beaten
            problems += [("", f"the baseline: {line}") for line in bad]
    elif not baseline.is_file():
        raise ConfigError(f"there is no baseline {baseline}", hint="--update-baseline writes the first one")
    else:
        old, bad = _gate_files.side(baseline)
        problems += [("", f"the baseline: {line}") for line in bad]
    spent, ran = dict[str, Spent](), list[tuple[str, str]]()
    required = spec.passes if config.passes or spec.passes > 1 else None
    if config.candidate is not None:
        new, bad = _gate_files.side(config.candidate)
        problems += [("", line) for line in bad]
    else:
        required = spec.passes
        with ended_with_us(), tempfile.TemporaryDirectory(prefix="tinygpt-gate-") as scratch:
            new, ran, spent = _gate_suites.run(spec, base, Path(scratch), events)
        problems += ran
    tasks = {suite.of_task: suite for suite in spec.suites}
    for task in dict.fromkeys(row.task for row in new.rows):
        name = tasks[task].name if task in tasks else task
        if not spec.suites or task in tasks:
            records = [record for record in new.records if record.get("task") == task]
            rows = [row for row in new.rows if row.task == task]
            problems += [(name, what) for what in breaches(rows, records, spec.budget)]
    judged, bare = judge(spec, new, old, passes=required, renew=config.update_baseline)
    problems += [("", what) for what in bare]
    contamination, leaks = _gate_training.check(spec, base, new, events, {suite for suite, _ in ran})
    found = Found(
        judged=judged, problems=problems + leaks, contamination=contamination, spent=spent,
        protocol=_protocol(spec, baseline, new, [key.key for key in judged]),
    )  # fmt: skip
    if config.update_baseline and found.exit_code == 0:
        made = _gate_files.update(baseline, new, [one.key for one in judged])
        _package.relock([*made, *([config.spec] if config.spec else [])])
        found = dataclasses.replace(found, notes=[f"these rows are the baseline now: {baseline}"])
    return found


def _changes(config: Config) -> dict[str, Any]:
    """What the command line changes of the gate."""
    changes = {
        "default_threshold": config.threshold, "passes": config.passes, "budget": budget(config.budget),
        "strict_noise": config.strict_noise or None, "model": config.model,
    }  # fmt: skip
    return {name: value for name, value in changes.items() if value is not None}


def _protocol(spec: Spec, baseline: Path, new: Side, gated: list[Key]) -> dict[str, Any]:
    """Under which conditions was judged; what is not limited is left out."""
    rows = [row for row in new.rows if Key.of(row) in gated]
    limits = {k: v for k, v in dataclasses.asdict(spec.budget).items() if v not in (None, ())}
    return {
        "passes": spec.passes,
        **({"budget": limits} if limits else {}),
        "alpha": spec.alpha, "minExamples": spec.min_examples, "strictNoise": spec.strict_noise,
        "baseline": str(baseline),
        "models": sorted({row.model_name for row in rows}),
        "modelHashes": sorted({row.model_hash for row in rows if row.model_hash}),
        "adapterHashes": sorted({row.adapter_hash for row in rows if row.adapter_hash}),
        "dataVersions": sorted({row.data_version for row in rows if row.data_version}),
        "harnesses": sorted({row.harness_version for row in rows if row.harness_version}),
    }  # fmt: skip
