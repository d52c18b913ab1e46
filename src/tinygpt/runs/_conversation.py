"""A conversation with a model, which keeps its history."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.errors import DataError
from tinygpt.core.events import Events
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.request import Piece
from tinygpt.runs import _drafters, _package
from tinygpt.runs._adapters import Adapters
from tinygpt.runs._drafters import Speculation
from tinygpt.runs._engine import open_engine
from tinygpt.runs._packs import Packs
from tinygpt.runs._prompt_cache import PromptCache


@dataclass(frozen=True, kw_only=True)
class ChatConfig(SampleConfig, Adapters, Packs, Speculation, PromptCache):
    """Settings of `chat`."""

    model: Annotated[Path, "A model, run or specialist directory."]
    system: Annotated[str | None, "System prompt; a packaged specialist brings its own."] = None
    temperature: Annotated[float, "0: always the likeliest token."] = 0.0

    def __post_init__(self) -> None:
        SampleConfig.__post_init__(self)
        Adapters.__post_init__(self)
        Packs.__post_init__(self)
        Speculation.__post_init__(self)
        PromptCache.__post_init__(self)


class Conversation:
    """A chat that keeps its history inside the model's context, and inside the `turns` that a packaged
    specialist was trained on (0: no bound)."""

    def __init__(self, config: ChatConfig, events: Events | None = None) -> None:
        self.config = config
        self.events = events
        self.engine = open_engine(config.model, config, events, config.packing)
        self.engine.drafter = _drafters.Drafters(config, config.model, events)(self.engine)
        self.lane = config.lane(self.engine, config.model, config, events)  # one for all turns
        own = config.model / "prompt.md"
        system = config.system if config.system is not None else _read(own) if own.is_file() else ""
        self.start: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        self.messages = list(self.start)
        self.turns = _package.turns(config.model)
        self.n_forgotten = 0

    @property
    def note(self) -> str:
        """What a person should know of how the conversation is written, or ""."""
        return self.engine.template.note if self.engine.template else ""

    def end(self) -> None:
        """Say what guessing came to, if anything guessed."""
        _drafters.tell(self.engine, self.events)

    def reset(self) -> None:
        """Forget everything but the system prompt."""
        self.messages = list(self.start)

    def say(self, text: str) -> Iterator[str]:
        """The reply to one more user message, piece by piece; it joins the history, also when cut off."""
        self.messages.append({"role": "user", "content": text})
        try:
            ids = self._fit()
        except DataError:  # too long, or the template refuses it: it is as if it had not been said
            if self.messages and self.messages[-1]["role"] == "user":
                self.messages.pop()
            raise
        written, pieces = "", deque[Piece]()
        answer = self.lane.submit(self.engine.request(ids, self.config), pieces.append)
        try:
            while answer.finish_reason is None or pieces:
                if not pieces:
                    self.lane.step()
                    continue
                written += (text := pieces.popleft().text)
                yield text
        finally:
            self.lane.end_all()  # an answer that was cut off
            assert self.engine.template is not None
            self.messages.append(self.engine.template.parse(written))

    def _fit(self) -> list[int]:
        """The rendered history; the oldest turns after the system prompt leave when they no longer fit. A
        message that would not fit even alone is refused, and nothing is forgotten for it."""
        keep = max(16, min(self.config.max_tokens, self.engine.context // 4))
        room = self.engine.limit(self.config) - keep
        alone = self.engine.encode_chat([*self.start, self.messages[-1]])
        if len(alone) > room:
            self.messages.pop()
            raise DataError(
                f"the message has {len(alone)} tokens and leaves no room for an answer "
                f"in a context of {self.engine.context}",
                hint="say it shorter",
            )
        while self.turns and sum(m["role"] == "user" for m in self.messages) > self.turns:
            self._forget()
        while len(ids := self.engine.encode_chat(self.messages)) > room:
            self._forget()
            self.n_forgotten += 1
        return ids

    def _forget(self) -> None:
        """Drop the oldest turn: all before the second message of the user."""
        first = len(self.start)
        users = [i for i in range(first, len(self.messages)) if self.messages[i]["role"] == "user"]
        del self.messages[first : users[1]]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()
