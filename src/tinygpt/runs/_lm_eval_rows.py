"""lm-eval's results as eval rows, each with an interval, and a record of every example.

A row is a metric of a task. Its subtask is the member of a group, the filter where there is one, or both as
member/filter. Examples that did not come count as 0 where a score is a mean; other scores cannot do without
them and are an error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tinygpt.core.errors import RemoteError
from tinygpt.core.rows import EvalRow, wilson
from tinygpt.eval.suites._result import bootstrap, version
from tinygpt.runs._lm_eval_model import Noted

# Aggregations that are quick enough to be drawn again many times.
CHEAP = ("perplexity", "weighted_perplexity", "bits_per_byte", "median", "f1_score", "matthews_corrcoef")
DRAWS = 500


@dataclass(kw_only=True)
class Part:
    """One metric of one leaf task under one filter. `values` by document; `score` is lm-eval's."""

    task: str
    metric: str
    filter: str
    score: float
    values: list[Any]
    documents: list[int]
    higher_is_better: bool
    aggregate: Any
    interval: tuple[float, float] | None = field(default=None, init=False)

    @property
    def numbers(self) -> list[float] | None:
        """The values where the score is their mean."""
        if not all(isinstance(v, bool | int | float) or _is_numpy(v) for v in self.values):
            return None
        values = [float(v) for v in self.values]
        mean = math.fsum(values) / max(1, len(values))
        return values if math.isclose(mean, self.score, abs_tol=1e-9) else None

    def without(self, failed: set[int]) -> None:
        """Let documents whose answers did not come count for nothing; RemoteError where that cannot be."""
        if gone := failed.intersection(self.documents):
            if self.numbers is None or not self.higher_is_better:
                raise RemoteError(
                    f"{len(gone)} answers of {self.task} failed to come, and {self.metric} needs all of them",
                    hint="look at the server, and run it again",
                )
            self.values = [
                0.0 if doc in gone else v for doc, v in zip(self.documents, self.values, strict=True)
            ]
            self.score = math.fsum(map(float, self.values)) / len(self.values)

    def measure(self) -> None:
        """The interval: Wilson's of a proportion, else a bootstrap's."""
        numbers = self.numbers
        self.interval = spread(numbers) if numbers is not None else self._drawn()

    def _drawn(self) -> tuple[float, float] | None:
        import numpy as np

        if getattr(self.aggregate, "__name__", "") not in CHEAP or len(self.values) < 2:
            return None
        generator, n = np.random.default_rng(0), len(self.values)
        drawn = [self.aggregate([self.values[i] for i in generator.integers(0, n, n)]) for _ in range(DRAWS)]
        low, high = np.quantile(drawn, [0.025, 0.975])
        return float(low), float(high)


def _is_numpy(value: Any) -> bool:
    return hasattr(value, "item") and getattr(value, "ndim", 1) == 0


