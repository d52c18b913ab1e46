"""Rows through filters: conditions, length, language, repetition, a score, secrets, private data.

A filter leaves a row out and says why, or changes it. Stages of `data/stage/` are made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tinygpt.core.errors import DataError
from tinygpt.data import language as languages
from tinygpt.data import repetition as repetitions
from tinygpt.data import scrub
from tinygpt.data.scrub import Found, Scrubber
from tinygpt.data.stages import Scorer, Step
from tinygpt.data.where import Condition

Row = Any
How = Literal["redact", "drop", "none"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a row: what is left of it, or why nothing is; and what was found in it."""

    row: Row = None
    reason: str = ""
    figure: float | str | None = None  # what the reason goes by
    found: Sequence[Found] = ()


@dataclass(frozen=True, kw_only=True)
class Filters:
    """All that a row goes through, in this order. It is what pickle takes."""

    where: tuple[Condition, ...] = ()
    min_chars: int = 0
    max_chars: int = 0
    languages: tuple[str, ...] = ()
    language_min: float = 0.5
    repetition: bool = False
    scorer: Scorer | None = None
    most: float = 1.0
    secrets: How = "none"
    pii: tuple[str, ...] = ()
    drop_pii: bool = False
    _scrubber: list[Scrubber] = field(default_factory=list[Scrubber], repr=False, compare=False)

    def rows(self, rows: Sequence[Row]) -> list[Outcome]:
        """What becomes of some rows, each by itself; they are scored together, which takes a tenth."""
        said = [list(scrub.texts(row)) for row in rows]
        found = [self._judged(row, texts) for row, texts in zip(rows, said)]
        left = [i for i, outcome in enumerate(found) if outcome is None]
        if self.scorer is not None and left:
            scores = self.scorer.score(["\n".join(said[i]) for i in left])
            for i, score in zip(left, map(float, scores), strict=True):
                if score >= self.most:
                    found[i] = Outcome(reason="toxic", figure=round(score, 4))
        return [self._scrubbed(row) if outcome is None else outcome for row, outcome in zip(rows, found)]

    def row(self, row: Row) -> Outcome:
        """What becomes of one."""
        return self.rows([row])[0]

    def _judged(self, row: Row, said: Sequence[str]) -> Outcome | None:
        """Why a row is left out before it is scored."""
        for condition in self.where:
            if not condition.holds(row):
                return Outcome(reason=f"not {condition.said}")
        for judge in (self._length, self._language, self._repetition):
            reason, figure = judge(said)
            if reason:
                return Outcome(reason=reason, figure=figure)
        return None

    def _scrubbed(self, row: Row) -> Outcome:
        """What private data and secrets make of a row."""
        if self.secrets == "none" and not self.pii:
            return Outcome(row=row)
        if not self._scrubber:
            self._scrubber.append(Scrubber(self.pii, secret=self.secrets != "none"))
        try:
            changed, found = self._scrubber[0].row(row)
        except DataError as error:  # what cannot be looked through does not pass
            return Outcome(reason=error.message)
        names = {one.recogniser.partition(":")[0] for one in found}
        if self.secrets == "drop" and scrub.SECRET in names:
            return Outcome(reason="a secret", found=found)
        if self.drop_pii and names - {scrub.SECRET}:
            return Outcome(reason="private data", found=found)
        return Outcome(row=changed, found=found)

    def _length(self, said: Sequence[str]) -> tuple[str, float | str | None]:
        n = sum(map(len, said))
        if n < self.min_chars:
            return f"shorter than {self.min_chars} letters", n
        return ("longer than " + f"{self.max_chars} letters", n) if 0 < self.max_chars < n else ("", None)

    def _language(self, said: Sequence[str]) -> tuple[str, float | str | None]:
        if not self.languages:
            return "", None
        code, probability = languages.of("\n".join(said))
        if not code or (code in self.languages and probability >= self.language_min):
            return "", None
        return ("another language", code) if code not in self.languages else ("no clear language", code)

    def _repetition(self, said: Sequence[str]) -> tuple[str, float | str | None]:
        why = next(filter(None, map(repetitions.reason, said)), "") if self.repetition else ""
        return ("repetition", why) if why else ("", None)


def step(filters: Filters) -> Step:
    """The filters as a stage."""

    def one(row: Row) -> Row | str:
        outcome = filters.row(row)
        return outcome.reason or outcome.row

    return one
