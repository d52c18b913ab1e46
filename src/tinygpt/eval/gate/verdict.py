"""Each gated score against the baseline's: passed, fallen, missing, or not to be judged.

A score fails when it fell by more than the threshold and the fall is no noise: where nothing had changed, one
as large would be seen in at most 5 % of comparisons (`alpha`). Where the same examples were recorded on both
sides they are compared one by one (`paired.change`).
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.rows import EvalRow
from tinygpt.eval import paired, pooled
from tinygpt.eval.compare import lower_is_better, unbounded
from tinygpt.eval.gate.evidence import Key, Side, conditions, trouble, unlike
from tinygpt.eval.gate.spec import Spec, Suite
from tinygpt.eval.pooled import Pooled

PASS, FAIL, MISSING, BROKEN, NEW = "pass", "fail", "missing", "broken", "new"
SIGNS = {"pp": " pp", "relative": " %", "absolute": ""}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One score. `delta` and `threshold` are in `unit`; a positive delta is better."""

    name: str
    key: Key
    lower: bool
    verdict: str
    unit: str = ""
    threshold: float = 0.0
    baseline: float | None = None
    candidate: float | None = None
    trials: tuple[float, ...] = ()
    n: int = 0
    n_baseline: int = 0
    delta: float | None = None
    change: paired.Change | None = None
    """In scores, positive is better."""
    lost: tuple[str, ...] = ()
    won: tuple[str, ...] = ()
    """Ids of the examples whose score fell and rose."""
    why: str = ""
    notes: tuple[str, ...] = ()


def judge(
    spec: Spec, candidate: Side, baseline: Side | None, *, passes: int | None = None, renew: bool = False
) -> tuple[list[Judged], list[str]]:
    """Every gated score, and one sentence for each suite that has none. `passes`: so many rows of a score
    there must be. Without a baseline all that is well measured is new; with `renew` that is so of suites
    that must hold, and of what no champion has a row of."""
    every = [*candidate.scored(), *(baseline.scored() if baseline and not renew else [])]
    suites = spec.suites or [Suite(name=task) for task in dict.fromkeys(key.task for key in every)]
    found: list[Judged] = []
    bare: list[str] = []
    for suite in suites:
        rival = None if renew and suite.wants == "hold" else baseline
        known = [*candidate.scored(), *(rival.scored() if rival else [])]
        keys = [key for key in dict.fromkeys(known) if _gated(suite, key)]
        missed = [s for s in suite.subtasks if s not in {key.subtask for key in keys}]
        missed += [m for m in suite.metrics if m not in {key.metric for key in keys}]
        if not keys and any(key.task == suite.of_task for key in known):
            wanted = [f"the {what} {', '.join(words)}" for what, words in
                      (("subtasks", suite.subtasks), ("metrics", suite.metrics)) if words]  # fmt: skip
            there = ", ".join(
                f"{k.subtask or '-'} {k.metric}" for k in dict.fromkeys(known) if k.task == suite.of_task
            )
            bare.append(f"suite '{suite.name}' has no row with {' and '.join(wanted)}; its rows: {there}")
        elif not keys:
            there = ", ".join(sorted({key.task for key in known})) or "none"
            bare.append(f"suite '{suite.name}' has no row of the task '{suite.of_task}'; tasks: {there}")
        elif missed:
            bare.append(f"suite '{suite.name}' has no row of {', '.join(missed)}")
        there_is = {key: None if renew and rival and not rival.passes(key) else rival for key in keys}
        found += [_judge(spec, suite, key, candidate, there_is[key], passes) for key in keys]
    return found, bare


def _gated(suite: Suite, key: Key) -> bool:
    return (
        key.task == suite.of_task
        and (not suite.subtasks or key.subtask in suite.subtasks)
        and (not suite.metrics or key.metric in suite.metrics)
    )


