"""Generate: continue a prompt, or hold a conversation, with a model and an optional adapter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine, Piece
from tinygpt.runs import _constrained, _drafters, _package, _pieces
from tinygpt.runs._adapters import Adapters
from tinygpt.runs._constrained import Constrained
from tinygpt.runs._drafters import Speculation


@dataclass(frozen=True, kw_only=True)
class Config(SampleConfig, Adapters, Speculation, Constrained):
    """Settings of `sample`."""

    model: Annotated[Path, "A model, run or specialist directory."]
    prompt: Annotated[str, "Text to continue; '-' reads it from stdin."] = ""
    n: Annotated[int, "How many answers."] = 1

    def __post_init__(self) -> None:
        SampleConfig.__post_init__(self)
        Adapters.__post_init__(self)
        Speculation.__post_init__(self)
        Constrained.__post_init__(self)
        if self.n < 1:
            raise ConfigError(f"--n must be at least 1, got {self.n}")


@dataclass(frozen=True, kw_only=True)
class ChatConfig(SampleConfig, Adapters):
    """Settings of `chat`."""

    model: Annotated[Path, "A model, run or specialist directory."]
    system: Annotated[str | None, "System prompt; a packaged specialist brings its own."] = None
    temperature: Annotated[float, "0: always the likeliest token."] = 0.0

    def __post_init__(self) -> None:
        SampleConfig.__post_init__(self)
        Adapters.__post_init__(self)


def open_engine(path: Path, worn: Adapters | None = None, events: Events | None = None) -> Engine:
    """The engine of a model directory, with adapters on top if any are given."""
    loaded, tokenizer = _pieces.open_model(path, **(worn or Adapters()).worn, events=events)
    return Engine(loaded.model, tokenizer, _pieces.template_of(tokenizer))


def sample(config: Config, prompt: str, events: Events | None = None) -> Iterator[tuple[int, Piece]]:
    """Stream `n` answers one after another as (number, piece); answer i has the seed `seed + i`."""
    import dataclasses

    engine = open_engine(config.model, config, events)
    engine.drafter = _drafters.drafter(config, engine, config.model, events)
    ids = engine.encode(prompt)
    constraint = _constrained.maker(config, engine.tokenizer)
    assert config.seed is not None, "the caller shows the seed, so it draws it"
    for i in range(config.n):
        own = dataclasses.replace(config, seed=config.seed + i)
        for piece in engine.generate(ids, own, constraint=constraint() if constraint else None):
            yield i, piece
    _drafters.tell(engine, events)


class Conversation:
    """A chat that keeps its history inside the model's context, and inside the `turns` that a packaged
    specialist was trained on (0: no bound)."""

    def __init__(self, config: ChatConfig, events: Events | None = None) -> None:
        self.config = config
        self.engine = open_engine(config.model, config, events)
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
        written = ""
        try:
            for piece in self.engine.generate(ids, self.config):
                written += piece.text
                yield piece.text
        finally:
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
