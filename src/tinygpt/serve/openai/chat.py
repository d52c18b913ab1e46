"""POST /v1/chat/completions."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from tinygpt.serve.fields import Fields
from tinygpt.serve.job import Chat, Delta, Desk, Done, Event, ModelCard
from tinygpt.serve.limits import Settings
from tinygpt.serve.openai import ask, messages, reports
from tinygpt.serve.openai.answers import Heard, hear, respond, said

if TYPE_CHECKING:
    from fastapi import Request, Response

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
DOCUMENT = {
    "messages": "array", "stream": "boolean", "stream_options": "object", "max_tokens": "integer",
    "max_completion_tokens": "integer", "logprobs": "boolean", "top_logprobs": "integer", "tools": "array",
    "tool_choice": "string|object", "parallel_tool_calls": "boolean", "functions": "array",
    "function_call": "string|object", "reasoning_effort": "string", "chat_template_kwargs": "object",
    "continue_final_message": "boolean", "add_generation_prompt": "boolean", "metadata": "object",
    "model": "string", **ask.SAMPLING,
}  # fmt: skip


def job(f: Fields, card: ModelCard, settings: Settings, id: str) -> Chat:
    """The body as a job. FieldError names the field that is wrong."""
    common = ask.common(
        f, settings.limits, budget(f, settings.default_max_tokens or card.context or ask.LONGEST), id
    )
    top = f.integer("top_logprobs", 0, settings.limits.alternatives)
    logprobs = f.flag("logprobs")
    if top is not None and not logprobs:
        raise f.wrong("top_logprobs", "needs 'logprobs': true")
    modalities = f.texts("modalities", 8)
    if set(modalities) - {"text"}:
        raise f.wrong("modalities", "may only be ['text']: this model writes text")
    f.refuse("audio", "cannot be done: this model writes text")
    f.refuse("best_of", "is of completions: ask for 'n'", but=(1,))
    f.refuse("echo", "is of completions")
    f.refuse("web_search_options", "cannot be done: this server searches nothing")
    f.object("metadata")
    f.flag("store")
    tools = messages.tools(f, settings.limits)
    choice, tools, closed = messages.choice(f, tools)
    conversation = messages.messages(f, settings.limits)
    return Chat(
        messages=conversation,
        tools=tools,
        tool_choice=choice,
        closed=closed,
        parallel=f.flag("parallel_tool_calls", True) and "functions" not in f,
        think=_think(f),
        prefill=_prefill(f, conversation[-1]["role"]),
        logprobs=(top or 0) if logprobs else None,
        **common,
    )


def budget(f: Fields, default: int) -> int:
    """Tokens that an answer may have, by either of the two names."""
    new = f.integer("max_completion_tokens", 1, ask.LONGEST)
    old = f.integer("max_tokens", 1, ask.LONGEST)
    return new or old or default


def _think(f: Fields) -> bool | None:
    """Whether to reason first: vLLM's switch, or any effort but the two that mean none."""
    given = f.object("chat_template_kwargs")
    if given is not None:
        given.only(("enable_thinking", "thinking"))
        for name in ("enable_thinking", "thinking"):
            if name in given:
                return given.flag(name)
    if "enable_thinking" in f:
        return f.flag("enable_thinking")
    if "reasoning_effort" not in f:
        return None
    return f.choice("reasoning_effort", EFFORTS, "") not in ("none", "minimal")


def _prefill(f: Fields, last: str) -> bool:
    """Whether the last message is to be gone on with, in vLLM's words."""
    asked = f.flag("continue_final_message") or not f.flag("add_generation_prompt", True)
    if asked and last != "assistant":
        name = "continue_final_message" if f.flag("continue_final_message") else "add_generation_prompt"
        raise f.wrong(name, "asks to go on with the last message, which is no assistant's")
    return asked


def wants_usage(f: Fields, streamed: bool) -> bool:
    """Whether a stream is to end with the usage."""
    options = f.object("stream_options")
    if options is None:
        return False
    if not streamed:
        raise f.wrong("stream_options", "needs 'stream': true")
    return options.flag("include_usage")


