"""Rows through filters: conditions, length, language, repetition, a score, secrets, private data.

A filter leaves a row out and says why, or changes it. The same filters are stages that a file of settings can
name: `length`, `language`, `repetition`, `secrets` and `pii` below take (options, seed) and give a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

from tinygpt.core import config as configs
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data import language as languages
from tinygpt.data import repetition as repetitions
from tinygpt.data import scrub
from tinygpt.data.scrub import Found, Scrubber
from tinygpt.data.where import Condition

Row = Any
Step = Callable[[Row], "Row | str"]
How = Literal["redact", "drop", "none"]


class Scorer(Protocol):
    """What gives texts a probability."""

    def score(self, texts: Sequence[str]) -> Sequence[float]: ...


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
        """What becomes of some rows, each by itself."""
        return [self.row(row) for row in rows]

    def row(self, row: Row) -> Outcome:
        """What becomes of one."""
        for condition in self.where:
            if not condition.holds(row):
                return Outcome(reason=f"not {condition.said}")
        said = list(scrub.texts(row))
        for judge in (self._length, self._language, self._repetition, self._score):
            reason, figure = judge(said)
            if reason:
                return Outcome(reason=reason, figure=figure)
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

    def _score(self, said: Sequence[str]) -> tuple[str, float | str | None]:
        if self.scorer is None:
            return "", None
        score = float(self.scorer.score(["\n".join(said)])[0])
        return ("toxic", round(score, 4)) if score >= self.most else ("", None)


@dataclass(frozen=True, kw_only=True)
class Language:
    """Which languages stay."""

    languages: Annotated[tuple[str, ...], "Codes such as en and de."]
    language_min: Annotated[float, "Least probability of the language."] = 0.5


@dataclass(frozen=True, kw_only=True)
class Pii:
    """What counts as private, and what becomes of it."""

    pii: Annotated[tuple[str, ...], "auto, all, or names of recognisers."] = ("auto",)
    drop: Annotated[bool, "Leave the row out; false: put [EMAIL] and the like in its place."] = False


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """What becomes of secrets."""

    drop: Annotated[bool, "Leave the row out; false: put [SECRET] in its place."] = False


def _step(filters: Filters) -> Step:
    def step(row: Row) -> Row | str:
        outcome = filters.row(row)
        return outcome.reason or outcome.row

    return step


def language(options: Mapping[str, Any], seed: int) -> Step:
    """Leave out what is in other languages."""
    known = configs.from_dict(Language, options, "stages.language")
    codes = languages.checked(known.languages)
    if not codes:
        raise ConfigError("stages.language names no language", hint='languages = ["en"]')
    return _step(Filters(languages=codes, language_min=known.language_min))


def repetition(options: Mapping[str, Any], seed: int) -> Step:
    """Leave out what repeats itself."""
    if options:
        raise ConfigError(f"stages.repetition has no options, got {', '.join(options)}")
    return _step(Filters(repetition=True))


def pii(options: Mapping[str, Any], seed: int) -> Step:
    """Take private data out, or the rows that hold any."""
    known = configs.from_dict(Pii, options, "stages.pii")
    return _step(Filters(pii=scrub.named(known.pii), drop_pii=known.drop))


def secrets(options: Mapping[str, Any], seed: int) -> Step:
    """Take secrets out, or the rows that hold any."""
    known = configs.from_dict(Secrets, options, "stages.secrets")
    return _step(Filters(secrets="drop" if known.drop else "redact"))
