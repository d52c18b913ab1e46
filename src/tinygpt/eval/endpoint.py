"""What a suite asks: a model behind an endpoint, in this process or at a URL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer

Message = dict[str, Any]
# A plain string is continued as it stands; a list of messages is a conversation to be answered.
Prompt = str | list[Message]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer. `message` is the parsed assistant message, `text` what was written; `error` when there is
    none."""

    message: Message
    text: str
    finish_reason: str
    n_tokens: int
    error: str = ""

    @staticmethod
    def failed(error: str) -> Reply:
        """The reply of an endpoint that could not answer: counted by suites, never skipped."""
        return Reply(
            message={"role": "assistant", "content": ""},
            text="",
            finish_reason="error",
            n_tokens=0,
            error=error,
        )


class Endpoint(Protocol):
    """A model that answers. Answers are greedy and come in the order of the prompts."""

    name: str
    path: str
    step: int | None
    model_hash: str | None
    baseline: bool
    """Whether this is what others are compared with: a rule, an untrained model, a reference."""
    context: int

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None when the ids are not known here, as with most remote models; suites that need them say so."""

    def complete(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        tools: Sequence[dict[str, Any]] | None = None,
    ) -> list[Reply]:
        """One reply a prompt."""
        ...

    def token_logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """log p(ids[j+1] | ids[..j]) of every row, in nats; rows have at most context + 1 ids."""
        ...
