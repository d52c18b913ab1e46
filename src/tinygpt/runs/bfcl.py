"""BFCL: the official runner asks a model over HTTP, the official scorer judges, and every score is a row.

The benchmark lives in an environment of its own (`_harness.py`); `_bfcl_harness.py` runs inside it. All that
it writes, questions asked, results, scores and logs, is kept in one folder, from which a run can be resumed.

Paper: Patil et al. 2025, "The Berkeley Function Calling Leaderboard" (ICML).
Differs: an answer that did not come is never right; BFCL takes it for a model that calls nothing.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.core.files import peek_json, write_json
from tinygpt.core.rows import EvalRow
from tinygpt.eval.suites._result import Clock
from tinygpt.eval.suites._result import version as hashed
from tinygpt.runs import _bfcl_results, _harness
from tinygpt.runs._bfcl_settings import Config
from tinygpt.runs._own_server import answering, asked_name, served, subject_of

__all__ = ["Config", "run"]

HERE = Path(__file__).parent
HARNESS = _harness.Harness("bfcl", "bfcl-eval", HERE / "_bfcl_requirements.txt", ("3.11", "3.12", "3.10"))
SETTINGS, ASKED, HOPS = "settings.json", "asked.json", "tool_metrics.jsonl"
# What must be the same for answers of an earlier run to count in this one.
SAME = (
    "model", "native", "max_tokens", "temperature", "limit", "classes", "categories", "subject", "tools",
    "tool_mode", "show_tools",
)  # fmt: skip


def run(config: Config, events: Events) -> list[EvalRow]:
    """The rows: one a category, and BFCL's own overall figure. They and the records are appended to files."""
    config.check_files()
    for note in config.categories[1]:
        events.note(note, "warning")
    with _harness.folder(config.root, ASKED, resume=config.resume) as root:
        python = _harness.python_of(HARNESS, config.harness_python, events)
        clock, run_id = Clock(), str(uuid.uuid4())
        rows, records = _measured(config, root, python, clock, events)
    rows = [dataclasses.replace(row, run_id=run_id) for row in rows]
    config.write(rows, [{"run_id": run_id, "suite": "bfcl", **one} for one in records])
    return rows


def _measured(
    config: Config, root: Path, python: Path, clock: Clock, events: Events
) -> tuple[list[EvalRow], list[dict[str, Any]]]:
    native, categories = config.mode == "native", config.categories[0]
    subject = subject_of(config)
    name = "tinygpt-FC" if native else "tinygpt"
    settings: dict[str, Any] = {
        "name": name, "native": native, "categories": categories, "limit": config.limit,
        "classes": list(config.classes), "temperature": config.temperature, "max_tokens": config.max_tokens,
        "seconds": config.seconds, "tries": config.tries, "threads": config.batch,
        "model": str(config.model), "subject": [subject.path, subject.model_hash, subject.facts],
        "tools": str(config.tools or ""), "tool_mode": config.tool_mode,
        "show_tools": config.show_tools,
    }  # fmt: skip
    if config.resume and (odd := [k for k in SAME if peek_json(root / ASKED).get(k) != settings[k]]):
        raise ConfigError(
            f"{root} was made with other settings: {', '.join(odd)}", hint="give the same, or another folder"
        )
    write_json(root / ASKED, settings)
    kept = _bfcl_results.keep_answers(root)
    shutil.rmtree(root / "score", ignore_errors=True)

    def act(action: str, look: Any = lambda: None, **more: Any) -> Path:
        write_json(root / SETTINGS, {**settings, **more})
        log = root / (f"{action}.log" if action != "plan" else "plan.json")
        words = [python, "-I", HERE / "_bfcl_harness.py", action, root / SETTINGS]
        _harness.run(words, log, what=f"BFCL's {action}", cwd=root, look=look)
        return log

    plan = json.loads(act("plan").read_text(encoding="utf-8").splitlines()[-1])
    asked = plan["categories"]
    if not all(one["ids"] for one in asked.values()):
        empty = ", ".join(category for category, one in asked.items() if not one["ids"])
        raise ConfigError(f"--classes leaves no example of {empty}", hint="ask other categories, or classes")
    total = sum(len(one["ids"]) + len(one["before"]) for one in asked.values())
    if kept:
        events.note(f"{kept} of {total} answers are there already")
    flags = ("--tools", config.tools, "--tool-mode", config.tool_mode, "--tool-metrics-out", root / HOPS)
    flags = flags if config.tools else ()
    with served(config, root / "serve.log", port=config.serve_port, flags=flags) as url:
        model = answering(url, asked_name(config), config.seconds)
        subject.name = subject.name or model
        look = _harness.watching(
            events, "ask BFCL", lambda: _bfcl_results.n_answered(root), total, "examples"
        )
        act("generate", look, url=url, model=model)
    act("evaluate", url=url, model=model)

    rows: list[EvalRow] = []
    records: list[dict[str, Any]] = []
    for category in categories:
        row, found = _bfcl_results.category_row(subject, root, name, category, asked[category])
        rows.append(row)
        records += [{"model": subject.name, **one} for one in found]
    version = hashed([one["data_version"] for one in asked.values()])
    rows.append(_bfcl_results.overall(subject, root, rows, clock.seconds(), version))
    if config.tool_mode == "deferred":
        rows.append(_bfcl_results.hops_row(subject, root / HOPS, clock.seconds(), version))
    how = {k: settings[k] for k in ("native", "limit", "classes", "tools", "tool_mode", "show_tools")}
    decoding = {"temperature": config.temperature, "max_tokens": config.max_tokens}
    return [
        dataclasses.replace(
            row, harness_version=f"{HARNESS.package} {plan['version']}", seed=None, decoding=decoding,
            settings={**how, **row.settings},
        )
        for row in rows
    ], records  # fmt: skip
