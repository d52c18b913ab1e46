"""What stages of rows have in common: what they get and give, and how they know a row again.

A stage is a file of `data/stage/`. Its `build(config, context)` gives a step, which keeps a row, changes it,
or says why it goes no further. A step sees one row at a time, in order, so what it remembers it must keep
small.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tinygpt.core.family import Family

Row = dict[str, Any]
Step = Callable[[Row], "Row | str"]

STAGES = Family("tinygpt.data.stage", verb="build")
ASIDE = ("metadata", "_meta", "id", "source")  # columns that say where a row is from, not what it is


class Scorer(Protocol):
    """What gives texts a probability."""

    def score(self, texts: Sequence[str]) -> Sequence[float]: ...


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a run hands to its stages: the seed of what they draw, and how a classifier is opened."""

    seed: int
    classifier: Callable[[Path], Scorer]


def digest(row: Row, *, fold: bool = False, salt: str = "") -> bytes:
    """What a row is known by: 16 bytes of a hash of its keys and values, without those of ASIDE."""
    total = hashlib.sha256(salt.encode())

    def add(value: Any) -> None:
        if isinstance(value, Mapping):
            total.update(b"{")
            for key in sorted(map(str, value)):
                if key not in ASIDE:
                    total.update(key.encode("utf-8", "surrogatepass") + b":")
                    add(value.get(key))
        elif isinstance(value, list):
            total.update(b"[")
            for one in value:
                add(one)
        else:
            text = " ".join(value.casefold().split()) if fold and isinstance(value, str) else str(value)
            total.update(text.encode("utf-8", "surrogatepass") + b"\0")

    add(row)
    return total.digest()[:16]


def drawn(row: Row, seed: int, purpose: str) -> float:
    """A number in [0, 1) that a row has for a purpose, the same on every machine; rows that differ in case
    and spaces alone have the same."""
    return int.from_bytes(digest(row, fold=True, salt=f"{seed} {purpose} ")[:8], "big") / 2**64
