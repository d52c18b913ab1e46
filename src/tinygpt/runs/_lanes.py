"""The lanes of a server's models: how many answers at once, what is kept of prompts, what guesses ahead."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tinygpt.core import files
from tinygpt.core.events import Events
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane, Limits
from tinygpt.infer.prefix import Prefixes
from tinygpt.infer.prefix_files import Folder
from tinygpt.infer.speculate._protocol import Drafter
from tinygpt.runs import _pieces
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
    _prefixes: list[Prefixes] = field(default_factory=list[Prefixes])

    def __call__(self, card: ModelCard, engine: Engine) -> Lane:
        config = self.config
        limits = Limits(
            rows=config.max_rows, chunk=config.prefill_chunk, waiting=config.queue,
            bytes=int(config.kv_limit * 1e9) or None,
        )  # fmt: skip
        identity = " ".join((card.digest, card.quantization, *self._adapters(card)))
        kept, drafter = self._kept(), self._drafter(card, engine)
        if kept is not None and drafter is not None and drafter.points:
            self.events.note("the heads want to see all of a prompt: of this model, none is kept", "warning")
        return Lane(engine, limits, drafter=drafter, prefixes=kept, identity=identity)

    def _kept(self) -> Prefixes | None:
        """Beginnings of prompts, of all models together."""
        config = self.config
        if not config.prompt_cache:
            return None
        if not self._prefixes:
            most = int(config.prompt_cache * 1e9)
            folder = config.prompt_cache_dir
            kept = None if folder is None else Folder(folder, most, self.events)
            self._prefixes.append(Prefixes(most, folder=kept))
        return self._prefixes[0]

    def _adapters(self, card: ModelCard) -> list[str]:
        """What is in the adapters of a model, since others may get their names."""
        every = self.config.source.adapters
        named = [a for name in card.adapters for a in every if a.name == name]
        worn = [a for a in every if not a.name]
        return [f"{a.weight:g} {_content(_pieces.model_path(a.path))}" for a in (*worn, *named)]

    def _drafter(self, card: ModelCard, engine: Engine) -> Drafter | None:
        models = self.config.source.models
        if not self.config.guessing or (card.base or card.name) != next(iter(models)):
            return None
        if self._drafters is None:
            self._drafters = Drafters(self.config, models[card.base or card.name], self.events)
        return self._drafters(engine)


def _content(path: Path) -> str:
    """Hashes of an adapter's tensors: a file of the original, or the files of a folder."""
    found = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    return " ".join(map(files.sha256, found))
