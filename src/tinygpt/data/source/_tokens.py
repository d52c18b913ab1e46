"""Rows of tokens: ids that were recorded, of which some are learned; nothing is tokenised again.

    {"ids": [...], "learn": [0, 1, ...], "tokenizer_hash": "..."}

`learn` says of each id whether it is a target. The ids mean what one tokenizer says they mean, so a row of
another one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer

SHAPE = "{ids, learn, tokenizer_hash}"


@dataclass(frozen=True)
class Tokens:
    """Ids, and for each whether it is learned."""

    ids: list[int]
    learn: list[bool]

    def last(self) -> Tokens:
        """With the last stretch of learned ids alone."""
        begin = end = len(self.learn) - self.learn[::-1].index(True)
        while begin and self.learn[begin - 1]:
            begin -= 1
        return Tokens(self.ids, [begin <= i < end for i in range(len(self.ids))])


def is_tokens(row: Any) -> bool:
    """Whether a row is one of tokens."""
    return isinstance(row, Mapping) and "ids" in row and "learn" in row


def to_tokens(row: Mapping[str, Any], tokenizer: Tokenizer) -> Tokens:
    """A row, checked. DataError says what does not fit; ConfigError where it is another tokenizer's."""
    given = row.get("tokenizer_hash")
    if not isinstance(given, str) or not given:
        raise DataError("a row of ids must have the 'tokenizer_hash' of the tokenizer that they are from")
    if given != tokenizer.hash:
        raise ConfigError(
            f"there are ids of another tokenizer ({given[:12]}, not {tokenizer.hash[:12]}) in --data",
            hint="tune the model that wrote them, or make rows of text: traces-to-data without --token-exact",
        )
    ids, learn = row["ids"], row["learn"]
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < tokenizer.vocab_size for i in ids):
        raise DataError(f"'ids' must be whole numbers from 0 to {tokenizer.vocab_size - 1}")
    if not isinstance(learn, list) or len(learn) != len(ids) or any(one not in (0, 1) for one in learn):
        raise DataError("'learn' must have 0 or 1 for each of the ids")
    if not any(learn[1:]):
        raise DataError("none of the ids is learned; the first cannot be")
    return Tokens(ids, [bool(one) for one in learn])
