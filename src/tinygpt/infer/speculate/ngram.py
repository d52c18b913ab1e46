"""Prompt lookup: what followed the last few tokens when they stood in the text before is guessed again.

Where a text repeats itself (code that is edited, documents that are quoted, structured answers), the last n
tokens have often been seen: the k tokens after their latest earlier place are the guess. The longest n that is
found counts, from `longest` down to `shortest`. There is nothing to train and no second model, and a guess
costs a look into a table.

Paper: Saxena 2023, "Prompt Lookup Decoding" (github.com/apoorvumang/prompt-lookup-decoding).
Differs: the latest place counts, not the first, and the answer is searched as well as the prompt; an index of
n-grams in the place of a scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.infer.request import Answer
from tinygpt.infer.speculate._batch import check
from tinygpt.infer.speculate._protocol import Proposal, Seen

if TYPE_CHECKING:
    from tinygpt.infer.engine import Engine
    from tinygpt.infer.speculate._verify import Rules


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is looked up, and how much is guessed."""

    tokens: Annotated[int, "Tokens guessed at once."] = 8
    longest: Annotated[int, "Last tokens that are looked for first."] = 3
    shortest: Annotated[int, "Fewest last tokens that are looked for."] = 1

    def __post_init__(self) -> None:
        if self.tokens < 1 or not 1 <= self.shortest <= self.longest:
            raise ConfigError(
                f"lookup needs tokens >= 1 and 1 <= shortest <= longest, got tokens {self.tokens}, "
                f"shortest {self.shortest}, longest {self.longest}"
            )


class _Index:
    """The places of n-grams in a growing text."""

    def __init__(self, config: Config) -> None:
        self._config, self._read = config, 0
        self._after: dict[tuple[int, ...], int] = {}  # n-gram -> the place after its latest one

    def find(self, text: Sequence[int]) -> int | None:
        """The place after the latest earlier one of the text's last tokens."""
        # What ends at the text's end is not entered yet: it would find itself.
        for end in range(max(1, self._read), len(text)):
            for n in range(self._config.shortest, min(self._config.longest, end) + 1):
                self._after[tuple(text[end - n : end])] = end
        self._read = len(text)
        for n in range(min(self._config.longest, len(text)), self._config.shortest - 1, -1):
            if (found := self._after.get(tuple(text[len(text) - n :]))) is not None:
                return found
        return None


class Lookups:
    """The session: an index for each row."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._of: dict[int, tuple[Answer, _Index]] = {}

    def read(self, tokens_BL: mx.array, seen: Seen) -> None:
        """The text is looked at when something is asked."""

    def extend(self, other: Lookups) -> None:
        """Rows bring their text themselves."""

    def filter(self, rows: Sequence[int]) -> None:
        """Indices of answers that ended go."""
        self._of = {key: pair for key, pair in self._of.items() if pair[0].finish_reason is None}

    def propose(self, rows: Sequence[Answer], rules: Rules, most: Sequence[int]) -> Proposal | None:
        """What followed the last tokens before."""
        guesses: list[list[int]] = []
        for row, n in zip(rows, most, strict=True):
            text = row.request.prompt + row.ids
            _, index = self._of.setdefault(id(row), (row, _Index(self._config)))
            at = index.find(text)
            guess: list[int] = []
            for i in range(0 if at is None else at, 0 if at is None else at + n):
                guess.append(text[i] if i < len(text) else guess[i - len(text)])  # what repeats goes on
            guesses.append(guess)
        if not any(guesses):
            return None
        filled = [own + [0] * (self._config.tokens - len(own)) for own in guesses]
        return Proposal(tokens=mx.array(filled), counts=[len(own) for own in guesses])

    def settle(self, seen: Seen, paths: Sequence[Sequence[int]]) -> None:
        """Nothing to take back."""


class Lookup:
    """The drafter."""

    points = frozenset[str]()
    note = ""

    def __init__(self, config: Config) -> None:
        self.config, self.most = config, config.tokens

    def begin(self, pads: Sequence[int]) -> Lookups:
        """A session."""
        return Lookups(self.config)


def build(engine: Engine, config: Config | None = None) -> Lookup:
    """A drafter for an engine; ConfigError where its model cannot be decoded with guesses."""
    check(engine.model)
    return Lookup(config or Config())
