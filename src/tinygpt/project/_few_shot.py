"""A base with examples in its prompt, how well contestants predict answers, and what that is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinygpt.core.rows import EvalRow
from tinygpt.data.rows import Conversation
from tinygpt.data.template._spans import encode_many
from tinygpt.eval.conditions import few_shot
from tinygpt.eval.endpoint import Message, Prompt, Reply
from tinygpt.eval.paired import difference
from tinygpt.eval.suites._result import Clock, Examples, row
from tinygpt.project.quickstart import last_answer
from tinygpt.runs.evaluate import LocalEndpoint

FEWEST = 6  # rows: fewer say nothing at 95 %, even if all of them agree (sign test: 2 / 2^5 = 0.06)
RIVALS = ("base", "base + examples")


class FewShot:
    """An endpoint whose every prompt begins with solved examples, as earlier turns."""

    def __init__(self, endpoint: LocalEndpoint, shots: Sequence[Conversation]) -> None:
        solved = (last_answer(shot) for shot in shots)
        self.inner, self.shots = endpoint, [{"messages": asked, "expected": told} for asked, told in solved]
        self.engine, self.tokenizer, self.context = endpoint.engine, endpoint.tokenizer, endpoint.context
        self.name, self.path, self.step = endpoint.name, endpoint.path, endpoint.step
        self.model_hash, self.baseline, self.facts = endpoint.model_hash, endpoint.baseline, endpoint.facts

    def given(self, messages: list[Message]) -> list[Message]:
        """The messages with the examples before them, after their own system message."""
        return few_shot({"messages": messages}, self.shots)["messages"]

    def complete(self, prompts: Sequence[Prompt], **how: Any) -> list[Reply]:
        """Replies to the prompts after the examples."""
        return self.inner.complete([self.given(p) if isinstance(p, list) else p for p in prompts], **how)

    def token_logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        return self.inner.token_logprobs(rows)


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


def worth(losses: dict[str, list[float]], scored: Sequence[EvalRow]) -> list[str]:
    """Whether the adapter was worth training, in sentences that do not flatter."""
    told: list[str] = []
    how: dict[str, str] = {}  # the adapter against each rival: better, worse, unsure, few, or unknown
    for rival in RIVALS:
        pairs = [(a, b) for a, b in zip(losses["adapter"], losses[rival]) if not math.isnan(a + b)]
        if not pairs:
            how[rival] = "unknown"
            told.append(
                f"No held-out row fits the context of the {rival}, so their losses were not compared."
            )
            continue
        own, other = zip(*pairs, strict=True)
        gain = difference(other, own, [1.0] * len(pairs))
        how[rival] = "unsure" if not gain.clear else "better" if gain.value > 0 else "worse"
        sure = {"better": "surely lower", "worse": "surely higher", "unsure": "not surely different"}[
            how[rival]
        ]
        if len(pairs) < FEWEST:
            how[rival] = "few"
            sure = f"{len(pairs)} row{'s' if len(pairs) > 1 else ''}, too few to be sure of anything"
        told.append(
            f"Its loss on answers is {abs(gain.value):.3f} nats a token "
            f"{'below' if gain.value >= 0 else 'above'} that of the {rival} "
            f"([{gain.low:.3f}, {gain.high:.3f}]; {sure})."
        )
    exact = {r.model_name: r for r in scored if r.metric == "exact_match"}
    right = {name: round(r.score * r.n_examples) for name, r in exact.items() if how.get(name) != "unknown"}
    n = exact["adapter"].n_examples
    if len(right) > 1:
        told.append("Exactly right: " + ", ".join(f"{name} {k} of {n}" for name, k in right.items()) + ".")
    return [*told, _judged(how, right)]


def _judged(how: dict[str, str], right: dict[str, int]) -> str:
    """The last sentence."""
    base, examples = (how[rival] for rival in RIVALS)
    if base == "unknown":
        return "Whether the adapter was worth training was not measured: use a base with a longer context."
    if base == "few":
        return "Whether the adapter was worth training cannot be told from so few rows: give more of them."
    behind = [rival for rival in RIVALS if right.get(rival, 0) > right["adapter"]]
    if base != "better" or RIVALS[0] in behind:
        return "The adapter was not worth training: use the base as it is, or give more and better rows."
    if examples == "worse":
        return (
            "The adapter beats the base, but examples in the prompt do better: use them, or give more rows."
        )
    if examples == "unknown" or (examples == "better" and not behind):
        told = "The adapter was worth training"
        told += "; examples do not fit into the base's prompt" * (examples == "unknown")
        return told + (
            ". By its loss alone: none of its answers is exactly right." if not right["adapter"] else "."
        )
    return (
        "The adapter beats the base, but examples in the prompt do about as well: it saves their tokens, "
        "no more. More rows or more steps may change that."
    )
