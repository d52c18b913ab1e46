"""Bake an adapter into its base: one model, with what rounding took of the adapter measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from mlx.utils import tree_flatten

from tinygpt.core import files, hub
from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events, Progress
from tinygpt.model import checkpoint, quantized, weights
from tinygpt.peft import _open
from tinygpt.runs import _baking, _beside, _pieces

PROBE = 16  # tokens on which the baked model is compared with the adapted one


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of `bake-lora`."""

    base: Annotated[Path, "The model that the adapter was trained on."]
    adapter: Annotated[Path, "The adapter: ours, peft's, mlx-lm's or the original's."]
    out: Annotated[Path, "Directory of the baked model."]
    dtype: Annotated[
        Literal["preserve", "f32", "f16", "bf16"], "How weights are stored that are not packed."
    ] = "preserve"
    dequantize: Annotated[bool, "Of a quantized base, leave the adapted matrices dense."] = False
    bits: Annotated[int, "Of a quantized base, pack the adapted matrices in so many bits; 0: its own."] = 0
    max_error: Annotated[
        float, "Largest share of the adapter's effect that packing may take; beyond it nothing is written."
    ] = 0.1
    force: Annotated[bool, "Bake it into other weights than those that it was trained on, too."] = False

    def __post_init__(self) -> None:
        if self.bits and self.dequantize:
            raise ConfigError("--bits packs what --dequantize leaves dense", hint="leave one of them out")
        if self.max_error <= 0:
            raise ConfigError(f"--max-error must be positive, got {self.max_error:g}")


def run(config: Config, events: Events) -> dict[str, Any]:
    """Write the baked model at `out`; returns how much of the adapter each matrix lost."""
    _beside.claim(config.out, force=None)
    folder, adapter = _pieces.model_path(config.base), _pieces.model_path(config.adapter)
    # The base of an adapter that --qlora trained is packed as it was then: what the two make is baked.
    packing = _pieces.packing_of(adapter)
    loaded = checkpoint.load(folder, dtype="stored", packing=packing)
    model: Any = loaded.model
    usual = weights.stored(dict(tree_flatten(model.parameters())))
    lies_packed = any(key in files.peek_json(folder / "config.json") for key in quantized.KEYS)
    packed = lies_packed and bool(quantized.packed(model))
    if not packed and (config.bits or config.dequantize):
        flag = "--bits" if config.bits else "--dequantize"
        raise ConfigError(f"{flag} is about a quantized base, and {folder} is dense", hint="leave it out")
    ids = mx.arange(PROBE)[None] % loaded.config.vocab_size
    plain = _logits(model, ids)
    read = _open.load([adapter], model, base=folder, force=config.force)
    for note in _open.told(read):
        events.note(note, "warning")
    if packing is not None and not packed:
        events.note(f"the adapter was trained on its base packed in {packing}: what that stands for is baked")
    adapted = _logits(model, ids)
    n = len(_baking.wrapped(model))
    dense = getattr(mx, _beside.DTYPES[config.dtype]) if config.dtype in _beside.DTYPES else None
    found: list[_baking.Baked] = []
    extra = _baking.dense_bytes(model)
    # What packed a dense base (--qlora, LoftQ) did so for the adapter: what comes of it is dense again.
    loose = config.dequantize or not packed
    for one in _baking.bake(model, dense=dense, bits=config.bits, dequantize=loose, usual=usual):
        found.append(one)
        events.emit(Progress(task="bake", done=len(found), total=n, unit="matrices"))
    if not packed:
        _baking.unpack(model, dense or usual)
    lost = _baking.total(found)
    if packed and not config.dequantize:
        _baking.refuse_loss(found, config.max_error, extra)
    elif lost > config.max_error:
        events.note(
            f"rounding to {found[0].form} takes {lost:.0%} of what the adapter changes; --dtype f32 keeps it",
            "warning",
        )
    facts = {
        "base": _beside.origin(config.base, folder),
        "adapter": {"path": _name(config.adapter, adapter), "name": read[0].pick.name},
        "error": lost,
    }
    with files.atomic_directory(config.out) as made:
        _beside.write_model(made, folder, model, _beside.DTYPES.get(config.dtype), baked=facts)
    moved = _distance(adapted, plain)
    return {
        "out": str(config.out), **facts, "matrices": len(found),
        "logits_error": _baking.share(_distance(_logits(model, ids), adapted), moved),
        "worst": max(found, key=lambda b: b.error).name, "worst_error": max(b.error for b in found),
        "layers": [{"name": b.name, "form": b.form, "error": b.error} for b in found],
    }  # fmt: skip


def _name(given: Path, folder: Path) -> str:
    return str(hub.of_snapshot(folder) or hub.spelled(given))


def _logits(model: Any, ids: mx.array) -> mx.array:
    found = model(ids).astype(mx.float32)
    mx.eval(found)
    return found


def _distance(a: mx.array, b: mx.array) -> float:
    return mx.sqrt(((a - b) ** 2).sum()).item()  # type: ignore[return-value]
