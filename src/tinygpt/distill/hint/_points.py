"""What hints have in common: which layers are compared, what a pass shows of them, and learned projections.

A hint is `build(config, student, teacher) -> Hint`, of the points (names and shapes) that a tap meets in both
models. Shapes: B rows, L tokens.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.model.frame import Tap
from tinygpt.model.seeds import key_of

Seen = dict[str, mx.array]
Shapes = Mapping[str, tuple[int, ...]]


class Hint(Protocol):
    """What is compared. `points` are the names that are looked at, of the student and of the teacher;
    `projections` is what learns beside the student, None where nothing does."""

    points: tuple[frozenset[str], frozenset[str]]
    projections: Projections | None

    def losses(self, student: Seen, teacher: Seen, segments_BL: mx.array) -> mx.array:
        """(B, L): how far the two are apart at each place."""
        ...


class Projections(nn.Module):
    """Matrices (W_teacher, W_student) by layer of the student, drawn from `seed`."""

    def __init__(self, widths: Mapping[int, tuple[int, int]], seed: int) -> None:
        super().__init__()
        for layer, (narrow, wide) in widths.items():
            key = key_of(seed, f"hints.{layer}")
            self[f"layer_{layer}"] = mx.random.normal((wide, narrow), key=key) * narrow**-0.5

    def __call__(self, layer: int, x: mx.array) -> mx.array:
        """x (..., W_student) as the teacher has it; where there is no matrix, as it is."""
        matrix = self.get(f"layer_{layer}")
        return x if matrix is None else x @ matrix.T


def shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Every point that a tap meets in a model, with its shape for two tokens; nothing is computed."""
    found: dict[str, tuple[int, ...]] = {}

    def tap(name: str, x: mx.array) -> mx.array:
        found[name] = tuple(x.shape)
        return x

    model(mx.zeros((1, 2), mx.int32), tap=tap)
    return found


def looking(points: Collection[str]) -> tuple[Seen, Tap | None]:
    """(what a pass will have shown at these points, the tap that keeps it)."""
    seen: Seen = {}

    def tap(name: str, x: mx.array) -> mx.array:
        if name in points:
            seen[name] = x
        return x

    return seen, tap if points else None


def depth(points: Shapes) -> int:
    """How many blocks these points belong to."""
    return 1 + max(
        (int(found[1]) for name in points if (found := re.match(r"blocks\.(\d+)\.", name))), default=-1
    )


def pairs(
    given: Sequence[str], student: Shapes, teacher: Shapes, usual: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """The layers to compare. ConfigError for pairs that are none, and layers that are not there."""
    if not given:
        return list(usual)
    found: list[tuple[int, int]] = []
    for pair in given:
        match = re.fullmatch(r"(\d+):(\d+)", pair.strip())
        if match is None:
            raise ConfigError(f"hint.layers: '{pair}' is no pair student:teacher", hint="such as 0:1,3:11")
        layers = int(match[1]), int(match[2])
        for who, layer, n in zip(
            ("student", "teacher"), layers, (depth(student), depth(teacher)), strict=True
        ):
            if layer >= n:
                raise ConfigError(f"hint.layers: the {who} has no layer {layer}, only 0 to {n - 1}")
        found.append(layers)
    if len({layer for layer, _ in found}) < len(found):
        raise ConfigError("hint.layers names a layer of the student twice", hint="leave one of them out")
    return found


def spread(student: Shapes, teacher: Shapes) -> list[tuple[int, int]]:
    """Every layer of the student beside one of the teacher, evenly spread; the last beside the last."""
    n, m = depth(student), depth(teacher)
    return [(i, max(0, round((i + 1) * m / n) - 1)) for i in range(n)]


def need(point: str, there: Shapes, who: str) -> str:
    """The name of a point. ConfigError where a model does not show it."""
    if point not in there:
        raise ConfigError(
            f"the {who} does not show '{point}', which this hint compares",
            hint="choose another --hint, or leave it out",
        )
    return point
