"""What a model is to read so that all log-probabilities of a trajectory come again.

Contexts grow from step to step, so the last one holds those before it, unless something was left out of them
in between. Behind a token that was redacted nothing is known of a context.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinygpt.data import atraj


@dataclass(frozen=True)
class Row:
    """Ids, and by their place in them the log-probabilities that were recorded, in nats."""

    ids: list[int]
    told: dict[int, float]


def rows(trajectory: atraj.Trajectory) -> tuple[list[Row], int]:
    """The rows, and how many recorded log-probabilities are in none of them."""
    found: list[Row] = []
    whole: list[int] = []
    told: dict[int, float] = {}
    n_hidden = 0

    def close() -> None:
        if told:
            found.append(Row(whole[: max(told) + 1], dict(told)))
            told.clear()

    for step, before in trajectory.contexts():
        if any(at >= step.n_kept for at in told):
            close()
        whole = [*before, *(step.ids or ())]
        clear = whole.index(atraj.REDACTED) if atraj.REDACTED in whole else len(whole)
        for at, p in enumerate(step.logprobs or (), len(before)):
            if p is not None and 0 < at < clear:
                told[at] = p
            else:
                n_hidden += p is not None
    close()
    return found, n_hidden
