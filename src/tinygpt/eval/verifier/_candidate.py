"""Answers to choose from, and what a verifier is given to judge them with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tinygpt.eval.endpoint import Endpoint, Prompt


@dataclass(frozen=True, kw_only=True)
class Case:
    """A prompt: as it was given, as text and as ids, with the answer that is expected (None: nothing is
    said)."""

    prompt: Prompt
    text: str
    ids: list[int]
    expected: str | None = None
    row: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An answer; `ids` leave out the stop id."""

    text: str
    ids: list[int]


@dataclass
class Judging:
    """What verifiers may use: the model that wrote the answers, a way to open another, and a count of the
    answers that could not be judged, which have the lowest score."""

    model: Endpoint
    open: Callable[[Path], Endpoint]
    n_failed: int = 0
    last_error: str = ""

    def failed(self, why: str) -> None:
        """Count an answer that could not be judged."""
        self.n_failed += 1
        self.last_error = why


class Verify(Protocol):
    """Scores of some answers to one prompt; larger is better."""

    def __call__(self, case: Case, candidates: Sequence[Candidate]) -> list[float]: ...
