"""Heads that draft beside a frozen model: what they are, and the directory that they are saved in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlx.utils import tree_flatten, tree_unflatten

from tinygpt.core import files
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import from_dict, to_dict
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.model import checkpoint
from tinygpt.model.seeds import key_of
from tinygpt.model.weights import UNPAIRED

CONFIG = "heads.json"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What decides the shape of heads, and what they divide by.

    width: of the model's features. hidden: inside the heads. horizons: tokens after the next that Medusa's
    heads guess; of EAGLE's, which writes on as long as it is asked, 1. The scales are root mean squares of
    the model's features and embeddings."""

    kind: Literal["medusa", "eagle"]
    width: int
    hidden: int
    vocab_size: int
    horizons: int = 1
    feature_scale: float = 1.0
    embedding_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("width", "hidden", "vocab_size", "horizons"):
            if getattr(self, name) < 1:
                raise ConfigError(f"'{name}' of heads must be at least 1, got {getattr(self, name)}")
        if not (self.feature_scale > 0 and self.embedding_scale > 0):
            raise ConfigError("the scales of heads must be positive")


def build(facts: Facts, seed: int = 0) -> nn.Module:
    """Fresh heads: matrices normal / sqrt(inputs), those that are added to what was there 0, the rest 1. Each
    key derives from (seed, name)."""
    from tinygpt.model.drafting.eagle import Eagle
    from tinygpt.model.drafting.medusa import Medusa

    made = Medusa(facts) if facts.kind == "medusa" else Eagle(facts)
    fresh: list[tuple[str, mx.array]] = []
    for name, value in tree_flatten(made.parameters()):
        if facts.kind == "medusa" and name.startswith("out."):
            fresh.append((name, mx.zeros(value.shape)))
        elif value.ndim < 2:
            fresh.append((name, mx.ones(value.shape)))
        else:
            noise = mx.random.normal(value.shape, key=key_of(seed, "heads", name))
            fresh.append((name, noise * value.shape[-1] ** -0.5))
    made.update(tree_unflatten(fresh))
    mx.eval(made.parameters())
    return made


def save(path: Path, heads: Any, *, base: Path, **kept: Any) -> Path:
    """Write heads as a checkpoint directory in one step. The manifest names `base`, the directory of their
    model, and its weights; `kept` is what `checkpoint.written` takes."""
    way = os.path.relpath(os.path.realpath(base), os.path.realpath(path))
    trained_on = {"path": Path(way).as_posix(), "hash": checkpoint.identity(base)}
    with checkpoint.written(path, kind="heads", base=trained_on, **kept) as folder:
        files.write_json(folder / CONFIG, to_dict(heads.facts))
        checkpoint.write_tensors(folder, "heads", dict(tree_flatten(heads.parameters())))
    return Path(path)


def load(path: Path, *, base: Path | None = None, force: bool = False) -> Any:
    """Heads from their directory. With `base`, the directory of the model they are to draft for, those of
    other weights are refused, unless `force`."""
    manifest = checkpoint.validate(path)
    if manifest["kind"] != "heads":
        raise CheckpointError(
            f"{path} holds no heads but a {manifest['kind']}", hint="train-heads makes them"
        )
    try:
        facts = from_dict(Facts, checkpoint.read_json(path / CONFIG), CONFIG)
    except ConfigError as error:
        raise CheckpointError(f"{path / CONFIG}: {error.message}", hint=error.hint) from error
    trained_on = manifest.get("base", {}).get("hash")
    if base is not None and not force and trained_on != checkpoint.identity(base):
        raise CheckpointError(
            f"the heads in {path} were trained on other weights than those in {base}",
            hint="use the model they were trained on, or --force-heads: texts stay right, guesses may not",
        )
    made = build(facts)
    fill(made, checkpoint.read_tensors(path, "heads"), str(path))
    return made


def fill(heads: nn.Module, tensors: Mapping[str, mx.array], where: str) -> None:
    """Put saved tensors into heads; CheckpointError where names or shapes differ."""
    held = dict(tree_flatten(heads.parameters()))
    odd = sorted(held.keys() ^ tensors.keys()) + [
        name for name in held.keys() & tensors.keys() if held[name].shape != tensors[name].shape
    ]
    if odd:
        raise CheckpointError(f"{where} does not fit its heads: {odd[0]} differs", hint=UNPAIRED)
    heads.update(tree_unflatten([(name, tensors[name].astype(mx.float32)) for name in held]))
    mx.eval(heads.parameters())


def refuse_other(facts: Facts, *, width: int, vocab_size: int) -> None:
    """ConfigError where heads do not fit a model's sizes."""
    if (facts.width, facts.vocab_size) != (width, vocab_size):
        raise ConfigError(
            f"the heads are of a model with width {facts.width} and {facts.vocab_size} ids, this one has "
            f"{width} and {vocab_size}",
            hint="train heads for this model: tinygpt train-heads",
        )
