"""Streamed answers of two APIs: what is asked, and what has come of the answer so far.

Both have one form: `add` takes the data of an event and gives the text in it; afterwards `text`,
`finish_reason`, `n_in` and `n_out` are what was heard. `ended` is true once the server has said all. Only
text is heard: a request forbids calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygpt.core.errors import DataError, RemoteError
from tinygpt.data import table
from tinygpt.runs import _anthropic
from tinygpt.runs._openai import DONE, message_of, withheld
from tinygpt.runs._remote_endpoint import spelled

Message = dict[str, Any]
ENDS = {
    "stop": "stop", "length": "length", "tool_calls": "tool_calls", "function_call": "tool_calls",
    "content_filter": "refused",
    "end_turn": "stop", "stop_sequence": "stop", "pause_turn": "stop", "max_tokens": "length",
    "model_context_window_exceeded": "length", "tool_use": "tool_calls", "refusal": "refused",
}  # fmt: skip


class Heard:
    """What has come. `why`: why the model did not answer, where it says so."""

    def __init__(self) -> None:
        self.text, self.finish_reason, self.why = "", "", ""
        self.n_in: int | None = None
        self.n_out: int | None = None
        self.ended = False

    def add(self, data: str) -> str:
        """The text of an event; RemoteError for one that tells of an error, or that cannot be read."""
        try:
            found = table.parse(data)
            if not isinstance(found, dict):
                raise DataError("no object")
            piece = sound(self._add(found))
        except (DataError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise RemoteError(f"an event of the server cannot be read: {data[:200]}") from error
        self.text += piece
        return piece

    @property
    def whole(self) -> bool:
        """Whether nothing is missing: some servers end a stream without saying so."""
        return self.ended or bool(self.finish_reason)

    def _add(self, found: dict[str, Any]) -> str:
        raise AssertionError

    def _end(self, said: Any) -> None:
        if said:
            self.finish_reason = ENDS.get(str(said), "stop")


class Chunks(Heard):
    """OpenAI's."""

    PATH = "/chat/completions"

    def add(self, data: str) -> str:
        if data == DONE:
            self.ended = True
            return ""
        return super().add(data)

    def _add(self, found: dict[str, Any]) -> str:
        if found.get("error"):
            raise RemoteError(f"the server broke off: {message_of(found)}")
        usage = found.get("usage") or {}
        self.n_in = _count(usage.get("prompt_tokens"), self.n_in)
        self.n_out = _count(usage.get("completion_tokens"), self.n_out)
        text = ""
        for choice in found.get("choices") or ():
            delta = choice.get("delta") or {}
            if said := delta.get("refusal"):
                self.why += str(said)
            self._end(choice.get("finish_reason"))
            self.why = withheld(choice) or self.why
            text += delta.get("content") or ""
        if self.why and self.finish_reason:
            self.finish_reason = "refused"
        return text

    @staticmethod
    def body(
        model: str, messages: Sequence[Message], tools: Sequence[Message], most: dict[str, int]
    ) -> dict[str, Any]:
        """A request. most: how the server calls the longest answer, and that."""
        body: dict[str, Any] = {"model": model, "messages": spelled(messages), **most}
        body |= {"tools": list(tools), "tool_choice": "none"} if tools else {}
        return body | {"stream": True, "stream_options": {"include_usage": True}}


class Events(Heard):
    """Anthropic's."""

    PATH = "/messages"

    def _add(self, found: dict[str, Any]) -> str:
        match found["type"]:
            case "error":
                raise RemoteError(f"the server broke off: {message_of(found)}")
            case "message_start":
                self._usage(found["message"].get("usage"))
                self.n_out = None  # a first number, which an answer that is cut off would keep
            case "content_block_start":
                return found["content_block"].get("text") or ""
            case "content_block_delta" if found["delta"]["type"] == "text_delta":
                return found["delta"]["text"]
            case "message_delta":
                self._end(found["delta"].get("stop_reason"))
                if self.finish_reason == "refused":
                    self.why = "the model refuses to answer"
                self._usage(found.get("usage"))
            case "message_stop":
                self.ended = True
            case _:
                pass  # pings, thinking, and what the API may add: clients are asked to pass over it
        return ""

    def _usage(self, usage: Any) -> None:
        """Tokens: those read from a cache, or written to it, are read, too."""
        told = usage or {}
        kinds = ("", "cache_creation_", "cache_read_")
        parts = [_count(told.get(f"{kind}input_tokens"), None) for kind in kinds]
        if parts[0] is not None:
            self.n_in = sum(part or 0 for part in parts)
        self.n_out = _count(told.get("output_tokens"), self.n_out)

    @staticmethod
    def body(
        model: str, messages: Sequence[Message], tools: Sequence[Message], most: dict[str, int]
    ) -> dict[str, Any]:
        """A request."""
        body = {"model": model, **_anthropic.body(messages, tools), **most, "stream": True}
        return body | ({"tool_choice": {"type": "none"}} if tools else {})


def sound(text: str) -> str:
    """Text that UTF-8 can write: JSON can spell half of a surrogate pair, which no file takes."""
    return text.encode("utf-8", "replace").decode()


def _count(told: Any, before: int | None) -> int | None:
    """A number of tokens; what is none says nothing."""
    return told if isinstance(told, int) and not isinstance(told, bool) else before
