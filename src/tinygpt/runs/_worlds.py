"""Simulated worlds by name, and their training tasks."""

from __future__ import annotations

from typing import Any

from tinygpt.core.family import Family

WORLDS = Family("tinygpt.data.world", verb="check")
HELD_OUT = 400  # tasks of each held-out set that no task here may repeat


def tasks(world: Any, *, n: int, first: int, seed: int) -> list[Any]:
    """The training tasks `first` to `first + n` of a world, none of which is a held-out one."""
    return world.splits(seed, first + n, HELD_OUT)["train"][first:]
