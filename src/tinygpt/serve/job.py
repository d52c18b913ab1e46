"""What every surface asks of a model, and what it hears back: one form for OpenAI, Ollama and Anthropic.

A surface reads its own JSON into a Chat or a Text, hands it to the desk, and writes the events that come back
in its own form. It knows nothing of engines; the desk knows nothing of HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tinygpt.infer.config import SampleConfig

Message = dict[str, Any]  # as templates take it: role, content, tool_calls with arguments as objects, ...


@dataclass(frozen=True, kw_only=True)
class Format:
    """What an answer must be. kind: "json" (any JSON object), "schema" (JSON Schema), "regex", "choice",
    "lark", "gbnf"; value: the schema, pattern, list of texts, or grammar; param: the field that says so."""

    kind: str
    value: Any = None
    param: str | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What both kinds of work have in common.

    model:    a served name, or "base+adapter"; "" is the default one.
    n:        answers; `best_of`: of so many, the likeliest.
    logprobs: how many alternatives beside each token's log-probability; None: neither.
    user:     who asks, for the trace.
    stream:   whether the answer is sent as it grows, for the records.
    told:     called with the prompt's ids, before the first event.
    """

    model: str = ""
    config: SampleConfig = field(default_factory=SampleConfig)
    n: int = 1
    best_of: int | None = None
    logprobs: int | None = None
    format: Format | None = None
    stop_ids: Sequence[int] | None = None
    ignore_stop_ids: bool = False
    user: str = ""
    request_id: str = ""
    stream: bool = False
    told: Callable[[Sequence[int]], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Chat(Job):
    """A conversation to go on with.

    tools:       OpenAI function tools.
    tool_choice: "auto", "none", "required", or the name of one function as {"name": ...}.
    closed:      whether no other tools may be called, those of the server included.
    parallel:    whether one answer may call more than one tool.
    think:       whether the model reasons first, where its template can be told; None: as it does by itself.
    prefill:     whether the last message is an assistant's beginning, to be continued.
    context:     ids that stand before the prompt, as they are.
    """

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: str | Mapping[str, str] = "auto"
    closed: bool = False
    parallel: bool = True
    think: bool | None = None
    prefill: bool = False
    context: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True)
class Text(Job):
    """A text to go on with: one prompt, as text or as ids (which get no bos).

    suffix: what follows the gap, for models that fill it in. echo: the answer begins with the prompt, and
    log-probabilities cover it too. max_tokens may be 0 with echo: only the prompt is scored."""

    prompt: str | Sequence[int]
    suffix: str | None = None
    echo: bool = False
    score_only: bool = False


@dataclass(frozen=True)
class Token:
    """One token of a report: its own text (of its bytes, where they are not whole characters), log p (None
    for a prompt's first) and the likeliest alternatives."""

    id: int
    text: str
    bytes: bytes
    logprob: float | None
    top: tuple[tuple[Token, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class CallPart:
    """A part of a tool call. The first part of call `index` has id and name; `arguments` are pieces of JSON
    text that are joined."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, kw_only=True)
class Delta:
    """What was added to answer `index`."""

    index: int = 0
    text: str = ""
    reasoning: str = ""
    calls: tuple[CallPart, ...] = ()
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens and time of one answer; its prompt counts once a job. Times in seconds."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    tool_info_hops: int = 0
    load_seconds: float = 0.0
    wait_seconds: float = 0.0
    prompt_seconds: float = 0.0
    write_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Done:
    """Answer `index` has ended. finish_reason: "stop", "length" or "tool_calls"; stop_text: the stop text
    that ended it."""

    index: int = 0
    finish_reason: str
    usage: Usage
    stop_text: str | None = None
    seed: int = 0


Event = Delta | Done


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """A served model as listings show it. template: the Jinja source of its chat template. open_bytes: memory
    that its weights will take, as far as their shapes say; 0: that is not known."""

    name: str
    created: int
    context: int
    size_bytes: int
    open_bytes: int = 0
    n_parameters: int
    digest: str
    family: str = ""
    quantization: str = ""
    template: str = ""
    adapters: tuple[str, ...] = ()
    base: str = ""
    loaded: bool = False
    memory_bytes: int = 0
    expires: float | None = None  # seconds since the epoch; None: it stays
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Desk(Protocol):
    """Where surfaces bring their jobs. Errors are TinyGPTErrors, raised before the first event where the job
    itself is wrong: ConfigError (400), UnknownModel (404), BusyError (503). Closing an iterator cancels the
    work."""

    def chat(self, job: Chat) -> AsyncIterator[Event]: ...

    def text(self, job: Text) -> AsyncIterator[Event]: ...

    async def prompt(self, job: Chat) -> list[int]:
        """Ids of the prompt that a job's messages and tools make; nothing is written."""
        ...

    async def embed(self, model: str, inputs: Sequence[str | Sequence[int]]) -> tuple[list[list[float]], int]:
        """Mean-pooled hidden states of each input, and how many tokens were read."""
        ...

    async def tokenize(
        self, model: str, text: str, *, special: bool = True, control: bool = False
    ) -> list[int]: ...

    async def detokenize(self, model: str, ids: Sequence[int]) -> str: ...

    def models(self) -> list[ModelCard]: ...

    async def card(self, model: str) -> ModelCard: ...

    async def load(self, model: str, keep: float | None = None) -> None:
        """Have a model in memory, for so many seconds after its last use (None: as configured, -1: for ever,
        0: drop it)."""
        ...
