"""The lanes of a server's models: how many answers at once, and what guesses ahead for them."""

from __future__ import annotations

from dataclasses import dataclass, field

from tinygpt.core.events import Events
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane, Limits
from tinygpt.infer.speculate import draft
from tinygpt.runs import _pieces
from tinygpt.runs._serve_settings import Config
from tinygpt.serve.job import ModelCard


@dataclass(eq=False)
class Lanes:
    """Makes the lane of each model that is opened, on the worker's thread. The draft model is for the first
    model and its adapters: it has their tokenizer."""

    config: Config
    events: Events
    _draft: list[Engine] = field(default_factory=list[Engine])

    def __call__(self, card: ModelCard, engine: Engine) -> Lane:
        config = self.config
        limits = Limits(rows=config.max_rows, chunk=config.prefill_chunk, waiting=config.queue)
        return Lane(engine, limits, drafter=self._drafter(card, engine))

    def _drafter(self, card: ModelCard, engine: Engine) -> draft.Draft | None:
        config = self.config
        if config.draft_model is None or (card.base or card.name) != next(iter(config.source.models)):
            return None
        if not self._draft:  # one for all lanes
            loaded, tokenizer = _pieces.open_model(config.draft_model, events=self.events)
            self._draft.append(Engine(loaded.model, tokenizer))
        return draft.build(engine, draft.Config(tokens=config.draft_tokens), draft=self._draft[0])
