"""How much of its training rows a model knows by heart: it is given their first tokens and goes on alone.

A row counts when the `length` tokens that follow its first `prefix` ones are written exactly. Between the
base and what was trained on it the difference is what tuning put there: a base may know a row already.
Source: Carlini et al., ICLR 2023, arXiv:2202.07646, section 3 (extractable with a prefix, greedy decoding).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinygpt.core.errors import ConfigError, DataError

Write = Callable[[list[list[int]], int], list[list[int]]]
"""write(prompts, n): the n likeliest tokens after each prompt, one after another."""


@dataclass(frozen=True, kw_only=True)
class Memorised:
    """`verbatim` of `rows` were written exactly; `matched` is the mean share of tokens until the first that
    differs. `short` rows have too few tokens to be asked."""

    rows: int
    verbatim: int
    matched: float
    short: int

    @property
    def share(self) -> float:
        return self.verbatim / max(1, self.rows)


def memorised(
    rows: Sequence[Sequence[int]], write: Write, *, prefix: int = 40, length: int = 20
) -> Memorised:
    """Ask for the continuation of every row that is long enough."""
    if prefix < 1 or length < 1:
        raise ConfigError(f"a prefix of {prefix} and {length} tokens after it ask for nothing")
    asked = [list(ids) for ids in rows if len(ids) >= prefix + length]
    if not asked:
        raise DataError(
            f"none of the {len(rows)} rows has {prefix + length} tokens",
            hint="ask with a shorter prefix or for fewer tokens",
        )
    written = write([ids[:prefix] for ids in asked], length)
    same = [_same(ids[prefix : prefix + length], got) for ids, got in zip(asked, written, strict=True)]
    return Memorised(
        rows=len(asked),
        verbatim=sum(n == length for n in same),
        matched=sum(same) / (length * len(asked)),
        short=len(rows) - len(asked),
    )


def _same(expected: Sequence[int], got: Sequence[int]) -> int:
    """How many tokens agree before the first that does not."""
    return next((i for i, (a, b) in enumerate(zip(expected, got)) if a != b), min(len(expected), len(got)))
