"""The model's own mean log-probability of an answer's tokens: it chooses what it finds likeliest."""

from __future__ import annotations

from collections.abc import Sequence

from tinygpt.eval.verifier._candidate import Candidate, Case, Judging, Verify


def build(judging: Judging) -> Verify:
    """Nats a token; an empty answer has the lowest score."""

    def verify(case: Case, candidates: Sequence[Candidate]) -> list[float]:
        rows = [[*case.ids, *c.ids] for c in candidates if c.ids]
        found = iter(judging.model.token_logprobs(rows) if rows else ())
        scores: list[float] = []
        for candidate in candidates:
            n = len(candidate.ids)
            scores.append(sum(next(found)[-n:]) / n if n else float("-inf"))
        return scores

    return verify
