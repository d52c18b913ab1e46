"""What the loop asks of whoever writes, and what it tells whoever watches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tinygpt.agent.policy import Decision
from tinygpt.agent.tool import Cancel, Outcome

REPAIR = "That is no valid turn: {error}. Write it again: a whole tool call, or an answer in words."
KEPT = "The conversation stays here: go on by yourself."
Message = dict[str, Any]  # role, content, tool_calls [{id, type, function {name, arguments: object}}], ...


def is_request(message: Message) -> bool:
    """Whether a message is the person's: what the loop tells the model stands under the same role."""
    own = (message["content"].startswith(REPAIR.partition("{")[0]), message["content"].endswith(KEPT))
    return message["role"] == "user" and not any(own)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A turn of the assistant that is to be written.

    tools:   entries that the prompt shows
    first:   names of which the first call must be one; none: any
    choice:  "auto", "none" or "required"
    on_text: gets the text as it grows, without calls and reasoning
    """

    messages: Sequence[Message]
    tools: Sequence[dict[str, Any]]
    first: Sequence[str] = ()
    choice: str = "auto"
    max_tokens: int
    on_text: Callable[[str], None] = lambda text: None
    cancel: Cancel


@dataclass(frozen=True, kw_only=True)
class Said:
    """What was written. error: why it can be no turn, as a call that is not JSON; prompt, ids and logprobs:
    the tokens, where they are known; the ids hold the stop id, which has its log-probability too."""

    message: Message
    finish_reason: str
    error: str = ""
    prompt: list[int] | None = None
    ids: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])
    n_prompt: int = 0
    n_cached: int = 0
    n_written: int = 0
    seconds: float = 0.0


class Writer(Protocol):
    """A model. `room` is how many tokens a prompt may have where `max_tokens` may follow, or None where that
    is not known, and `size` how many a prompt has; `encode` gives a conversation's ids, None where they are
    not known. `write` raises TooLongError where the prompt has no room; where `room` says less afterwards
    than before, it may be asked with a shorter one."""

    def write(self, turn: Turn) -> Said: ...

    def room(self, max_tokens: int) -> int | None: ...

    def size(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> int: ...

    def encode(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], *, answer: bool
    ) -> list[int] | None: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class Hands(Protocol):
    """The tools behind their policy: see policy.Policy."""

    @property
    def entries(self) -> list[dict[str, Any]]: ...

    def harmless(self, name: str) -> bool:
        """Whether calls of it can run beside each other: they only read."""
        ...

    def run(self, name: str, arguments: Any, cancel: Cancel) -> tuple[Decision, Outcome]: ...


class Listener(Protocol):
    """Who watches: text as it grows, and facts by name: user, router_prediction, assistant, tool_call,
    tool_result, dropped, full, repair, escalation, answer."""

    def text(self, piece: str) -> None: ...

    def tell(self, event: str, **facts: Any) -> None: ...
