"""One turn of an answer: what it continues, and the request that is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tinygpt.infer.best import check
from tinygpt.infer.request import Constraint, Request
from tinygpt.serve.fields import FieldError
from tinygpt.serve.job import Delta, Done, Event, Job, Text
from tinygpt.serve.rows import Row
from tinygpt.serve.stream import Parser

if TYPE_CHECKING:
    from tinygpt.infer.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What an answer continues: ids, its constraints (one an answer), and how its text is taken apart; of a
    conversation the messages and tools that the ids stand for."""

    ids: list[int]
    stop_ids: frozenset[int]
    constraints: Sequence[Constraint | None]
    boundaries: tuple[int, ...] = ()
    parser: Callable[[], Parser | None] = lambda: None
    said: Sequence[Mapping[str, Any]] = ()
    shown: Sequence[Mapping[str, Any]] = ()


def count(job: Job) -> int:
    """Answers that are written."""
    check(job.n, job.best_of)
    return max(job.n, job.best_of or 0)


def stop_ids(engine: Engine, job: Job) -> frozenset[int]:
    """What ends an answer. FieldError where the job names ids that the model has not."""
    check_ids(engine, "logit_bias", [id for id, _ in job.config.biases])
    check_ids(engine, "stop_token_ids", job.stop_ids or ())
    usual = frozenset[int]() if job.ignore_stop_ids else engine.stop_ids
    return usual | frozenset(job.stop_ids or ())


def check_ids(engine: Engine, name: str, ids: Sequence[int]) -> None:
    n_vocab = engine.model.config.vocab_size
    if (wrong := next((i for i in ids if not 0 <= i < n_vocab), None)) is not None:
        raise FieldError(f"'{name}' names the id {wrong}, the model has 0 to {n_vocab - 1}", param=name)


def seed(seed: int | None, index: int) -> int:
    assert seed is not None
    return seed + index


def request(
    engine: Engine,
    turn: Turn,
    config: Any,
    constraint: Constraint | None,
    logprobs: int | None,
    echo: bool,
    score: bool,
) -> Request:
    """On the device's thread. Where only the prompt is scored it may fill the context."""
    full = score and len(turn.ids) > 1 and len(turn.ids) == engine.context
    request = engine.request(
        turn.ids[:-1] if full else turn.ids,
        replace(config, max_tokens=1) if score else config,
        stop_ids=turn.stop_ids,
        logprobs=logprobs,
        echo=echo,
        constraint=constraint,
    )
    changes: dict[str, Any] = {"prompt": list(turn.ids), "room": 0} if full else {}
    return replace(request, boundaries=turn.boundaries, **changes)


def echoed(engine: Engine, job: Text, turn: Turn, row: Row) -> Delta:
    """The prompt as an answer's beginning."""
    text = job.prompt if isinstance(job.prompt, str) else engine.tokenizer.decode(turn.ids)
    return Delta(index=row.index, text=text, tokens=row.prompt() if row.report else ())


def scored(event: Event) -> Event:
    if isinstance(event, Done):
        return replace(event, finish_reason="length", usage=replace(event.usage, completion_tokens=0))
    return event
