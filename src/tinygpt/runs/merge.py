"""Merge models of one architecture into one, tensor by tensor, so that memory holds one tensor of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core import files
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick, resolve_picks, to_dict
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.core.events import Events, Progress
from tinygpt.merge._change import MERGES, Parts
from tinygpt.model import checkpoint, shards
from tinygpt.model.shards import Shards
from tinygpt.runs import _beside, _same_kind


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of `merge`."""

    models: Annotated[tuple[Path, ...], "The models to merge, two or more."]
    out: Annotated[Path, "Directory of the merged model."]
    method: Annotated[Pick, "How they are merged.", MERGES] = Pick("ties")
    base: Annotated[Path | None, "The model that they all grew from."] = None
    weights: Annotated[tuple[float, ...], "One number a model; without it each counts 1."] = ()
    force: Annotated[bool, "Replace an earlier model at --out."] = False

    def __post_init__(self) -> None:
        resolve_picks(self)

    @property
    def shares(self) -> tuple[float, ...]:
        """One weight a model."""
        return self.weights or (1.0,) * len(self.models)


def run(config: Config, events: Events) -> dict[str, Any]:
    """Write the merged model at `out`; returns what it is made of."""
    _check(config)
    _beside.claim(config.out, force=config.force)
    folders = [_same_kind.opened(path) for path in config.models]
    base = None if config.base is None else _same_kind.opened(config.base)
    first = base or folders[0]
    for other in (*folders, *([] if base is None else [base])):
        if other.resolve() == config.out.resolve():
            raise ConfigError(f"--out {config.out} is one of the models", hint="choose another --out")
        _same_kind.refuse_other_kind(first, other)
    lead, models = Shards(first), [Shards(folder) for folder in folders]
    for other, folder in zip(models, folders, strict=True):
        _same_kind.refuse_other_tensors(lead, first, other, folder)
    combine = MERGES.load(config.method.name).combine
    done = 0

    def produce(name: str) -> mx.array:
        nonlocal done
        done += 1
        events.emit(Progress(task="merge", done=done, total=len(lead.entries), unit="tensors"))
        entry = lead.entries[name]
        if not entry.is_float:
            return _the_same(name, lead, first, models, folders)
        tensors = [_finite(m.read(name), name, f) for m, f in zip(models, folders, strict=True)]
        grew = None if base is None else _finite(lead.read(name), name, base)
        merged = combine(config.method.options, Parts(name, tensors, config.shares, grew))
        merged = merged.astype(getattr(mx, entry.dtype))
        mx.eval(merged)
        return _finite(merged, name, config.out, like=merged.dtype)

    made = {
        "method": to_dict(config.method),
        "models": [_beside.origin(p, f) for p, f in zip(config.models, folders, strict=True)],
        "weights": list(config.shares),
        "base": None if base is None else _beside.origin(config.base or base, base),
    }  # fmt: skip
    with files.atomic_directory(config.out, replace=config.force) as folder:
        files.write_json(folder / "config.json", checkpoint.read_json(first / "config.json"))
        _beside.copy(first, folder)
        plan = {name: (entry.dtype, entry.shape) for name, entry in lead.entries.items()}
        shards.write(folder, "model", plan, produce)
        checkpoint.seal(folder, kind="model", merged=made)
    return {"out": str(config.out), "tensors": len(plan), **made}


def _check(config: Config) -> None:
    """Refuse models, weights and a base that do not go together."""
    if len(config.models) < 2:
        raise ConfigError(
            f"two or more models are merged, {len(config.models)} given",
            hint="name them one after the other",
        )
    if config.weights and len(config.weights) != len(config.models):
        raise ConfigError(
            f"--weights has {len(config.weights)} numbers, and there are {len(config.models)} models",
            hint="give one number a model, with commas: 0.7,0.3",
        )
    check = MERGES.load(config.method.name).check
    check(config.method.options, config.shares, config.base is not None)


def _finite(tensor: mx.array, name: str, folder: Path, *, like: mx.Dtype = mx.float32) -> mx.array:
    tensor = tensor.astype(like)
    checkpoint.refuse_nan({name: tensor}, str(folder))
    return tensor


def _the_same(name: str, lead: Shards, first: Path, models: list[Shards], folders: list[Path]) -> mx.array:
    """A tensor that is no weight, as a table of positions is: it must be the same everywhere."""
    value = lead.read(name)
    for model, folder in zip(models, folders, strict=True):
        if not mx.array_equal(model.read(name), value):
            raise CheckpointError(f"{name} holds no weights, and differs between {first} and {folder}")
    return value
