"""An engine of a model directory, and the settings of commands that have it write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane, Limits
from tinygpt.model.quantized import Packing
from tinygpt.runs import _pieces
from tinygpt.runs._adapters import Adapters


def open_engine(
    path: Path, worn: Adapters | None = None, events: Events | None = None, packing: Packing | None = None
) -> Engine:
    """The engine of a model directory, its matrices packed so, with adapters on top if any are given."""
    worn = worn or Adapters()
    loaded, tokenizer = _pieces.open_model(path, **worn.worn, packing=packing, events=events)
    return Engine(loaded.model, tokenizer, _pieces.template_of(tokenizer))


def lane_of(engine: Engine, limits: Limits | None = None) -> Lane:
    """A lane of one person, or of one run."""
    return Lane(engine, limits)


@dataclass(frozen=True, kw_only=True)
class Ends:
    """Which ids end an answer."""

    stop_id: Annotated[tuple[int, ...], "Id of a token that ends the answer, beside the model's own."] = ()
    ignore_eos: Annotated[bool, "The model's own stop ids do not end the answer."] = False

    def stop_ids(self, engine: Engine) -> frozenset[int]:
        """Those ids; ConfigError for one that the model does not have."""
        n = engine.model.config.vocab_size
        if (wrong := next((i for i in self.stop_id if not 0 <= i < n), None)) is not None:
            raise ConfigError(f"--stop-id {wrong}: the model has the ids 0 to {n - 1}")
        return frozenset(self.stop_id) | (frozenset() if self.ignore_eos else engine.stop_ids)
