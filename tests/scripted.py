"""An endpoint that answers from a script, for tests of suites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.eval.endpoint import GREEDY, Prompt, Reply, Sampling


class ScriptedEndpoint:
    """`answer(prompt)` gives a text, an assistant message or a Reply; every token gets `logprob`."""

    def __init__(
        self,
        answer: Callable[[Prompt], str | dict[str, Any] | Reply],
        *,
        logprob: float = 0.0,
        name: str = "scripted",
        context: int = 64,
        baseline: bool = False,
    ) -> None:
        self.name, self.path, self.step, self.model_hash = name, f"models/{name}", 7, "0" * 12
        self.baseline, self.context, self.tokenizer = baseline, context, ByteTokenizer()
        self.facts = {"batch_size": 1}
        self.scored: list[list[int]] = []
        self._answer, self._logprob = answer, logprob

    def complete(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        tools: Sequence[dict[str, Any]] | None = None,
        sampling: Sampling = GREEDY,
    ) -> list[Reply]:
        return [self._reply(self._answer(prompt)) for prompt in prompts]

    def _reply(self, answer: str | dict[str, Any] | Reply) -> Reply:
        if isinstance(answer, Reply):
            return answer
        message = {"role": "assistant", "content": answer} if isinstance(answer, str) else answer
        text = message["content"]
        return Reply(message=message, text=text, finish_reason="stop", n_tokens=len(text))

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """How often each letter stands in a text."""
        return [[float(text.count(chr(97 + i))) for i in range(26)] for text in texts], 0

    def token_logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        assert all(2 <= len(row) <= self.context + 1 for row in rows)
        self.scored += [list(row) for row in rows]
        return [[self._logprob] * (len(row) - 1) for row in rows]
