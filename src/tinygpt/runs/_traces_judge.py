"""A judge of traces: the verifier that reads a prompt and an answer, for all that was done in between."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinygpt.core.config import from_dict
from tinygpt.core.family import Family
from tinygpt.data.traces._examples import said
from tinygpt.data.traces._mend import Mended, split
from tinygpt.eval.verifier._candidate import Candidate, Case, Judging, Verify
from tinygpt.runs._local_endpoint import LocalEndpoint
from tinygpt.runs._traces_settings import Config

VERIFIERS = Family("tinygpt.eval.verifier")


def opened(config: Config) -> Callable[[Mended], float | None]:
    """Gives a trace its mark; None where the judge gives none."""
    technique = VERIFIERS.load("judge")
    asked = {"judge": config.judge_model, "name": config.judge_name, "seconds": config.judge_seconds}
    nobody: Any = None  # what is judged was written elsewhere
    open_ = functools.cache(functools.partial(LocalEndpoint.open, events=None))
    judging = Judging(model=nobody, open=lambda path: open_(Path(path)))
    verify: Verify = technique.build(judging, from_dict(technique.Config, asked, "judge"))

    def mark(left: Mended) -> float | None:
        prompt, reply = split(left.messages)
        text = said(prompt)
        (score,) = verify(Case(prompt=text, text=text, ids=[]), [Candidate(text=said(reply), ids=[])])
        return score if score > float("-inf") else None

    return mark
