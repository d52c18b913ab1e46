"""A reward of named dimensions, or of one's own: the same that `dpo --reward-fn` ranks answers by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.errors import ConfigError
from tinygpt.eval.reward import _composite
from tinygpt.eval.reward._answer import Answer
from tinygpt.eval.verifier._candidate import Candidate, Case, Judging, Verify


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which reward."""

    reward_fn: Annotated[str, "A .toml or .json file of dimensions, or file.py:function."]

    def __post_init__(self) -> None:
        if not self.reward_fn:
            raise ConfigError("the verifier 'reward' needs a reward", hint="give --reward-fn FILE")


def build(judging: Judging, config: Config) -> Verify:
    """The total of every answer."""
    reward = _composite.load(config.reward_fn)

    def verify(case: Case, candidates: Sequence[Candidate]) -> list[float]:
        return [
            reward(
                Answer(
                    text=c.text, prompt=case.prompt, expected=case.expected, row=case.row
                )
            ).total
            for c in candidates
        ]  # fmt: skip

    return verify
