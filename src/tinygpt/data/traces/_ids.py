"""The very tokens of a trajectory as rows: what the model read, and which of it it wrote.

The context grows by steps, context = context[:n_kept] + ids. Where a step takes learned tokens away (the
template writes an earlier turn otherwise, or old turns were dropped), what was there is one row, and the next
one goes on from what is kept, which is then context alone: so every token that was sampled is learned once,
after exactly what the model had read before it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tinygpt.data import atraj
from tinygpt.data.traces._trace import Trace


def rows(trace: Trace, learned: Collection[int]) -> list[dict[str, Any]]:
    """Rows {ids, learn, tokenizer_hash} of a trace, in which the sampled tokens of the steps at the places
    `learned` are learned; none where no such token is known. They end before what is not known or secret."""
    found: list[dict[str, Any]] = []
    ids, learn = list[int](), list[int]()

    def close() -> None:
        if any(learn[1:]):
            end = len(learn) - learn[::-1].index(1)
            found.append({"ids": ids[:end], "learn": learn[:end], "tokenizer_hash": trace.tokenizer})

    for i, step in enumerate(trace.steps or ()):
        if step.ids is None or atraj.REDACTED in step.ids:
            break
        if any(learn[step.n_kept :]):
            close()
            learn = [0] * len(learn)
        said = step.logprobs if i in learned else None
        new = [int(p is not None) for p in said] if said is not None else [0] * len(step.ids)
        ids, learn = ids[: step.n_kept] + step.ids, learn[: step.n_kept] + new
    close()
    return found
