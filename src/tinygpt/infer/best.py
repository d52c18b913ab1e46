"""Several answers to one prompt: each with a seed of its own, and the likeliest of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tinygpt.core.errors import ConfigError
from tinygpt.infer.request import Answer, Request


def several(request: Request, n: int) -> list[Request]:
    """The same request n times; number i has the seed `seed + i`. A constraint serves one answer, so a
    request with one is to be made anew each time."""
    assert request.constraint is None or n == 1, "a constraint serves one answer"
    return [
        dataclasses.replace(request, config=dataclasses.replace(request.config, seed=request.seed + i))
        for i in range(n)
    ]


def mean_logprob(answer: Answer) -> float:
    """log p of an answer's tokens under the model itself, the stop id that ended it included, divided by how
    many they are: long answers and short ones compare. The request must have asked for `logprobs`."""
    assert answer.request.logprobs is not None, "log-probabilities were not asked for"
    by_id = answer.finish_reason == "stop" and answer.stop_text is None
    return answer.logprob_sum / max(1, len(answer.ids) + by_id)


def likeliest(answers: Sequence[Answer], n: int) -> list[Answer]:
    """The n answers with the largest mean log-probability, the likeliest first; of equals the earlier."""
    return sorted(answers, key=mean_logprob, reverse=True)[:n]


def check(n: int, best_of: int | None, *, greedy: bool = False) -> None:
    """ConfigError where so many answers of so many drafts cannot be had."""
    if n < 1:
        raise ConfigError(f"'n' must be at least 1, got {n}")
    if best_of is not None and best_of < n:
        raise ConfigError(f"'best_of' is {best_of}, fewer than the {n} answers that are wanted")
    if greedy and (best_of or n) > 1:
        raise ConfigError("several answers at temperature 0 would be the same one", hint="raise it")
