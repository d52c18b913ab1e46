"""What tau-bench and tau2-bench write, as one list of trials; pass^k of it, and a trace of each."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.core.files import write_json

RIGHT = 1 - 1e-6  # a reward from which a task is done
BROKEN = ("infrastructure_error", "unexpected_error")  # endings of tau2 that say nothing of the agent


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One task done once. `error`: why it says nothing of the agent."""

    task: str
    number: int
    reward: float
    messages: list[dict[str, Any]]
    error: str = ""
    ending: str = ""

    @property
    def right(self) -> bool:
        return not self.error and self.reward >= RIGHT


def read(path: Path) -> list[Trial]:
    """The trials of a file of results, of either harness."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        trials = [_tau(one) for one in found] if isinstance(found, list) else _tau2(found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} holds no results of tau-bench: {error!r}") from error
    if not trials:
        raise DataError(f"{path} holds no trial", hint="the harness's log is beside it")
    return sorted(trials, key=lambda one: (one.number, len(one.task), one.task))


def _tau(one: dict[str, Any]) -> Trial:
    return Trial(
        task=str(one["task_id"]), number=one["trial"], reward=float(one["reward"]), messages=one["traj"],
        error=str(one["info"].get("error") or ""),
    )  # fmt: skip


def _tau2(found: dict[str, Any]) -> list[Trial]:
    trials: list[Trial] = []
    for one in found["simulations"]:
        ending, told = str(one["termination_reason"]), one.get("reward_info")
        error = ending if ending in BROKEN else "" if told else f"no reward ({ending})"
        trials.append(
            Trial(
                task=str(one["task_id"]), number=one.get("trial") or 0, error=error, ending=ending,
                reward=float(told["reward"]) if told else 0.0, messages=one.get("messages") or [],
            )
        )  # fmt: skip
    return trials


def by_task(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """The trials of each task."""
    found: dict[str, list[Trial]] = {}
    for one in trials:
        found.setdefault(one.task, []).append(one)
    return found


def pass_hat(right: int, n: int, k: int) -> float:
    """The unbiased estimate that k trials are all right, of n of which `right` were: C(right, k) / C(n, k)
    (Yao et al. 2024, arXiv:2406.12045)."""
    return math.comb(right, k) / math.comb(n, k)


def write_trace(folder: Path, trial: Trial, *, model: str, model_hash: str | None, env: str) -> Path:
    """The trial as an agent's trajectory (`.atraj`): a step for each message, with calls and their results.
    There are no token ids, since the harness sees text."""
    id_ = str(uuid.UUID(hashlib.md5(f"{env} {trial.task} {trial.number} {model}".encode()).hexdigest()))
    steps: list[dict[str, Any]] = []
    for message in trial.messages:
        calls = [_call(one) for one in message.get("tool_calls") or ()]
        step: dict[str, Any] = {"role": message["role"], "content": message.get("content") or ""}
        if calls:
            step["tool_call"] = calls[0]
        if message["role"] == "tool":
            step["tool_result"] = {
                "name": str(message.get("name") or ""), "stdout": step["content"], "stderr": "",
                "exit_code": int(bool(message.get("error"))),
            }  # fmt: skip
        steps.append(step)
        steps += [{"role": message["role"], "content": "", "tool_call": more} for more in calls[1:]]
    if steps:
        steps[-1]["reward"] = trial.reward
    told = {"env": env, "trial": str(trial.number), "reward": f"{trial.reward:g}", "error": trial.error}
    path = folder / f"{id_}.atraj"
    write_json(
        path,
        {
            "version": 1, "id": id_, "checkpoint_path": model, "model_fingerprint": model_hash,
            "task": trial.task, "steps": steps, "summary": told,
        },
    )  # fmt: skip
    return path


def _call(call: dict[str, Any]) -> dict[str, str]:
    function = call.get("function") or call
    given = function.get("arguments", {})
    return {
        "name": str(function["name"]),
        "arguments_json": given if isinstance(given, str) else json.dumps(given, ensure_ascii=False),
    }
