"""Compressing a text for a question: its units are scored, and the best that fit are kept in their order.

    s_i = (1 - a) own_i + a max(own_(i-1), own_(i+1))

`own` is between 0 and 1: by `bm25` the score of a unit among the units of its text, over the best one's; by
`head` the probability, as a trained reranker has it, that the unit answers. What answers a question often
stands beside what names its subject ("It was built in 1823."), so neighbours have a part `a` in a score: a
quarter by bm25, none by a head, which has learned what such answers look like. `lead` keeps the beginning.
The best unit stays even where it alone is larger than the room there is.

Paper: Robertson and Zaragoza 2009 (BM25); Hwang et al. 2024, arXiv:2412.12559 (sentences scored by a
trained compressor, with their surroundings).
Differs: the head reads each sentence alone, and neighbours are joined afterwards.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinygpt.core.errors import DataError
from tinygpt.data.bm25 import BM25
from tinygpt.router import compress_units
from tinygpt.router.compress_units import Unit

KINDS = ("bm25", "head", "lead")
NEIGHBOURS = {"bm25": 0.25, "head": 0.0, "lead": 0.0}

Size = Callable[[str], int]
"""How long a text is, in letters or tokens."""
Own = Callable[[str, Sequence[str]], Sequence[float]]
"""Scores of units from 0 to 1, by a question."""


@dataclass(frozen=True)
class Compressed:
    """What is left of a text: the text, its units, their scores, and the numbers of those kept."""

    text: str
    units: list[Unit]
    scores: list[float]
    kept: list[int]


def by_bm25(query: str, texts: Sequence[str]) -> list[float]:
    """Each text's score over the best one's; 0 where no text shares a word with the query."""
    found = BM25(texts).scores(query)
    best = max(found.values(), default=0.0)
    return [found.get(i, 0.0) / best if best > 0 else 0.0 for i in range(len(texts))]


def by_place(query: str, texts: Sequence[str]) -> list[float]:
    """1 for the first, falling to 1/n for the last."""
    return [1 - i / len(texts) for i in range(len(texts))]


def with_neighbours(own: Sequence[float], part: float) -> list[float]:
    """Each score joined with the better of those beside it, which count for `part`."""
    padded = [0.0, *own, 0.0]
    return [(1 - part) * padded[i] + part * max(padded[i - 1], padded[i + 1]) for i in range(1, len(own) + 1)]


def compress(
    text: str,
    query: str,
    own: Own,
    *,
    room: int,
    size: Size = len,
    neighbours: float = 0.0,
    threshold: float = 0.0,
    most: int = 0,
    in_order: bool = False,
) -> Compressed:
    """The units of a text that are best by `own` and fit into `room`. Those that score below `threshold` are
    left out, and beyond the `most` best ones (0: no bound) all. `in_order`: from the first on, until one does
    not fit. DataError where the text holds nothing."""
    units = compress_units.units(text)
    if not units:
        raise DataError("the text is empty", hint="give one with words in it")
    scores = with_neighbours(own(query, [unit.text for unit in units]), neighbours)
    if not threshold and not most and size(text.strip()) <= room:
        return Compressed(text.strip(), units, scores, list(range(len(units))))
    order = range(len(units)) if in_order else sorted(range(len(units)), key=lambda i: (-scores[i], i))
    kept: list[int] = []
    left, gap = room, size("\n\n")
    for i in order:
        if kept and (scores[i] < threshold or len(kept) == most):
            break
        need = size(units[i].text) + (gap if kept else 0)
        if not kept or need <= left:
            kept.append(i)
            left -= need
        elif in_order:
            break
    # What stands between neighbours may be longer than it was reckoned.
    n = bisect.bisect_right(
        range(2, len(kept) + 1), room, key=lambda n: size(compress_units.joined(text, units, kept[:n]))
    )
    kept = kept[: n + 1]
    return Compressed(compress_units.joined(text, units, kept), units, scores, sorted(kept))
