"""Answers to one prompt as they come, or the best of them, with what is told of their tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tinygpt.infer import best
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane
from tinygpt.infer.request import Alternatives, Answer, Piece, Request


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A token as reports show it: its text, log p (None: nothing was before it), and the likeliest
    alternatives with theirs."""

    token: str
    id: int
    logprob: float | None
    top: list[tuple[str, int, float]]


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What `sample` gives: a piece of answer number `index` (0: the first), and with its last, which has a
    finish_reason, what is told of all of it. `mean_logprob` is there where log-probabilities are; n_cached:
    tokens of the prompt that were kept and not read."""

    index: int
    text: str
    n_tokens: int
    finish_reason: str | None
    seed: int = 0
    n_cached: int = 0
    mean_logprob: float | None = None
    tokens: list[Scored] | None = None


def answers(
    lane: Lane, requests: Sequence[Request], n: int, *, choose: bool, tell: bool
) -> Iterator[Answered]:
    """Pieces of the answers to these requests, first those of the first; all are written at once. choose:
    each of the n likeliest comes whole, the likeliest first. tell: with their tokens."""
    engine = lane.engine
    heard, kept = list[deque[Piece]](), list[list[Piece]]()
    growing: list[Answer] = []
    for one in requests:
        heard.append(deque())
        kept.append([])
        growing.append(lane.submit(one, heard[-1].append))
    if choose:
        lane.drain()
        drafts = {id(answer): pieces for answer, pieces in zip(growing, heard, strict=True)}
        for i, answer in enumerate(best.likeliest(growing, n)):
            pieces = drafts[id(answer)]
            yield _whole(engine, i, answer, pieces, answer.text, len(pieces), tell)
        return
    for i, (answer, pieces) in enumerate(zip(growing, heard, strict=True)):
        while answer.finish_reason is None or pieces:
            if not pieces:
                lane.step()
                continue
            piece = pieces.popleft()
            kept[i].append(piece)
            if piece.finish_reason is None:
                yield Answered(index=i, text=piece.text, n_tokens=1, finish_reason=None)
            else:
                yield _whole(engine, i, answer, kept[i], piece.text, 1, tell)


def _whole(
    engine: Engine, i: int, answer: Answer, pieces: Sequence[Piece], text: str, n_tokens: int, tell: bool
) -> Answered:
    """The last piece of an answer, with what is told of it."""
    scored = None
    if tell:
        prompt = answer.request.prompt if answer.request.echo else []
        rows: list[tuple[int, float | None, Alternatives]] = [(id, None, ()) for id in prompt[:1]]
        rows += [(id, *told) for id, told in zip(prompt[1:], answer.prompt_logprobs)]
        rows += [(piece.token, piece.logprob, piece.top) for piece in pieces]
        scored = [
            Scored(
                token=_shown(engine, id), id=id, logprob=p, top=[(_shown(engine, j), j, q) for j, q in top]
            )
            for id, p, top in rows
        ]
    return Answered(
        index=i,
        text=text,
        n_tokens=n_tokens,
        finish_reason=answer.finish_reason,
        seed=answer.request.seed,
        n_cached=answer.n_cached,
        tokens=scored,
        mean_logprob=None if answer.request.logprobs is None else best.mean_logprob(answer),
    )


def _shown(engine: Engine, id: int) -> str:
    """A token by itself, as reports name it; a part of a character is shown as one."""
    return engine.tokenizer.decode([id])
