"""Spans: a rendered conversation in pieces, each marked with whether the model learns it.

A template returns spans instead of one string for two reasons. The loss mask is exact, because every span is
encoded by itself. And text that people wrote can never become a control token, because only spans marked
`special` may.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tinygpt.core.errors import DataError

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer


class Span(NamedTuple):
    """A piece of rendered text. `learn`: it is a target. `special`: it is the name of one control token.
    `message`: the number of the assistant's message that it is learned for, from 0; -1 where it is none."""

    text: str
    learn: bool = False
    special: bool = False
    message: int = -1


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
    swallows = tokenizer.swallows
    pieces: list[Span] = []
    for text, learn, special, _ in spans:
        special = special and text in known
        if pieces and not special and pieces[-1][1:3] == (learn, False):
            text = pieces.pop().text + text
        if not special and swallows and pieces and swallows.get(pieces[-1].text, (0, 0))[1]:
            text = text.lstrip() if pieces[-1].special else text
        if special and swallows.get(text, (False, False))[0] and pieces and not pieces[-1].special:
            pieces[-1] = pieces[-1]._replace(text=pieces[-1].text.rstrip())
            if not pieces[-1].text:
                pieces.pop()
        if text:
            pieces.append(Span(text, learn, special))
    return pieces


def answers(spans: Iterable[Span], which: Literal["answers", "last", "all"] = "answers") -> list[Span]:
    """The spans with what is to be learned of them: the assistant's, only its last message's, or all."""
    spans = list(spans)
    if which == "all":
        return [span._replace(learn=True) for span in spans]
    if which == "last":
        last = max((span.message for span in spans if span.learn), default=-1)
        return [span._replace(learn=span.learn and span.message == last) for span in spans]
    return spans


def encode(spans: Iterable[Span], tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """Token ids of a conversation, and for each whether it is learned."""
    ids, learn = encode_many([list(spans)], tokenizer)[0]
    return ids, learn


def encode_many(
    conversations: Sequence[Sequence[Span]], tokenizer: Tokenizer
) -> list[tuple[list[int], list[bool]]]:
    """`encode` for many conversations at once; every distinct piece is encoded once."""
    plans = [plan(spans, tokenizer) for spans in conversations]
    # Some tokenizers put a space before the first word of a text, but not of a piece inside it.
    places = [[_place(pieces, i) for i in range(len(pieces))] for pieces in plans]
    texts: dict[str, dict[str, list[int]]] = {"start": {}, "control": {}, "text": {}}
    for pieces, where in zip(plans, places, strict=True):
        for piece, place in zip(pieces, where, strict=True):
            if not piece.special:
                texts[place][piece.text] = []
    for place, found in texts.items():
        if found:
            ids = (
                tokenizer.encode_batch(list(found))
                if place == "start"
                else tokenizer.encode_inside(list(found), after_control=place == "control")
            )
            found.update(zip(found, ids, strict=True))
    results: list[tuple[list[int], list[bool]]] = []
    for pieces, where in zip(plans, places, strict=True):
        all_ids: list[int] = []
        learn: list[bool] = []
        for piece, place in zip(pieces, where, strict=True):
            piece_ids = [tokenizer.special[piece.text]] if piece.special else texts[place][piece.text]
            all_ids += piece_ids
            learn += [piece.learn] * len(piece_ids)
        results.append((all_ids, learn))
    return results


def _place(pieces: Sequence[Span], i: int) -> str:
    return "start" if i == 0 else "control" if pieces[i - 1].special else "text"


def no_tools(name: str, messages: Sequence[dict[str, Any]], tools: Any) -> None:
    """DataError where a template without a form for tools meets them."""
    if tools or any(m.get("tool_calls") or m["role"] == "tool" for m in messages):
        raise DataError(f"the template {name} has no form for tools", hint="choose chatml, llama3 or mistral")
