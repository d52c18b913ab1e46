"""Answers that were given before, as an endpoint: a suite scores them as if a model said them now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import UnsupportedError
from tinygpt.eval.endpoint import GREEDY, Prompt, Reply, Sampling

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer


class Playback:
    """Plays answers in their order, whatever is asked; one that is None was never given, and has failed."""

    def __init__(self, *, name: str, path: str = "") -> None:
        self.name, self.path, self.baseline = name, path, False
        self.step: int | None = None
        self.model_hash: str | None = None
        self.context = 0
        self.tokenizer: Tokenizer | None = None
        self.facts: dict[str, Any] = {"protocol": {"predictions": path}}
        self.answers: Sequence[str | None] = ()

    def complete(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        tools: Sequence[dict[str, Any]] | None = None,
        sampling: Sampling = GREEDY,
    ) -> list[Reply]:
        assert len(prompts) == len(self.answers), "what is played back is asked for at once, in its order"
        return [
            Reply.failed("the row holds no prediction")
            if text is None
            else Reply(
                message={"role": "assistant", "content": text}, text=text, finish_reason="stop", n_tokens=0
            )
            for text in self.answers
        ]

    def token_logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        raise UnsupportedError(f"{self.name} holds answers and no probabilities", hint="ask a model")
