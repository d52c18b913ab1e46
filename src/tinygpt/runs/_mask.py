"""Rows as they will be learned: every token, and whether it is a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer


class Masked(Protocol):
    """Ids of an example and, for each, whether it is learned."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def learn(self) -> list[bool]: ...


@dataclass(frozen=True)
class MaskedRow:
    """One row: `tokens` are the texts of `ids`, and joined they are the row's text."""

    ids: list[int]
    tokens: list[str]
    learned: list[bool]

    def runs(self) -> list[tuple[str, bool]]:
        """Neighbouring tokens that are alike, as (text, learned)."""
        found: list[tuple[str, bool]] = []
        for token, learned in zip(self.tokens, self.learned, strict=True):
            if found and found[-1][1] == learned:
                found[-1] = found[-1][0] + token, learned
            elif token:
                found.append((token, learned))
        return found


def mask_view(
    examples: Sequence[Masked], tokenizer: Tokenizer, n: int, *, learn_all: bool = False
) -> list[MaskedRow]:
    """The first n examples. A character of several tokens is the text of the last of them. `learn_all`: every
    token is a target, but the first, which nothing comes before."""
    return [_row(one, tokenizer, learn_all) for one in examples[:n]]


def _row(example: Masked, tokenizer: Tokenizer, learn_all: bool) -> MaskedRow:
    learned = [learn_all or learn for learn in example.learn]
    learned[0] = False
    stream = tokenizer.stream()
    tokens: list[str] = []
    for i, id in enumerate(example.ids):
        tokens.append(stream.add(id))
        if i + 1 == len(example.ids) or learned[i] != learned[i + 1]:
            tokens[-1] += stream.flush()
    return MaskedRow(list(example.ids), tokens, learned)
