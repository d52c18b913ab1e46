"""What the trajectories of a server say of its models: hashes, taken when a model is opened."""

from __future__ import annotations

import weakref
from pathlib import Path

from tinygpt.infer.engine import Engine
from tinygpt.runs import _agent_facts, _pieces
from tinygpt.runs._lanes import Lanes
from tinygpt.serve.registry import Open, Opened


class Facts:
    """Opens models as `open_` does, and knows of each engine whose it is."""

    def __init__(self, open_: Open, lanes: Lanes) -> None:
        self._open, self._lanes = open_, lanes
        self._facts: weakref.WeakKeyDictionary[Engine, dict[str, str]] = weakref.WeakKeyDictionary()
        self._hashes: dict[str, str] = {}  # by what names the files: hashing gigabytes is slow

    def open(self, name: str, base: Engine | None) -> Opened:
        """On the worker's thread."""
        opened = self._open(name, base)
        card, path = opened.card, Path(opened.card.details["path"])
        if card.digest not in self._hashes:
            self._hashes[card.digest] = _pieces.checkpoint.identity(_pieces.model_path(path))
        self._facts[opened.engine] = _agent_facts.of_model(
            path, self._lanes.adapters(card), opened.engine, hash=self._hashes[card.digest]
        )
        return opened

    def of(self, engine: Engine) -> dict[str, str]:
        """See `serve.traced.Traces`."""
        return self._facts[engine]