async def answer(request: Request, f: Fields, desk: Desk, settings: Settings) -> Response:
    """One conversation gone on with."""
    streamed = f.flag("stream")
    with_usage = wants_usage(f, streamed)
    card = await desk.card(f.text("model", ""))
    id = f"chatcmpl-{uuid.uuid4().hex}"
    asked = job(f, card, settings, id)
    legacy = "functions" in f and "tools" not in f
    form = ChatForm(id, card, n=asked.n, usage=with_usage, logprobs=asked.logprobs is not None, legacy=legacy)
    return await respond(request, [desk.chat(asked)], form, streamed=streamed)


def fingerprint(card: ModelCard) -> str:
    """What weights answered."""
    return f"fp_{card.digest.removeprefix('sha256:')[:12]}"


class ChatForm:
    """Chat completions and their chunks. legacy: calls are written as `function_call`."""

    def __init__(
        self, id: str, card: ModelCard, *, n: int, usage: bool, logprobs: bool, legacy: bool = False
    ) -> None:
        self.heard: dict[tuple[int, int], Heard] = {}
        self._n, self._usage, self._logprobs, self._legacy = n, usage, logprobs, legacy
        self._begun = False
        self._head = {
            "id": id,
            "created": int(time.time()),
            "model": card.name,
            "system_fingerprint": fingerprint(card),
        }

    def chunks(self, job: int, event: Event) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        if not self._begun:
            self._begun = True
            start = {"role": "assistant", "content": "", "refusal": None}
            found = [self._chunk(i, dict(start)) for i in range(self._n)]
        heard = hear(self, job, event)
        if isinstance(event, Done):
            found.append(self._chunk(event.index, {}, reason=self._reason(heard)))
        elif said(event):
            delta, logprobs = self._delta(event), None
            if event.tokens and self._logprobs:
                logprobs = reports.of_chat(event.tokens)
                delta.setdefault("content", "")
            if delta:
                found.append(self._chunk(event.index, delta, logprobs=logprobs))
        return found

    def last(self) -> list[dict[str, Any]]:
        if not self._usage:
            return []
        return [self._head | {"object": "chat.completion.chunk", "choices": [], "usage": self._used()}]

    def whole(self) -> dict[str, Any]:
        choices = [self._choice(index, heard) for (_, index), heard in sorted(self.heard.items())]
        return self._head | {"object": "chat.completion", "choices": choices, "usage": self._used()}

    def _used(self) -> dict[str, Any]:
        return reports.usage([[heard.done.usage for heard in self.heard.values() if heard.done]])

    def _reason(self, heard: Heard) -> str:
        reason = heard.done.finish_reason if heard.done else "stop"
        return "function_call" if self._legacy and reason == "tool_calls" else reason

    def _chunk(
        self, index: int, delta: dict[str, Any], *, reason: str | None = None, logprobs: Any = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        chunk = self._head | {"object": "chat.completion.chunk", "choices": [choice]}
        return chunk | ({"usage": None} if self._usage else {})

    def _delta(self, event: Delta) -> dict[str, Any]:
        delta: dict[str, Any] = {}
        if event.text:
            delta["content"] = event.text
        if event.reasoning:
            delta["reasoning_content"] = event.reasoning
        parts: list[dict[str, Any]] = []
        for part in event.calls:
            function = {"name": part.name} if part.name else {}
            function |= {"arguments": part.arguments}
            about = {"id": part.id, "type": "function"} if part.id else {}
            parts.append({"index": part.index, **about, "function": function})
        if parts and self._legacy:
            delta["function_call"] = parts[0]["function"]
        elif parts:
            delta["tool_calls"] = parts
        return delta

    def _choice(self, index: int, heard: Heard) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": heard.text, "refusal": None}
        if heard.reasoning:
            message["reasoning_content"] = heard.reasoning
        calls = [
            {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}}
            for _, c in sorted(heard.calls.items())
        ]
        if calls:
            message["content"] = heard.text or None
            message |= {"function_call": calls[0]["function"]} if self._legacy else {"tool_calls": calls}
        logprobs = reports.of_chat(heard.tokens) if self._logprobs else None
        reason = self._reason(heard)
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason}
