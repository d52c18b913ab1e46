"""The held-out loss that runs report while they train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygpt.core import backend
from tinygpt.core.backend import mx
from tinygpt.train.loop import Hook
from tinygpt.train.protocols import SURVEY, Surveying
from tinygpt.train.update import Objective, arrays
from tinygpt.train.world import World

Tensors = dict[str, mx.array]
Sums = dict[str, tuple[mx.array, mx.array]]
"""By name: a sum over what counts, and how much that is."""


def held_out_loss(objective: Objective, source: Any, n: int, world: World | None = None) -> Hook:
    """A hook that returns the mean loss over the first n batches of a held-out source (0: all of them), for
    corpora that are mixed also that of each, over its share of the n batches; of several processes each takes
    some. An objective with a `report(batch)` tells its other figures, too."""
    ranks = world or World()

    def plain(batch: Tensors) -> Sums:
        count = objective.weights(batch).sum()
        return {"loss": (objective.measure(batch) * count, count)}

    report: Callable[[Tensors], Sums] = getattr(objective, "report", plain)

    def each(batch: Tensors, call: Callable[[Tensors], Sums]) -> dict[str, tuple[float, float]]:
        """call(batch) in numbers; on CPUs each core takes some rows."""
        lanes = backend.streams(len(batch["tokens"]))
        with backend.shards(lanes):
            found: list[Sums] = []
            for i, lane in enumerate(lanes):
                with mx.stream(lane):
                    found.append(call({name: value[i :: len(lanes)] for name, value in batch.items()}))
            mx.eval(found)
        return {
            name: (sum(float(one[name][0]) for one in found), sum(float(one[name][1]) for one in found))
            for name in found[0]
        }

    def total(part: Any, n: int, call: Callable[[Tensors], Sums], given: dict[str, float]) -> dict[str, Any]:
        """By name the sums over n batches of all processes."""
        sums: dict[str, tuple[float, float]] = {}
        for i in range(ranks.rank, n, ranks.size):
            batch = arrays(part[i])
            more = {name: mx.full((len(batch["tokens"]),), value) for name, value in given.items()}
            for name, (value, count) in each(batch | more, call).items():
                before = sums.get(name, (0.0, 0.0))
                sums[name] = before[0] + value, before[1] + count
        if ranks.size == 1:
            return sums
        names = list(call(arrays(part[0])))  # also where this process had no batch; nothing is computed
        values = ranks.total([x for name in names for x in sums.get(name, (0.0, 0.0))])
        return {name: tuple(values[2 * i : 2 * i + 2]) for i, name in enumerate(names)}

    def mean(part: Any, n: int) -> dict[str, float]:
        n, seen = min(n, len(part)) if n else len(part), dict[str, float]()
        if isinstance(objective, Surveying):
            look = objective.survey

            def surveyed(batch: Tensors) -> Sums:
                return {SURVEY + name: (value, value) for name, value in look(batch).items()}

            seen = {name: value for name, (value, _) in total(part, n, surveyed, {}).items()}
        found = total(part, n, report, seen)
        return {name: value / max(count, 1.0) for name, (value, count) in found.items()}

    def hook(step: int) -> dict[str, float]:
        parts: dict[str, Any] = getattr(source, "parts", {})
        if not parts:
            return mean(source, n)
        # Corpora that are mixed are measured apart; the whole weighs them as the rows that train.
        found = {name: mean(part, -(-n // len(parts)))["loss"] for name, part in parts.items()}
        whole = sum(source.weights[name] * loss for name, loss in found.items())
        return {"loss": whole, **{f"loss.{name}": loss for name, loss in found.items()}}

    return hook