def _judge(
    spec: Spec, suite: Suite, key: Key, candidate: Side, baseline: Side | None, passes: int | None
) -> Judged:
    lower = lower_is_better(key.metric) if suite.direction == "auto" else suite.direction == "lower"
    new = candidate.passes(key)
    old = baseline.passes(key, last=True) if baseline else []
    told = Judged(
        name=suite.name, key=key, lower=lower, verdict=BROKEN,
        candidate=_mean(new), baseline=_mean(old), trials=tuple(row.score for row in new),
        n=new[0].n_examples if new else 0, n_baseline=old[0].n_examples if old else 0,
    )  # fmt: skip
    if not new:
        return dataclasses.replace(told, verdict=MISSING, why="the candidate has no row of it")
    try:
        why = trouble(new)
        if not why and passes is not None and len(new) != passes:
            why = f"there are {len(new)} rows of {passes} passes"
        mine = None if why else _measured(candidate, key, new)
        if why or baseline is None:
            return dataclasses.replace(told, verdict=BROKEN if why else NEW, why=why)
        if not old:
            hint = "the baseline has no row of it: --update-baseline writes one"
            return dataclasses.replace(told, verdict=MISSING, why=hint)
        why = unlike(new[0], old[0]) or (f"the baseline: {bad}" if (bad := trouble(old)) else "")
        if why:
            return dataclasses.replace(told, why=why)
        told = dataclasses.replace(told, notes=tuple(conditions(new[0], old[0])))
        assert mine is not None
        return _compared(spec, suite, told, mine, _measured(baseline, key, old))
    except (DataError, ConfigError) as error:
        return dataclasses.replace(told, verdict=BROKEN, why=str(error))


@dataclass(frozen=True)
class _Measured:
    """Rows of a score, one a pass, and what their records tell of each example: its part of a mean, or of a
    figure over all."""

    rows: Sequence[EvalRow]
    scores: Mapping[str, float] | None
    pooled: Pooled | None


def _measured(side: Side, key: Key, rows: Sequence[EvalRow]) -> _Measured:
    return _Measured(rows, side.scores(key, rows), side.pooled(key, rows))


def _compared(spec: Spec, suite: Suite, told: Judged, new: _Measured, old: _Measured) -> Judged:
    sign = -1 if told.lower else 1
    unit, threshold = _threshold(spec, suite, told.key.metric, new.rows, old.rows)
    assert told.candidate is not None and told.baseline is not None
    delta = sign * _in_unit(unit, told.candidate, told.baseline)
    change = _change(new, old, _is_share(told.key.metric, [*new.rows, *old.rows]), sign)
    if new.scores and old.scores:
        gains = {id: sign * (new.scores[id] - score) for id, score in old.scores.items()}
        lost, won = (tuple(id for id, gain in gains.items() if s * gain > 0) for s in (-1, 1))
        told = dataclasses.replace(told, lost=lost, won=won)
    told = dataclasses.replace(told, unit=unit, threshold=threshold, delta=delta, change=change)
    if suite.wants != "hold":
        return _ahead(spec, suite, told)
    notes = told.notes
    if new.scores and not old.scores:
        notes += ("the baseline has no records of examples, so they are not compared one by one",)
        told = dataclasses.replace(told, notes=notes)
    if delta >= -threshold - 1e-9:
        return dataclasses.replace(told, verdict=PASS)
    if change is None:
        notes += ("how noisy it is is not known: judged by the threshold alone",)
    elif change.p_fall is not None and change.p_fall > spec.alpha:
        noise = f"within noise (p = {change.p_fall:.2g})"
        if old.scores and not new.scores:
            why = (
                f"it fell, {noise} as far as rows tell; the baseline has records of its examples, it has none"
            )
            return dataclasses.replace(told, why=why)
        if spec.strict_noise:
            return dataclasses.replace(told, verdict=FAIL, notes=(*notes, f"{noise}, which counts here"))
        if change.n < spec.min_examples:
            why = (
                f"it fell, and {change.n} examples cannot say whether that is noise: use {spec.min_examples}"
            )
            return dataclasses.replace(told, why=why)
        return dataclasses.replace(told, verdict=PASS, notes=(*notes, noise))
    return dataclasses.replace(told, verdict=FAIL, notes=notes)


