"""Requests and the tools that serve them: read, cleaned, split by seed and class, weighed by class.

A request counts once, whatever its letters' case and its spaces; one that comes with two tools teaches
neither. So no text is on two sides of the split, and every class is on both of them in its share. Class c of
n_c among N requests of C classes weighs (N / (C n_c))^balance, scaled so that the mean over requests is 1:
with balance 0 frequent tools rule, with 1 every tool counts the same.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import DataError
from tinygpt.data import table
from tinygpt.data.message import text_of
from tinygpt.data.requests import NOTHING
from tinygpt.data.tally import Tally

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Pair = tuple[str, str]
"""A request and the name of its tool, NOTHING where none serves it."""
SHAPE = "{query, tool}, where no tool serves it tool: null"


def read(paths: Iterable[Path], tally: Tally, *, unserved: bool = False) -> Iterator[Pair]:
    """The pairs of some files; rows that are none are counted. With `unserved` no tool serves any of them,
    and rows need none."""
    for path in paths:
        for number, row in table.records(path):
            try:
                pair = _pair(row(), unserved)
            except DataError as error:
                tally.drop(error.message, f"{path.name} {table.unit(path)} {number}")
                continue
            tally.keep()
            yield pair


def _pair(row: Any, unserved: bool) -> Pair:
    if not isinstance(row, dict):
        raise DataError(f"no {SHAPE}")
    query = row.get("query")
    if not isinstance(query, str) or not query.strip():
        raise DataError("there is no 'query'")
    text_of(query, "query")
    if unserved:
        return query, NOTHING
    if "tool" not in row and "gold_tool" not in row:
        raise DataError("there is no 'tool'")
    tool = row.get("tool", row.get("gold_tool"))
    if tool is not None and not isinstance(tool, str):
        raise DataError("'tool' is no name")
    return query, text_of(tool or "", "tool").strip() or NOTHING


def folded(query: str) -> str:
    """What a request is known by."""
    return " ".join(query.casefold().split())


def cleaned(pairs: Iterable[Pair], tally: Tally, *, known: Iterable[str] = ()) -> list[Pair]:
    """The pairs without doubles, contradictions, and folded requests that are `known` from elsewhere."""
    tools: dict[str, dict[str, str]] = {}
    known = frozenset(known)
    for query, tool in pairs:
        found = tools.setdefault(folded(query), {})
        if tool in found:
            tally.drop("a duplicate")
        found.setdefault(tool, query)
    kept: list[Pair] = []
    for key, found in tools.items():
        if len(found) > 1:
            for _ in found:
                tally.drop("the same request with several tools")
        elif key in known:
            tally.drop("among those that the report is made on")
        else:
            tally.keep()
            kept += [(query, tool) for tool, query in found.items()]
    return kept


def split(pairs: Sequence[Pair], shares: Sequence[float], seed: int) -> list[list[Pair]]:
    """The pairs in len(shares) + 1 parts: those left over first, then of every class each share, drawn by
    the seed. A class that a share gives no whole request is in that part by the chance of its fraction; one
    request of each class at least is left over."""
    parts: list[list[Pair]] = [[] for _ in range(len(shares) + 1)]
    for tool in sorted({tool for _, tool in pairs}):
        mine = sorted((pair for pair in pairs if pair[1] == tool), key=lambda p: _order(seed, p[0]))
        rng = Random(f"{seed} split {tool}")
        at = 1
        for part, share in zip(parts[1:], shares, strict=True):
            n = int(share * len(mine) + rng.random())
            part += mine[at : at + n]
            at += n
        parts[0] += [mine[0], *mine[at:]]
    for number, part in enumerate(parts):
        part.sort(key=lambda p: _order(seed + number, p[0]))
    return parts


def _order(seed: int, query: str) -> bytes:
    return hashlib.sha256(f"{seed} {folded(query)}".encode("utf-8", "surrogatepass")).digest()


def labels(pairs: Iterable[Pair]) -> tuple[str, ...]:
    """The classes in the order of their ids: the tools by name, and last what no tool serves."""
    found = {tool for _, tool in pairs}
    return (*sorted(found - {NOTHING}), *([NOTHING] if NOTHING in found else []))


def weights(numbers: Sequence[int], n_classes: int, balance: float) -> NDArray[np.float32]:
    """(C,) what a request of each class counts; `numbers` are the classes of the requests."""
    import numpy as np

    counts = Counter(numbers)
    n = np.array([max(1, counts[c]) for c in range(n_classes)], float)
    raw = (len(numbers) / (n_classes * n)) ** balance
    mean = sum(raw[c] * counts[c] for c in range(n_classes)) / max(1, len(numbers))
    return (raw / mean).astype(np.float32)
