"""tau-bench and tau2-bench: an agent and a simulated user talk, and the state of a shop or an airline judges.

The harness is a clone that a person made; what it imports is installed into an environment of its own
(`_harness.py`). Agent and user are each any server, or a model of this machine.

Paper: Yao et al. 2024, arXiv:2406.12045 (tau-bench, pass^k); Barres et al. 2025, arXiv:2506.07982 (tau2).
Differs: a trial that broke off is never a right one, and is counted; tau-bench gives it reward 0 and says
nothing, tau2-bench leaves it out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.core.events import Events
from tinygpt.core.files import write_json
from tinygpt.core.rows import EvalRow, wilson
from tinygpt.eval.suites._result import Clock, bootstrap, row
from tinygpt.runs import _harness, _tau_commands, _tau_results
from tinygpt.runs._asked import Asked
from tinygpt.runs._own_server import Subject, answering, asked_name, served, subject_of
from tinygpt.runs._tau_results import Trial, by_task, pass_hat
from tinygpt.runs._tau_settings import Config

__all__ = ["Config", "run"]

REQUIREMENTS = Path(__file__).parent / "_tau_requirements.txt"
HARNESS = _harness.Harness("tau", "litellm", REQUIREMENTS, ("3.11", "3.12"))
TASK, LOG = "tau_bench", "harness.log"
MOST = 4  # pass^k is told up to this k


def run(config: Config, events: Events) -> list[EvalRow]:
    """A row for each k of pass^k. They, the records and the traces are written."""
    config.check_files()
    with _harness.folder(config.root, "asked.json", resume=None) as root:
        python = _harness.python_of(HARNESS, config.harness_python, events)
        clock, run_id = Clock(), str(uuid.uuid4())
        subject, user, trials = _measured(config, root.resolve(), python, events)
        rows = [
            dataclasses.replace(one, run_id=run_id) for one in _rows(config, subject, user, trials, clock)
        ]
        records = [_record(config, root / "traces", subject, trial) for trial in trials]
        _score(config, records, trials)
    config.write(rows, [{"run_id": run_id, "suite": "tau_bench", **one} for one in records])
    return rows


def _measured(
    config: Config, root: Path, python: Path, events: Events
) -> tuple[Subject, Subject, list[Trial]]:
    """Who was asked, who played the user, and what came of it."""
    other = Asked(model=Path(config.user_model or "."), url=config.user_url)
    if config.user_url:
        other = dataclasses.replace(other, seconds=config.seconds)
    subject, user = subject_of(config), subject_of(other)
    write_json(root / "asked.json", {"made_by": "tinygpt", "agent": subject.path, "user": user.path})
    with contextlib.ExitStack() as servers:
        agent_url = servers.enter_context(served(config, root / "serve.log", port=config.serve_port))
        user_url = servers.enter_context(served(other, root / "serve-user.log"))
        agent = answering(agent_url, asked_name(config), config.seconds)
        simulator = answering(user_url, asked_name(other), config.seconds)
        subject.name, user.name = subject.name or agent, user.name or simulator
        plan = _tau_commands.plan(config, root, (agent_url, agent), (user_url, simulator))
        look = _harness.watching(events, "ask tau-bench", lambda: _done(root, plan.results), 0, "trials")
        _harness.run([python, *plan.words], root / LOG, what="tau-bench", env=plan.env, cwd=root, look=look)
    path = next(iter(sorted(root.glob(plan.results))), None)
    if path is None:
        raise DataError("tau-bench wrote no results", hint=f"see {root / LOG}")
    return subject, user, _tau_results.read(path)


def _done(root: Path, results: str) -> int:
    """Trials that are in the results by now."""
    return sum(path.read_text(encoding="utf-8").count('"trial":') for path in root.glob(results))


def _rows(
    config: Config, subject: Subject, user: Subject, trials: list[Trial], clock: Clock
) -> list[EvalRow]:
    tasks = by_task(trials)
    n_failed = sum(bool(one.error) for one in trials) + config.trials * len(tasks) - len(trials)
    version, harness = _tau_commands.versions(config)
    settings = {
        "layout": config.layout, "limit": config.limit, "trials": config.trials,
        "user": {"model": user.name, "path": user.path, "hash": user.model_hash},
        "failures": dict(Counter(one.error[:80] or one.ending or "wrong" for one in trials if not one.right)),
    }  # fmt: skip
    rows: list[EvalRow] = []
    for k in range(1, min(MOST, config.trials) + 1):
        right = [sum(one.right for one in found) for found in tasks.values()]
        values = [pass_hat(c, config.trials, k) for c in right]
        interval = wilson(sum(right), len(tasks)) if config.trials == 1 else bootstrap(values)
        made = row(
            subject, TASK, f"pass^{k}", sum(values) / len(values), len(values), clock.seconds(), version,
            subtask=config.env, settings=settings, interval=interval, n_failed=n_failed,
        )  # fmt: skip
        decoding = {"temperature": config.temperature}
        rows.append(dataclasses.replace(made, harness_version=harness, seed=config.seed, decoding=decoding))
    return rows


def _record(config: Config, traces: Path, subject: Subject, trial: Trial) -> dict[str, Any]:
    path = _tau_results.write_trace(
        traces, trial, model=subject.path, model_hash=subject.model_hash, env=config.env
    )
    found: dict[str, Any] = {
        "model": subject.name, "id": f"{config.env}_{trial.task}_{trial.number}", "correct": trial.right,
        "finish_reason": "error" if trial.error else "stop", "reward": trial.reward, "ending": trial.ending,
        "trace": str(path), "task": TASK, "subtasks": [config.env],
        "n_steps": sum(one.get("role") == "assistant" for one in trial.messages),
    }  # fmt: skip
    return found | ({"error": trial.error} if trial.error else {})


def _score(config: Config, records: list[dict[str, Any]], trials: list[Trial]) -> None:
    """Say in the record of each task's first trial what the task counts in the rows."""
    first: dict[str, dict[str, Any]] = {}
    for record, trial in zip(records, trials, strict=True):
        first.setdefault(trial.task, record)
    for task, found in by_task(trials).items():
        right = sum(one.right for one in found)
        ks = range(1, min(MOST, config.trials) + 1)
        scores = {f"pass^{k}": pass_hat(right, config.trials, k) for k in ks}
        first[task]["scores"] = scores
