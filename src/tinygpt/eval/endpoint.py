"""What a suite asks: a model behind an endpoint, in this process or at a URL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer

Message = dict[str, Any]
# A plain string is continued as it stands, and so is a tuple of the model's own ids; a list of messages is a
# conversation to be answered.
Prompt = str | tuple[int, ...] | list[Message]
THOUGHT = re.compile(r"^.*?</think(?:ing)?>", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How answers are drawn. Answer i of a call has the seed `seed + i`, so equal prompts get unlike
    answers."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    choices: tuple[str, ...] = ()
    """An engine of this process writes one of them and nothing else; a server is not told."""


GREEDY = Sampling()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer. `message` is the parsed assistant message, `text` what was written; `error` when there is
    none."""

    message: Message
    text: str
    finish_reason: str
    n_tokens: int
    error: str = ""

    @property
    def said(self) -> str:
        """The text of the message, without what was thought aloud before it."""
        return THOUGHT.sub("", self.message.get("content") or "")

    @property
    def answer(self) -> str:
        """The same without spaces and line ends around it."""
        return self.said.strip()

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


class Identity(Protocol):
    """Who is measured, as rows say it."""

    name: str
    path: str
    step: int | None
    model_hash: str | None
    baseline: bool
    """Whether this is what others are compared with: a rule, an untrained model, a reference."""
    facts: dict[str, Any]
    """Further fields of its rows: adapter_hash, template_hash, batch_size."""


class Endpoint(Identity, Protocol):
    """A model that answers; answers come in the order of the prompts."""

    context: int
    """Tokens; 0 when it is not known here."""

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
        sampling: Sampling = GREEDY,
    ) -> list[Reply]:
        """One reply a prompt; what could not be answered is a Reply with an error."""
        ...

    def token_logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """log p(ids[j+1] | ids[..j]) of every row, in nats; rows have at most context + 1 ids."""
        ...
