"""What clients of /v1/responses read: a response, or the events it is streamed as."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

from tinygpt.serve.blocks import Block, Blocks, Step
from tinygpt.serve.calls import arguments
from tinygpt.serve.job import Delta, Done, Event, Message, Token

LEAST = -9999.0  # stands for a log-probability of minus infinity, which JSON does not have
PREFIX = {"reasoning": "rs", "text": "msg", "call": "fc"}
Item = dict[str, Any]


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(24)}"


def _token(token: Token, logprob: float | None) -> Item:
    shown = LEAST if logprob is None or logprob == -math.inf else logprob
    return {"token": token.text, "bytes": list(token.bytes), "logprob": shown}


def logprobs(tokens: Sequence[Token]) -> list[Item]:
    return [
        _token(token, token.logprob) | {"top_logprobs": [_token(other, p) for other, p in token.top]}
        for token in tokens
    ]


class Answer:
    """Writes the events of one answer. echo: settings that the response repeats."""

    def __init__(self, model: str, echo: dict[str, Any], store: bool) -> None:
        self.model, self.echo, self.store = model, echo, store
        self.id, self.created = new_id("resp"), int(time.time())
        self._blocks, self._ids = Blocks(), dict[int, str]()
        self._number = 0
        self._status: dict[int, str] = {}

    # The response

    def response(self, done: Done | None = None, failure: str | None = None) -> dict[str, Any]:
        """The response, so far or, with `done` or a failure, as a whole."""
        status = "in_progress"
        if failure is not None:
            status = "failed"
        elif done is not None:
            status = "incomplete" if done.finish_reason == "length" else "completed"
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "background": False,
            "error": {"code": "server_error", "message": failure} if failure is not None else None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "model": self.model,
            "output": [self._item(block) for block in self._blocks.all] if done or failure else [],
            "service_tier": "default",
            "store": self.store,
            "usage": _usage(done) if done else None,
            **self.echo,
        }

    def message(self) -> Message:
        """The answer as a message of the conversation."""
        kinds = {kind: [b for b in self._blocks.all if b.kind == kind] for kind in PREFIX}
        message: Message = {"role": "assistant", "content": "".join(b.text for b in kinds["text"])}
        if kinds["reasoning"]:
            message["reasoning_content"] = "".join(b.text for b in kinds["reasoning"])
        calls = [
            {"type": "function", "id": b.id, "function": {"name": b.name, "arguments": arguments(b.text)}}
            for b in kinds["call"]
        ]
        if calls:
            message["tool_calls"] = calls
        return message

    def _item(self, block: Block, status: str | None = None) -> Item:
        """A block as an item of the output."""
        status = status or self._status.get(block.index, "in_progress")
        item: Item = {"id": self._ids[block.index], "status": status}
        if block.kind == "reasoning":
            content = [{"type": "reasoning_text", "text": block.text}] if block.text else []
            return {**item, "type": "reasoning", "summary": [], "content": content}
        if block.kind == "call":
            call = {"call_id": block.id, "name": block.name, "arguments": block.text}
            return {**item, "type": "function_call", **call}
        content = [self._part(block)] if status != "in_progress" else []
        return {**item, "type": "message", "role": "assistant", "content": content}

    def _part(self, block: Block, text: str | None = None) -> Item:
        if block.kind == "reasoning":
            return {"type": "reasoning_text", "text": block.text if text is None else text}
        found = logprobs(block.tokens) if text is None else []
        text = block.text if text is None else text
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": found}

    # The stream

    def _event(self, type_: str, **fields: Any) -> dict[str, Any]:
        event = {"type": type_, "sequence_number": self._number, **fields}
        self._number += 1
        return event

    def begin(self) -> Iterator[dict[str, Any]]:
        """The events before the first of the desk's."""
        yield self._event("response.created", response=self.response())
        yield self._event("response.in_progress", response=self.response())

    def take(self, event: Event) -> Iterator[dict[str, Any]]:
        """The stream's events for an event of the desk."""
        if isinstance(event, Delta):
            for step in self._blocks.take(event):
                yield from self._step(step)
            return
        cut = event.finish_reason == "length"
        for step in self._blocks.end():
            yield from self._step(step, "incomplete" if cut else "completed")
        response = self.response(event)
        yield self._event(f"response.{response['status']}", response=response)

    def fail(self, message: str) -> Iterator[dict[str, Any]]:
        """The events of an answer that broke off."""
        yield self._event("error", code="server_error", message=message, param=None)
        yield self._event("response.failed", response=self.response(failure=message))

    def _step(self, step: Step, status: str = "completed") -> Iterator[dict[str, Any]]:
        block = step.block
        if step.do == "open":
            self._ids[block.index] = new_id(PREFIX[block.kind])
        at = {"output_index": block.index}
        inner = {"item_id": self._ids[block.index], **at}
        part = {**inner, "content_index": 0}
        name = {"reasoning": "reasoning_text", "text": "output_text"}.get(
            block.kind, "function_call_arguments"
        )
        match step.do:
            case "open":
                yield self._event("response.output_item.added", **at, item=self._item(block, "in_progress"))
                if block.kind != "call":
                    yield self._event("response.content_part.added", **part, part=self._part(block, ""))
            case "add":
                more = {"logprobs": logprobs(step.tokens)} if block.kind == "text" else {}
                place = inner if block.kind == "call" else part
                yield self._event(f"response.{name}.delta", **place, delta=step.text, **more)
            case _:
                self._status[block.index] = status
                if block.kind == "call":
                    whole = {"arguments": block.text, "name": block.name}
                    yield self._event("response.function_call_arguments.done", **inner, **whole)
                else:
                    more = {"logprobs": logprobs(block.tokens)} if block.kind == "text" else {}
                    yield self._event(f"response.{name}.done", **part, text=block.text, **more)
                    yield self._event("response.content_part.done", **part, part=self._part(block))
                yield self._event("response.output_item.done", **at, item=self._item(block))


def _usage(done: Done) -> dict[str, Any]:
    found = done.usage
    return {
        "input_tokens": found.prompt_tokens,
        "input_tokens_details": {"cached_tokens": found.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": found.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": found.reasoning_tokens},
        "total_tokens": found.prompt_tokens + found.completion_tokens,
    }


def sse(event: dict[str, Any]) -> bytes:
    """A server-sent event with its name."""
    return f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