def _ahead(spec: Spec, suite: Suite, told: Judged) -> Judged:
    """Whether a champion is met or beaten: the burden of proof is the candidate's, so noise is no win."""
    margin, level = suite.threshold or 0.0, suite.wants == "level"
    told = dataclasses.replace(told, threshold=margin if level else 0.0 - margin, verdict=FAIL)
    assert told.delta is not None
    if level:
        if told.delta < -margin - 1e-9:
            return dataclasses.replace(told, why="it is below the champion")
    elif told.delta <= 0 or told.delta < margin - 1e-9:
        by = f" by {margin:g}{SIGNS[told.unit]}" if margin else ""
        return dataclasses.replace(told, why=f"it is not ahead of the champion{by}")
    if suite.wants == "win":
        p = None if told.change is None else told.change.p_rise
        if p is None:
            why = "how noisy it is is not known, so being ahead is no win"
            return dataclasses.replace(told, verdict=BROKEN, why=why)
        if p > spec.alpha:
            return dataclasses.replace(told, why=f"it is ahead, but that may be chance (p = {p:.2g})")
    return dataclasses.replace(told, verdict=PASS)


def _change(new: _Measured, old: _Measured, shares: bool, sign: int) -> paired.Change | None:
    """The change for the better, by the sharpest test that rows and records allow; None: by none."""
    if new.scores and old.scores:
        if gone := next((id for id in old.scores if id not in new.scores), None):
            raise DataError(f"it has no record of example {gone}, which the baseline has")
        ids = list(old.scores)
        return paired.change([sign * new.scores[i] for i in ids], [sign * old.scores[i] for i in ids])
    if new.pooled and old.pooled:
        return pooled.change(new.pooled, old.pooled, sign=sign)
    now, was = sign * (_mean(new.rows) or 0.0), sign * (_mean(old.rows) or 0.0)
    counts = new.rows[0].n_examples, old.rows[0].n_examples
    if shares:
        if sign < 0:  # a share of wrong ones: the rest is the share of right ones
            now, was = 1 + now, 1 + was
        return paired.shares(now, was, *counts)
    of_new, of_old = _interval(new.rows), _interval(old.rows)
    if of_new is None or of_old is None:
        return None
    return paired.intervals(now, was, of_new, of_old, min(counts))


def _interval(rows: Sequence[EvalRow]) -> tuple[float, float] | None:
    """The mean of the rows' intervals, which is never too narrow; of rows without, that of their mean."""
    if all(row.interval for row in rows):
        low, high = zip(*(row.interval for row in rows if row.interval))
        return statistics.fmean(low), statistics.fmean(high)
    if len(rows) < 3:
        return None
    mean, half = statistics.fmean(r.score for r in rows), 1.96 * stderr([row.score for row in rows])
    return mean - half, mean + half


def stderr(scores: Sequence[float]) -> float:
    """Standard error of the mean of passes; 0 of one."""
    return statistics.stdev(scores) / len(scores) ** 0.5 if len(scores) > 1 else 0.0


def _threshold(
    spec: Spec, suite: Suite, metric: str, new: Sequence[EvalRow], old: Sequence[EvalRow]
) -> tuple[str, float]:
    threshold = spec.default_threshold if suite.threshold is None else suite.threshold
    share, unit = _is_share(metric, [*new, *old]), suite.unit if suite.unit != "auto" else spec.default_unit
    if unit == "auto" and not share and (_is_share(metric, new) or _is_share(metric, old)):
        raise ConfigError(
            f"{metric} lies between 0 and 1 on one side alone, as if one were told in percent",
            hint="give its suite the unit 'relative' or 'absolute' if it is no share",
        )
    unit = ("pp" if share else "relative") if unit == "auto" else unit
    if unit == "pp" and not share:
        raise ConfigError(
            f"{metric} is no share of examples, so it has no percentage points",
            hint="give its suite the unit 'relative' or 'absolute'",
        )
    return unit, threshold


def _is_share(metric: str, rows: Sequence[EvalRow]) -> bool:
    return not unbounded(metric) and all(0 <= row.score <= 1 for row in rows)


def _in_unit(unit: str, new: float, old: float) -> float:
    if unit == "relative":
        if not old:
            raise ConfigError(
                "the baseline's score is 0, so nothing is relative to it", hint="use the unit 'absolute'"
            )
        return 100 * (new - old) / abs(old)
    return (100 if unit == "pp" else 1) * (new - old)


def _mean(rows: Sequence[EvalRow]) -> float | None:
    return statistics.fmean(row.score for row in rows) if rows else None