def spread(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of a mean."""
    if values and set(values) <= {0.0, 1.0}:
        return wilson(sum(values), len(values))
    return bootstrap(values)


def report(
    asked: dict[str, Any], found: dict[str, Any], noted: Noted, about: dict[str, Any]
) -> tuple[list[EvalRow], list[dict[str, Any]]]:
    """The rows, and a record of each document under each filter. asked: what was loaded for each name that
    was asked for; found: lm-eval's results; about: fields of every row."""
    rows: list[EvalRow] = []
    records: list[dict[str, Any]] = []
    for name, loaded in asked.items():
        leaves = {task: _parts(task, one, found, noted) for task, one in loaded["tasks"].items()}
        kept = _records(name, leaves, found, noted)
        records += kept.values()
        for task, parts in leaves.items():
            member = None if task == name else task
            shown = _row_fields([task], found, noted, about)
            for part in parts:
                subtask = _joined(member, part.filter)
                rows.append(
                    EvalRow(
                        task=name, subtask=subtask, metric=part.metric, score=part.score,
                        n_examples=len(part.values), interval=part.interval, **shown,
                    )
                )  # fmt: skip
        for group in loaded["groups"].values():
            rows += _group(name, group, leaves, kept, found, noted, about)
    return rows, records


def _parts(task: str, one: Any, found: dict[str, Any], noted: Noted) -> list[Part]:
    samples, parts = found["samples"][task], list[Part]()
    failed = {doc for name, doc in noted.failed if name == task}
    for key, score in found["results"][task].items():
        metric, _, chosen = key.partition(",")
        mine = [s for s in samples if s["filter"] == chosen and metric in s]
        if not chosen or metric.endswith("_stderr") or not mine or not isinstance(score, int | float):
            continue
        better = found["higher_is_better"].get(task, {}).get(metric)
        part = Part(
            task=task, metric=metric, filter=chosen, score=float(score), values=[s[metric] for s in mine],
            documents=[s["doc_id"] for s in mine], higher_is_better=better is not False,
            aggregate=one.aggregation().get(metric),
        )  # fmt: skip
        part.without(failed)
        part.measure()
        parts.append(part)
    return parts


def _records(
    name: str, leaves: dict[str, list[Part]], found: dict[str, Any], noted: Noted
) -> dict[tuple[str, str, int], dict[str, Any]]:
    kept: dict[tuple[str, str, int], dict[str, Any]] = {}
    for task, parts in leaves.items():
        member = None if task == name else task
        for sample in found["samples"][task]:
            doc = sample["doc_id"]
            error = noted.failed.get((task, doc))
            kept[task, sample["filter"], doc] = {
                "id": f"{member}:{doc}" if member else str(doc),
                "doc_hash": sample["doc_hash"],
                "task": name,
                "subtasks": [_joined(member, sample["filter"])],
                "scores": {},
                "finish_reason": "error" if error else "length" if (task, doc) in noted.cut else "stop",
                "got": sample["filtered_resps"],
                "expected": sample["target"],
                **({"error": error} if error else {}),
                **({"prompt_shortened": True} if (task, doc) in noted.shortened else {}),
            }
        for part in parts:
            for doc, value in zip(part.documents, part.numbers or [], strict=False):
                kept[task, part.filter, doc]["scores"][part.metric] = value
    return kept


def _group(
    name: str,
    group: Any,
    leaves: dict[str, list[Part]],
    kept: dict[tuple[str, str, int], dict[str, Any]],
    found: dict[str, Any],
    noted: Noted,
    about: dict[str, Any],
) -> list[EvalRow]:
    """The rows of a group's own scores: means over all documents, or over its members."""
    members = [task for task in leaves if task in _leaves(group.name, found)]
    weighs = {one.metric: one.weight_by_size for one in group.aggregate_metric_list or ()}
    rows: list[EvalRow] = []
    for key, score in found.get("groups", {}).get(group.name, {}).items():
        metric, _, chosen = key.partition(",")
        parts = [p for t in members for p in leaves[t] if (p.metric, p.filter) == (metric, chosen)]
        if not chosen or metric.endswith("_stderr") or not parts or not isinstance(score, int | float):
            continue
        lists = [part.numbers for part in parts]
        subtask, interval = _joined(None if group.name == name else group.name, chosen), None
        if None not in lists and weighs.get(metric):
            numbers = [v for values in lists for v in values or []]
            score, interval = math.fsum(numbers) / len(numbers), spread(numbers)
            for part in parts:
                for doc in part.documents:
                    kept[part.task, part.filter, doc]["subtasks"].append(subtask)
        elif None not in lists:
            score = math.fsum(part.score for part in parts) / len(parts)
            half = 1.96 * math.sqrt(sum(_variance(values or []) for values in lists)) / len(parts)
            interval = (score - half, score + half)
        rows.append(
            EvalRow(
                task=name, subtask=subtask, metric=metric, score=float(score), interval=interval,
                n_examples=sum(len(part.values) for part in parts),
                **_row_fields(members, found, noted, about),
            )
        )  # fmt: skip
    return rows


def _leaves(group: str, found: dict[str, Any]) -> set[str]:
    """The tasks below a group."""
    below = found["group_subtasks"].get(group, [])
    return {leaf for one in below for leaf in (_leaves(one, found) or {one})}


def _variance(values: Sequence[float]) -> float:
    """Of the mean of these values."""
    n = len(values)
    mean = math.fsum(values) / max(1, n)
    return math.fsum((v - mean) ** 2 for v in values) / (n * (n - 1)) if n > 1 else 0.0


def _row_fields(
    tasks: Sequence[str], found: dict[str, Any], noted: Noted, about: dict[str, Any]
) -> dict[str, Any]:
    """Fields of a row about these tasks. Its data_version is a hash of their documents; `settings.leaves`
    says whose answers `n_failed` counts, which rows of other filters and groups count too."""
    documents = {t: sorted({(s["doc_id"], s["doc_hash"]) for s in found["samples"][t]}) for t in tasks}
    config: dict[str, Any] = found["configs"].get(tasks[0], {})
    of_task = {
        "output_type": config.get("output_type"),
        "task_version": found["versions"].get(tasks[0]),
        "shots": found["n-shot"].get(tasks[0]),
        "generation": config.get("generation_kwargs"),
        "n_shortened": sum(task in tasks for task, _ in noted.shortened),
        "leaves": list(tasks),
    }
    generation = config.get("generation_kwargs") or {}
    drawn = generation.get("do_sample", True) is not False
    warmth = {"temperature": generation.get("temperature", 0.0) if drawn else 0.0} if generation else {}
    return {
        **about,
        "data_version": version([*documents.values()]),
        "settings": {**about["settings"], **of_task},
        "decoding": {**warmth, **{k: generation[k] for k in ("top_p", "top_k") if k in generation}},
        "n_failed": sum(task in tasks for task, _ in noted.failed),
        "n_truncated": sum(task in tasks for task, _ in noted.cut),
    }


def _joined(member: str | None, chosen: str) -> str | None:
    return "/".join(part for part in (member, "" if chosen == "none" else chosen) if part) or None
