"""Spans: a rendered conversation in pieces, each marked with whether the model learns it.

A template returns spans instead of one string for two reasons. The loss mask is exact, because every span is
encoded by itself. And text that people wrote can never become a control token, because only spans marked
`special` may.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer


@dataclass(frozen=True)
class Span:
    """A piece of rendered text. `learn`: it is a target. `special`: it is the name of one control token."""

    text: str
    learn: bool = False
    special: bool = False


def join(spans: Iterable[Span]) -> str:
    """The conversation as one string, as a person would read it."""
    return "".join(span.text for span in spans)


def plan(spans: Iterable[Span], tokenizer: Tokenizer) -> list[Span]:
    """The pieces that are encoded one by one: neighbours that are alike become one piece.

    Joining "user\\n" with what follows gives the ids that other libraries get from the whole string. The
    border between prompt and answer stays, because at run time the prompt is encoded before the answer
    exists. A control token that the tokenizer does not know is plain text.
    """
    pieces: list[Span] = []
    for span in spans:
        special = span.special and span.text in tokenizer.special
        last = pieces[-1] if pieces else None
        if last and not special and not last.special and last.learn == span.learn:
            pieces[-1] = Span(last.text + span.text, last.learn)
        elif span.text:
            pieces.append(Span(span.text, span.learn, special))
    return pieces


def encode(spans: Iterable[Span], tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """Token ids of a conversation, and for each whether it is learned."""
    ids, learn = encode_many([list(spans)], tokenizer)[0]
    return ids, learn


def encode_many(
    conversations: Sequence[Sequence[Span]], tokenizer: Tokenizer
) -> list[tuple[list[int], list[bool]]]:
    """`encode` for many conversations at once; every distinct piece is encoded once."""
    plans = [plan(spans, tokenizer) for spans in conversations]
    texts = dict.fromkeys(piece.text for pieces in plans for piece in pieces if not piece.special)
    known = dict(zip(texts, tokenizer.encode_batch(list(texts)), strict=True))
    results: list[tuple[list[int], list[bool]]] = []
    for pieces in plans:
        ids: list[int] = []
        learn: list[bool] = []
        for piece in pieces:
            piece_ids = [tokenizer.special[piece.text]] if piece.special else known[piece.text]
            ids += piece_ids
            learn += [piece.learn] * len(piece_ids)
        results.append((ids, learn))
    return results
