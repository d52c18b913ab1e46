"""What a loss must know of the whole batch before any part's gradient: sums of one forward pass."""

from __future__ import annotations

from collections.abc import Callable

from tinygpt.core import backend
from tinygpt.core.backend import mx
from tinygpt.train.protocols import SURVEY, Tensors
from tinygpt.train.world import World


def sums(survey: Callable[[Tensors], Tensors], batch: Tensors) -> Tensors:
    """survey(batch), on CPUs each core taking some rows."""
    total: Tensors = {}
    lanes = backend.streams(len(batch["tokens"]))
    for i, lane in enumerate(lanes):
        with mx.stream(lane):
            found = survey({name: value[i :: len(lanes)] for name, value in batch.items()})
        total = {name: total[name] + value if total else value for name, value in found.items()}
    return total


def add(parts: list[Tensors], call: Callable[[Tensors], Tensors], world: World) -> None:
    """Give every part the sums of call(part) over all parts of all processes, under `SURVEY + name`, once a
    row, so that it is split as all else is."""
    total: Tensors = {}
    for part in parts:
        with backend.shards(backend.streams(len(part["tokens"]))):
            found = call(part)
            mx.eval(found)
        total = {name: total[name] + value if total else value for name, value in found.items()}
    total = world.sum(total)
    for part in parts:
        part |= {SURVEY + name: mx.full((len(part["tokens"]),), value) for name, value in total.items()}
