"""A base with examples in its prompt, how well contestants predict answers, and what that is worth."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from tinygpt.core.rows import EvalRow
from tinygpt.data.rows import Conversation
from tinygpt.data.template._spans import encode_many
from tinygpt.eval.endpoint import Message, Prompt, Reply
from tinygpt.eval.suites._result import Clock, Examples, row
from tinygpt.runs.evaluate import LocalEndpoint

DRAWS = 2000  # of the bootstrap


class FewShot:
    """An endpoint whose every prompt begins with solved examples, as earlier turns."""

    def __init__(self, endpoint: LocalEndpoint, shots: Sequence[Conversation]) -> None:
        self.inner, self.shots = endpoint, [m for shot in shots for m in _turns(shot.messages)]
        self.engine, self.tokenizer, self.context = endpoint.engine, endpoint.tokenizer, endpoint.context
        self.name, self.path, self.step = endpoint.name, endpoint.path, endpoint.step
        self.model_hash, self.baseline = endpoint.model_hash, endpoint.baseline

    def given(self, messages: list[Message]) -> list[Message]:
        """The messages with the examples before them, after their own system message."""
        system = messages[:1] if messages and messages[0]["role"] == "system" else []
        return [*system, *self.shots, *messages[len(system) :]]

    def complete(self, prompts: Sequence[Prompt], **how: Any) -> list[Reply]:
        """Replies to the prompts after the examples."""
        return self.inner.complete([p if isinstance(p, str) else self.given(p) for p in prompts], **how)

    def token_logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        return self.inner.token_logprobs(rows)


def _turns(messages: list[Message]) -> list[Message]:
    return [m for m in messages if m["role"] != "system"]


def answer_nats(endpoint: Any, held_out: Sequence[Conversation]) -> tuple[list[float], list[EvalRow]]:
    """(mean -log p of each row's answer tokens, rows of the mean over all tokens, as loss and perplexity).

    Rows that do not fit the context, examples included, have NaN and are counted as truncated."""
    clock, template = Clock(), endpoint.engine.template
    given = [endpoint.given(c.messages) if isinstance(endpoint, FewShot) else c.messages for c in held_out]
    own = encode_many([list(template.render(c.messages, c.tools)) for c in held_out], endpoint.tokenizer)
    whole = encode_many(
        [list(template.render(m, c.tools)) for m, c in zip(given, held_out)], endpoint.tokenizer
    )
    jobs: list[tuple[int, list[int], set[int]]] = []
    for i, ((_, learn), (ids, on)) in enumerate(zip(own, whole)):
        targets = [at for at, learned in enumerate(on) if learned][-sum(learn) :]  # of the row, not the shots
        if targets[-1] <= endpoint.context:
            jobs.append((i, ids[: targets[-1] + 1], set(targets)))
    scores = endpoint.token_logprobs([ids for _, ids, _ in jobs])
    means, nats, n = [math.nan] * len(held_out), 0.0, 0
    for (i, _, targets), found in zip(jobs, scores, strict=True):
        mine = [-found[at - 1] for at in targets]
        means[i] = math.fsum(mine) / len(mine)
        nats, n = nats + math.fsum(mine), n + len(mine)
    if not n:
        return means, []
    values = {"answer_loss": nats / n, "answer_perplexity": math.exp(min(nats / n, 700.0))}
    version = Examples.of([{"messages": c.messages} for c in held_out]).version
    return means, [
        row(endpoint, "held_out", metric, value, len(jobs), clock.seconds(), version,
            settings={"n_tokens": n}, n_truncated=len(held_out) - len(jobs))
        for metric, value in values.items()
    ]  # fmt: skip


def interval(differences: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of paired differences."""
    draw = random.Random(seed)
    means = sorted(
        math.fsum(draw.choices(differences, k=len(differences))) / len(differences) for _ in range(DRAWS)
    )
    return means[int(0.025 * DRAWS)], means[int(0.975 * DRAWS) - 1]


def worth(losses: dict[str, list[float]], scored: Sequence[EvalRow]) -> list[str]:
    """Whether the adapter was worth training, in sentences that do not flatter."""
    exact = {r.model_name: r for r in scored if r.metric == "exact_match"}
    told: list[str] = []
    better: dict[str, bool | None] = {}
    for rival in ("base", "base + examples"):
        pairs = [b - a for a, b in zip(losses["adapter"], losses[rival]) if not math.isnan(a + b)]
        if not pairs:
            better[rival] = None
            told.append(
                f"No held-out row fits the context of the {rival}, so their losses were not compared."
            )
            continue
        low, high = interval(pairs)
        gain, better[rival] = math.fsum(pairs) / len(pairs), low > 0
        sure = "surely lower" if low > 0 else "surely higher" if high < 0 else "not surely different"
        told.append(
            f"Its loss on answers is {abs(gain):.3f} nats a token {'below' if gain >= 0 else 'above'} "
            f"that of the {rival} ([{low:.3f}, {high:.3f}]; {sure})."
        )
    right = {name: round(r.score * r.n_examples) for name, r in exact.items()}
    n = exact["adapter"].n_examples
    told.append("Exactly right: " + ", ".join(f"{name} {k} of {n}" for name, k in right.items()) + ".")
    best = max(right["base"], right["base + examples"])
    if all(better.values()) and right["adapter"] >= best:
        told.append("The adapter was worth training.")
    elif better["base"] and right["adapter"] >= right["base"]:
        told.append(
            "The adapter beats the base, but examples in the prompt do about as well: it saves their tokens, "
            "no more. More rows or more steps may change that."
        )
    else:
        told.append(
            "The adapter was not worth training: use the base as it is, or give more and better rows."
        )
    return told
