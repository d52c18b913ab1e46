"""The held-out loss that runs report while they train."""

from __future__ import annotations

from typing import Any

from tinygpt.core import backend
from tinygpt.core.backend import mx
from tinygpt.train.loop import Hook
from tinygpt.train.update import Objective, arrays
from tinygpt.train.world import World


def held_out_loss(objective: Objective, source: Any, n: int, world: World | None = None) -> Hook:
    """A hook that returns the mean loss over the first n batches of a held-out source (0: all of them), for
    corpora that are mixed also that of each, over its share of the n batches; of several processes each takes
    some."""
    ranks = world or World()

    def sums(batch: dict[str, mx.array]) -> tuple[float, float]:
        """(total loss, what it is divided by) of a batch; on CPUs each core takes some rows."""
        lanes = backend.streams(len(batch["tokens"]))
        with backend.shards(lanes):
            found: list[tuple[mx.array, mx.array]] = []
            for i, lane in enumerate(lanes):
                with mx.stream(lane):
                    part = {name: value[i :: len(lanes)] for name, value in batch.items()}
                    count = objective.weights(part).sum()
                    found.append((objective.measure(part) * count, count))
            mx.eval(found)
        return sum(float(loss) for loss, _ in found), sum(float(count) for _, count in found)

    def mean(part: Any, n: int) -> float:
        total = weight = 0.0
        for i in range(ranks.rank, min(n, len(part)) if n else len(part), ranks.size):
            loss, count = sums(arrays(part[i]))
            total, weight = total + loss, weight + count
        total, weight = ranks.total([total, weight])
        return total / max(weight, 1.0)

    def hook(step: int) -> dict[str, float]:
        parts: dict[str, Any] = getattr(source, "parts", {})
        if not parts:
            return {"loss": mean(source, n)}
        # Corpora that are mixed are measured apart; the whole weighs them as the rows that train.
        found = {name: mean(part, -(-n // len(parts))) for name, part in parts.items()}
        whole = sum(source.weights[name] * loss for name, loss in found.items())
        return {"loss": whole, **{f"loss.{name}": loss for name, loss in found.items()}}

    return hook
