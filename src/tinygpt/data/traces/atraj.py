"""Trajectories of agents and servers, `.atraj`, version 2 and the original's version 1.

Every message is a step, in its place: turns that were none, calls that the policy refused, rewards and the
outcome are told apart there. Version 2 has the tokens, too. Where a run was cut off its outcome is
"unfinished". A dimension of the reward is the run's own, or else the sum of its steps'.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.data import atraj
from tinygpt.data.message import to_message
from tinygpt.data.traces import _values
from tinygpt.data.traces._trace import UNKNOWN, Bad, Trace, linked, masked, number, tools_of
from tinygpt.data.where import column

UNFINISHED = "unfinished"


def knows(value: Any) -> bool:
    """Whether a value is the head of one, or one of version 1."""
    if not isinstance(value, dict):
        return False
    return "atraj" in value or (value.get("version") == 1 and isinstance(value.get("steps"), list))


def read(paths: Sequence[Path], bad: Bad, *, score: str = "") -> Iterator[Trace]:
    """The trajectories of files, one a file. `score` is a field of the run's summary that is a reward."""
    for path in paths:
        try:
            yield _trace(path, atraj.read(path), score)
        except DataError as error:
            bad(str(path), _values.why(path, error))


def _trace(path: Path, found: atraj.Trajectory, score: str) -> Trace:
    header, steps, end = found.header, found.steps, found.end
    old = header.source == "v1"  # it has a step for each call, and no context of tokens
    steps = _joined(steps) if old else steps
    messages = [
        to_message(
            {"role": s.role, "content": s.content, "tool_calls": s.calls or None}
            | {k: v for k, v in (("name", s.name), ("tool_call_id", s.call_id)) if v},
            f"steps[{i}]",
        )
        for i, s in enumerate(steps)
    ]
    reward: dict[str, float] = {}
    for step in steps:
        for name, value in step.reward.items():
            reward[name] = reward.get(name, 0.0) + value
    reward |= end.reward if end else {}
    if end and score and (value := number(column(end.summary, score))) is not None:
        reward[score] = value
    refused = (i for i, s in enumerate(steps) if s.decision and s.decision.get("allowed") is False)
    return masked(
        Trace(
            id=header.id, place=str(path), messages=linked(messages), tools=tools_of(header.tools),
            task=header.task, outcome=end.outcome or UNKNOWN if end else UNFINISHED,
            success=end.success if end else None, reward=reward, redacted=any(s.redacted for s in steps),
            errors={i: s.error for i, s in enumerate(steps) if s.error}, refused=frozenset(refused),
            steps=None if old else steps, tokenizer=header.model.get("tokenizer_hash", ""),
            model={k: header.model[k] for k in ("name", "hash") if k in header.model},
        )
    )  # fmt: skip


def _joined(steps: Sequence[atraj.Step]) -> list[atraj.Step]:
    """Calls that stand one after another, made together, as one step."""
    found: list[atraj.Step] = []
    for step in steps:
        if step.calls and not step.content and found and found[-1].calls:
            reward = {k: step.reward.get(k, 0.0) + found[-1].reward.get(k, 0.0) for k in step.reward}
            found[-1] = dataclasses.replace(
                found[-1], calls=[*found[-1].calls, *step.calls], reward=found[-1].reward | reward
            )
        else:
            found.append(step)
    return found
