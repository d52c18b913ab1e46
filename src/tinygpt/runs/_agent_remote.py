"""A model behind an OpenAI-compatible server as the agent's writer, streamed."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Sequence
from typing import Any

from tinygpt.agent.escalate import without
from tinygpt.agent.turn import Message, Said, Turn
from tinygpt.core.errors import RemoteError, TooLongError
from tinygpt.core.events import Events
from tinygpt.infer.config import SampleConfig
from tinygpt.runs._asking import fields
from tinygpt.runs._openai import Client, Refused
from tinygpt.runs._remote_endpoint import spelled
from tinygpt.runs._streamed import Chunks, sound
from tinygpt.runs._wire import Cancelled, Stalled, Wire, pause, watched
from tinygpt.serve import calls

SECONDS = 300.0  # without a word
SHORTER = 0.75  # of a prompt that a server finds too long
# How servers say so: OpenAI's, vLLM's, llama.cpp's, Anthropic's, ours.
TOO_LONG = re.compile(
    r"context.(length|size|window|limit)|in a context of|exceed\w* .*context|prompt is too long", re.I
)


class RemoteWriter:
    """Asks a server; the ids of what it reads and writes are not known, nor how long its context is: where
    it says that a prompt is too long, there is room for SHORTER of that. `model`: its name there, "" for the
    first that is listed."""

    def __init__(self, url: str, model: str, sampling: SampleConfig, events: Events) -> None:
        self._client = Client(url, seconds=SECONDS, pause=self._wait)
        self._events, self._cancel = events, threading.Event()
        self.model = model or self._client.model()
        self.sampling = sampling
        self._room: int | None = None

    def _wait(self, seconds: float) -> None:
        self._events.note(
            f"{self._client.url} does not answer now; asked again in {seconds:.1f} s", "warning"
        )
        pause(seconds, self._cancel)

    def room(self, max_tokens: int) -> int | None:
        return self._room

    def size(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> int:
        """As a rule a token has four letters."""
        return len(json.dumps([spelled(messages), tools], ensure_ascii=False)) // 4

    def encode(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], *, answer: bool
    ) -> list[int] | None:
        return None

    def decode(self, ids: Sequence[int]) -> str:
        raise AssertionError("a server's ids are not known")

    def write(self, turn: Turn) -> Said:
        """One turn. TooLongError where the server says so; RemoteError where none comes: what came in part is
        cut off by it."""
        began = time.perf_counter()
        heard, self._cancel = _Heard(), turn.cancel
        body = self._body(turn)
        reason = ""
        try:
            reason = self._client.insisting(lambda: self._read(body, heard, turn))
        except Cancelled:
            reason = "cancelled"
        except RemoteError as error:  # servers repeat the key that they were shown
            key = os.environ.get("OPENAI_API_KEY", "")
            raise RemoteError(without(key, error.message), hint=error.hint) from None
        return self._said(heard, reason, turn, time.perf_counter() - began)

    def _body(self, turn: Turn) -> dict[str, Any]:
        first = turn.first  # a server cannot be told what to begin with, but what there is
        open_ = [tool for tool in turn.tools if not first or calls.name_of(tool) in first]
        body = fields(self.sampling, self.model) | {
            "messages": spelled(turn.messages), "max_tokens": turn.max_tokens, "seed": self.sampling.seed,
            "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        return body | ({"tools": open_, "tool_choice": turn.choice} if open_ else {})

    def _read(self, body: dict[str, Any], heard: _Heard, turn: Turn) -> str:
        """Listen to the end; how it ended."""
        if heard.text:
            turn.on_text("\n")  # what was told of a stream that broke is no beginning of this one
        heard.clear()
        wire = Wire()
        source = self._client.events(heard.PATH, body, wire)
        try:
            for data in watched(source, wire, turn.cancel, SECONDS):
                if piece := heard.add(data):
                    turn.on_text(piece)
                if heard.ended:
                    break
        except Refused as error:
            if not TOO_LONG.search(error.said):
                raise
            n = self.size(turn.messages, turn.tools)
            self._room = int(SHORTER * n)
            raise TooLongError(n, self._room) from error
        except Stalled as error:
            raise RemoteError(f"{self._client.url} has said nothing for {SECONDS:g} s") from error
        if not heard.whole:
            raise RemoteError(f"{self._client.url} ended its answer in the middle")
        return heard.finish_reason or "stop"

    def _said(self, heard: _Heard, reason: str, turn: Turn, seconds: float) -> Said:
        found, error = heard.calls()
        if reason == "cancelled" or error:
            found = []
        message: Message = {"role": "assistant", "content": heard.text}
        if found:
            message["tool_calls"] = [
                {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
                for id_, name, arguments in found
            ]
        return Said(
            message=message, finish_reason="stop" if reason == "tool_calls" else reason,
            error="" if reason == "cancelled" else error or heard.why, n_prompt=heard.n_in or 0,
            n_written=heard.n_pieces if heard.n_out is None else heard.n_out, seconds=seconds,
        )  # fmt: skip


class _Heard(Chunks):
    """A streamed answer with its calls. n_pieces: events that said something, which a server that tells no
    tokens is counted by: each has one or more."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[int, list[str]] = {}  # id, name, arguments as text
        self.n_pieces = 0

    def clear(self) -> None:
        """Another attempt begins."""
        self.__init__()

    def _add(self, found: dict[str, Any]) -> str:
        for choice in found.get("choices") or ():
            delta = choice.get("delta") or {}
            self.n_pieces += bool(delta.get("content") or delta.get("tool_calls"))
            for part in delta.get("tool_calls") or ():
                at = part.get("index")
                if not isinstance(at, int | None):
                    raise TypeError("an index is a number")
                one = self._calls.setdefault(len(self._calls) if at is None else at, ["", "", ""])
                function = part.get("function") or {}
                one[0] = sound(str(part.get("id") or "")) or one[0]
                one[1] += sound(function.get("name") or "")
                one[2] += function.get("arguments") or ""
        return super()._add(found)

    def calls(self) -> tuple[list[tuple[str, str, dict[str, Any]]], str]:
        """Ids, names and arguments, and what is wrong with them."""
        found: list[tuple[str, str, dict[str, Any]]] = []
        for at, (id_, name, text) in sorted(self._calls.items()):
            arguments = calls.arguments(text)
            if not name or "_raw" in arguments:
                why = f"has no name, or arguments that are no JSON object: {json.dumps(text)[:80]}"
                return [], f"call {at + 1} {why}"
            found.append((id_ or f"call{at:05d}", name, arguments))
        return found, ""
