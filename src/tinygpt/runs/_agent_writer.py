"""A model in this process as the agent's writer: its own template, calls under their tools' schemas."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from tinygpt.agent.turn import Message, Said, Turn
from tinygpt.core.errors import ConfigError
from tinygpt.data.template import _calls, chatml
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.constrain import tools as grammar
from tinygpt.infer.constrained import constraint
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane
from tinygpt.infer.request import Answer, Constraint, Piece
from tinygpt.serve import calls, prompts
from tinygpt.serve.stream import Parser


class LocalWriter:
    """Writes turns on a lane, which keeps what it has read. `entries` are all tools that may be called;
    without `constrained` calls are only read, not enforced. Turn n has the seed `sampling.seed + n`."""

    def __init__(
        self,
        engine: Engine,
        lane: Lane,
        sampling: SampleConfig,
        entries: Sequence[dict[str, Any]],
        *,
        constrained: bool = True,
    ) -> None:
        self.engine, self.lane, self.sampling = engine, lane, sampling
        self.entries, self.constrained = list(entries), constrained
        self._n_calls = self._n_turns = 0

    def room(self, max_tokens: int) -> int | None:
        """The context but what an answer needs."""
        return self.engine.context - max(16, min(max_tokens, self.engine.context // 4))

    def size(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]]) -> int:
        return len(prompts.of_chat(self.engine, messages, tools).ids)

    def encode(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], *, answer: bool
    ) -> list[int] | None:
        """Ids of a conversation; None where the template does not write it so far."""
        try:
            return prompts.of_chat(self.engine, messages, tools, answer=answer).ids
        except ConfigError:
            if answer:
                raise
            return None

    def decode(self, ids: Sequence[int]) -> str:
        return self.engine.tokenizer.decode(ids)

    def write(self, turn: Turn) -> Said:
        """One turn, streamed."""
        started = time.perf_counter()
        prompt = prompts.of_chat(self.engine, turn.messages, turn.tools)
        source = prompt.source
        if self.constrained and _calls.parser(source) is _calls.plain:
            source = chatml.CHAT_TEMPLATE  # of the forms that mlx_lm reads there is no grammar
        forms = calls.forms(source, self.engine.tokenizer.special) if self.entries else []
        seed = None if self.sampling.seed is None else self.sampling.seed + self._n_turns
        config = dataclasses.replace(self.sampling, max_tokens=turn.max_tokens, seed=seed)
        self._n_turns += 1
        request = self.engine.request(
            prompt.ids, config, logprobs=0, boundaries=prompt.boundaries,
            constraint=self._constraint(turn, source, prompt),
        )  # fmt: skip
        parser = Parser(prompt.think, opened=prompt.opened, forms=forms, tools=self.entries)
        pieces: deque[Piece] = deque()
        said = _Parts(parser, turn)
        answer = self.lane.submit(request, pieces.append)
        try:
            while answer.finish_reason is None or pieces:
                if turn.cancel.is_set():
                    answer.cancel()
                if pieces:
                    said.take(pieces.popleft())
                else:
                    self.lane.step()
        finally:
            self.lane.end_all()
        if answer.error is not None:
            raise answer.error
        return self._said(answer, said, prompt.ids, [form.begin for form in forms], started)

    def _constraint(self, turn: Turn, source: str, prompt: prompts.Prompt) -> Constraint | None:
        if not (self.constrained and self.entries):
            return None
        spec = grammar.Config(tools=self.entries, choice=turn.choice, first=turn.first, template=source)
        thoughts = "open" if prompt.opened else "may" if prompt.thinks else ""
        return constraint(
            "tools", spec, self.engine.tokenizer, stop_ids=self.engine.stop_ids, thoughts=thoughts
        )

    def _said(
        self, answer: Answer, said: _Parts, prompt: list[int], marks: Sequence[str], started: float
    ) -> Said:
        found, error = said.calls()
        reason = answer.finish_reason or ""
        if not error and (mark := next((m for m in marks if m and m in said.text), "")):
            error = f"a call that begins with {mark} is not whole"
        if reason == "cancelled" or error:
            found = []
        message: Message = {"role": "assistant", "content": said.text if not error else answer.text}
        if found:
            message["tool_calls"] = []
        for name, arguments in found:
            call = {"id": f"call{self._n_calls:05d}", "type": "function"}  # what Mistral's templates want
            message["tool_calls"].append(call | {"function": {"name": name, "arguments": arguments}})
            self._n_calls += 1
        return Said(
            message=message, finish_reason=reason, error=error if reason != "cancelled" else "",
            prompt=prompt, ids=said.ids, logprobs=said.logprobs, n_prompt=len(prompt),
            n_cached=answer.n_cached, n_written=len(said.ids), seconds=time.perf_counter() - started,
        )  # fmt: skip


class _Parts:
    """A turn as it comes: its ids, its text, and its calls with their arguments as text."""

    def __init__(self, parser: Parser, turn: Turn) -> None:
        self._parser, self._turn = parser, turn
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.text = ""
        self._calls: list[tuple[str, str]] = []

    def take(self, piece: Piece) -> None:
        """One more token; the last one ends it."""
        if piece.token >= 0:
            assert piece.logprob is not None
            self.ids.append(piece.token)
            self.logprobs.append(piece.logprob)
        parts = self._parser.feed(piece.text)
        if piece.finish_reason is not None:
            parts += self._parser.finish()
        for part in parts:
            if part.kind == "text":
                self.text += part.text
                self._turn.on_text(part.text)
            elif part.kind == "call":
                self._calls.append((part.text, ""))
            elif part.kind == "arguments":
                name, text = self._calls[-1]
                self._calls[-1] = (name, text + part.text)

    def calls(self) -> tuple[list[tuple[str, dict[str, Any]]], str]:
        """Names and arguments, and what is wrong with them."""
        found: list[tuple[str, dict[str, Any]]] = []
        for name, text in self._calls:
            arguments = calls.arguments(text)
            if "_raw" in arguments:
                return [], f"the arguments of the call of {name} are no JSON object"
            found.append((name, arguments))
        return found, ""
