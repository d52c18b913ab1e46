"""What Anthropic's clients read: a message, or the events it is streamed as."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

from tinygpt.serve.blocks import Block, Blocks, Step
from tinygpt.serve.calls import arguments
from tinygpt.serve.job import Chat, Delta, Done, Event, Usage

DELTAS = {"reasoning": ("thinking_delta", "thinking"), "text": ("text_delta", "text"),
          "call": ("input_json_delta", "partial_json")}  # fmt: skip


def usage(found: Usage) -> dict[str, Any]:
    """Tokens: those of the prompt that were in a cache are counted apart."""
    return {
        "input_tokens": found.prompt_tokens - found.cached_tokens,
        "output_tokens": found.completion_tokens,
        "cache_read_input_tokens": found.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens_details": {"thinking_tokens": found.reasoning_tokens},
    }


class Answer:
    """Writes the events of one answer. hide: reasoning is shown as a block without text."""

    def __init__(self, model: str, job: Chat, *, hide: bool = False) -> None:
        self.model, self.job, self.hide = model, job, hide
        self.id = f"msg_{secrets.token_hex(12)}"
        self._blocks = Blocks()

    def message(self, done: Done | None = None, n_prompt: int = 0) -> dict[str, Any]:
        """The message, so far or, with `done`, as a whole."""
        found = Usage(prompt_tokens=n_prompt) if done is None else done.usage
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [self._content(block) for block in self._blocks.all],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage(found),
        } | (self._stop(done) if done else {})

    def _stop(self, done: Done) -> dict[str, Any]:
        """Why it ended. One that is cut before it may be has filled the context."""
        if done.finish_reason == "tool_calls":
            reason = "tool_use"
        elif done.finish_reason == "length":
            full = done.usage.completion_tokens >= self.job.config.max_tokens
            reason = "max_tokens" if full else "model_context_window_exceeded"
        else:
            reason = "end_turn" if done.stop_text is None else "stop_sequence"
        stop = done.stop_text if reason == "stop_sequence" else None
        return {"stop_reason": reason, "stop_sequence": stop}

    def _content(self, block: Block) -> dict[str, Any]:
        match block.kind:
            case "reasoning":
                return {"type": "thinking", "thinking": "" if self.hide else block.text, "signature": ""}
            case "call":
                return {
                    "type": "tool_use",
                    "id": block.id,
                    "name": block.name,
                    "input": arguments(block.text),
                }
            case _:
                return {"type": "text", "text": block.text}

    def take(self, event: Event) -> Iterator[dict[str, Any]]:
        """The stream's events for an event of the desk."""
        if isinstance(event, Delta):
            for step in self._blocks.take(event):
                yield from self._step(step)
            return
        for step in self._blocks.end():
            yield from self._step(step)
        yield {"type": "message_delta", "delta": self._stop(event), "usage": usage(event.usage)}
        yield {"type": "message_stop"}

    def _step(self, step: Step) -> Iterator[dict[str, Any]]:
        block = step.block
        if step.do == "open":
            yield {
                "type": "content_block_start",
                "index": block.index,
                "content_block": self._content(block) | ({"input": {}} if block.kind == "call" else {}),
            }
        elif step.do == "close":
            yield {"type": "content_block_stop", "index": block.index}
        elif not (self.hide and block.kind == "reasoning"):
            kind, name = DELTAS[block.kind]
            delta = {"type": kind, name: step.text}
            yield {"type": "content_block_delta", "index": block.index, "delta": delta}


def sse(event: dict[str, Any]) -> bytes:
    """A server-sent event with its name."""
    return f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
