"""An answer as blocks, one after another: reasoning, text, calls of tools. Two surfaces speak of those."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tinygpt.serve.job import Delta, Token


@dataclass
class Block:
    """kind: "reasoning", "text" or "call"; `text` is what was written so far, a call's arguments as JSON."""

    kind: str
    index: int
    text: str = ""
    id: str = ""
    name: str = ""
    call: int = -1
    tokens: list[Token] = field(default_factory=list[Token])


@dataclass(frozen=True)
class Step:
    """do: "open", "add" or "close"; `text` and `tokens` are what is added."""

    do: str
    block: Block
    text: str = ""
    tokens: tuple[Token, ...] = ()


class Blocks:
    """The blocks of one answer while it grows; at most the last one is open."""

    def __init__(self) -> None:
        self.all: list[Block] = []
        self._open: Block | None = None
        self._held: list[Token] = []  # reported while their text was held back

    def take(self, delta: Delta) -> Iterator[Step]:
        """What a delta does."""
        if delta.reasoning:
            yield from self._to("reasoning")
            yield self._add(delta.reasoning)
        elif not delta.calls:
            self._held += delta.tokens
        if delta.text:
            yield from self._to("text")
            yield self._add(delta.text)
        for part in delta.calls:
            yield from self._to("call", part.index, part.id, part.name)
            if part.arguments:
                yield self._add(part.arguments)

    def end(self) -> Iterator[Step]:
        """What the end of the answer does."""
        if self._open is not None:
            if self._open.kind == "text" and self._held:
                yield self._add("")
            yield Step("close", self._open)
            self._open = None

    def _to(self, kind: str, call: int = -1, id: str = "", name: str = "") -> Iterator[Step]:
        if self._open is not None and (self._open.kind, self._open.call) == (kind, call):
            return
        yield from self.end()
        self._open = Block(kind, len(self.all), "", id, name, call)
        self.all.append(self._open)
        yield Step("open", self._open)

    def _add(self, text: str) -> Step:
        block = self._open
        assert block is not None
        block.text += text
        tokens = ()
        if block.kind == "text":
            tokens, self._held = tuple(self._held), []
            block.tokens += tokens
        return Step("add", block, text, tokens)
