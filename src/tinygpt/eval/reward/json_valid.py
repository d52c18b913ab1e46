"""1 where the answer is JSON, alone or in one ``` block."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Literal

from tinygpt.eval.reward._answer import Answer, unfenced

KINDS = {"object": dict, "list": list}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What JSON."""

    outer: Annotated[Literal["any", "object", "list"], "What its outermost value must be."] = "any"
    fenced: Annotated[bool, "A ``` block around it is allowed."] = True


def score(answer: Answer, config: Config) -> float:
    """1 or 0."""
    text = unfenced(answer.text) if config.fenced else answer.text.strip()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return 0.0
    return float(config.outer == "any" or isinstance(value, KINDS[config.outer]))
