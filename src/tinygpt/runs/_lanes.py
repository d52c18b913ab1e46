"""The lanes of a server's models: how many answers at once, what is kept of prompts, what guesses ahead."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tinygpt.core.events import Events
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane, Limits
from tinygpt.infer.prefix import Prefixes
from tinygpt.infer.speculate._protocol import Drafter
from tinygpt.runs import _prompt_cache
from tinygpt.runs._drafters import Drafters
from tinygpt.runs._serve_settings import Config
from tinygpt.serve.job import ModelCard


@dataclass(eq=False)
class Lanes:
    """Makes the lane of each model that is opened, on the worker's thread. What guesses is for the first
    model and its adapters: it was made for their tokens."""

    config: Config
    events: Events
    _drafters: Drafters | None = None
    _prefixes: Prefixes | None = None

    def __call__(self, card: ModelCard, engine: Engine) -> Lane:
        config = self.config
        limits = Limits(
            rows=config.max_rows, chunk=config.prefill_chunk, waiting=config.queue,
            bytes=int(config.kv_limit * 1e9) or None,
        )  # fmt: skip
        name = _prompt_cache.identity(engine, card.digest, self.adapters(card))
        return _prompt_cache.lane(
            engine, limits, self._kept(), name, self._drafter(card, engine), self.events
        )

    def _kept(self) -> Prefixes | None:
        """Beginnings of prompts, of all models together."""
        if self._prefixes is None:
            self._prefixes = self.config.prefixes(self.events)
        return self._prefixes

    def adapters(self, card: ModelCard) -> list[tuple[Path, float]]:
        """The adapters of a model, with their weights."""
        every = self.config.source.adapters
        named = [a for name in card.adapters for a in every if a.name == name]
        worn = [a for a in every if not a.name]
        return [(a.path, a.weight) for a in (*worn, *named)]

    def _drafter(self, card: ModelCard, engine: Engine) -> Drafter | None:
        models = self.config.source.models
        if not self.config.guessing or (card.base or card.name) != next(iter(models)):
            return None
        if self._drafters is None:
            self._drafters = Drafters(self.config, models[card.base or card.name], self.events)
        return self._drafters(engine)
