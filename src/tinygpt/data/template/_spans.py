"""Spans: a rendered conversation in pieces, each marked with whether the model learns it.

A template returns spans instead of one string for two reasons. The loss mask is exact, because every span is
encoded by itself. And text that people wrote can never become a control token, because only spans marked
`special` may.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer


class Span(NamedTuple):
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
    known = tokenizer.special
    pieces: list[Span] = []
    for text, learn, special in spans:
        special = special and text in known
        if pieces and not special and pieces[-1][1:] == (learn, False):
            pieces[-1] = Span(pieces[-1].text + text, learn)
        elif text:
            pieces.append(Span(text, learn, special))
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
