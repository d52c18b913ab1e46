"""Reports of tokens: their own text and bytes, log-probabilities and alternatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinygpt.infer.request import Alternatives
from tinygpt.serve.job import Token

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer


def token(tokenizer: Tokenizer, id: int, logprob: float | None, top: Alternatives = ()) -> Token:
    """One token and its alternatives. Where the token itself is among these, both have the same number."""
    listed = tuple((token(tokenizer, other, value), value) for other, value in top)
    raw = tokenizer.id_to_bytes(id)
    return Token(id, text(raw), raw, logprob, listed)


def text(raw: bytes) -> str:
    """A token's bytes as text; "bytes:\\xe2\\x80" where they are no whole characters, as OpenAI writes it, so
    that different tokens have different texts."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def of_prompt(
    tokenizer: Tokenizer, prompt: Sequence[int], rows: Sequence[tuple[float, Alternatives]]
) -> tuple[Token, ...]:
    """The tokens of a prompt; nothing is known of the first one."""
    first = token(tokenizer, prompt[0], None)
    rest = [token(tokenizer, id, *row) for id, row in zip(prompt[1:], rows, strict=True)]
    return (first, *rest)
