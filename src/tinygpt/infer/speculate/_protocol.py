"""What a way of guessing offers: sessions that follow the rows of a batch, and proposals for a pass to check.

Shapes: B rows, K guessed tokens, N = K + 1 nodes of a pass (node 0 is the token that is known already, and not
yet in the caches; node j is guess j), D width of features, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from tinygpt.core.backend import mx
from tinygpt.infer.request import Answer

if TYPE_CHECKING:
    from tinygpt.infer.speculate._verify import Rules

Seen = dict[str, mx.array]  # activations of a pass by the names of their points


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Guesses for all rows of a batch.

    tokens:  (B, K) ids.
    counts:  how many of them are a row's guesses; those after them only fill the table.
    parents: of each node 1..K of a row, the node that it follows; None: each follows the one before it.
    q:       (B, K, V) probabilities that each guess was drawn from; None where it follows from the text alone.
    """

    tokens: mx.array
    counts: list[int]
    parents: list[list[int]] | None = None
    q: mx.array | None = None


class Drafting(Protocol):
    """Guesses for the rows of one batch, which come and go. After each pass `settle` says what stayed."""

    def read(self, tokens_BL: mx.array, seen: Seen) -> None:
        """The model has read more of the prompts."""
        ...

    def extend(self, other: Self) -> None:
        """Take in the rows of another session, after the own ones."""
        ...

    def filter(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order; one may come twice."""
        ...

    def propose(self, rows: Sequence[Answer], rules: Rules, most: Sequence[int]) -> Proposal | None:
        """Guesses of what follows each row's text, at most so many of each row in a line; None: none at
        all. What a row gets must not depend on its neighbours."""
        ...

    def settle(self, seen: Seen, paths: Sequence[Sequence[int]]) -> None:
        """The pass is over: of each row these nodes stayed, from node 0 on."""
        ...


class Drafter(Protocol):
    """A way of guessing for one engine.

    most:   guesses of a row in one pass, at most.
    points: names of the activations that it wants to see, as `tap` gives them.
    note:   what a person should know of how it works with this model, or "".
    """

    @property
    def most(self) -> int: ...

    @property
    def points(self) -> frozenset[str]: ...

    @property
    def note(self) -> str: ...

    def begin(self, pads: Sequence[int]) -> Drafting:
        """A session of rows that are padded at the left by so many tokens, of which nothing was read."""
        ...
