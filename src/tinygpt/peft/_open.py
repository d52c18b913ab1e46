"""Adapters from disk onto a model, whoever wrote them: one, or several with weights.

Of several each is wrapped around the layers as those before have left them. What is added by a low-rank
adapter does not hang on what is under it, so the changes add up: `W + sum_i w_i scale_i B_i A_i`, which is
peft's `add_weighted_adapter`. IA3's vectors multiply. DoRA stretches what it stands on, so order
counts there. An adapter of weight w changes its layer by w times what it would change it alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError, ConfigError, UnsupportedError
from tinygpt.model import checkpoint
from tinygpt.peft import _adapter, _joined, _layers, _mlx_lm, _tgla
from tinygpt.peft._adapter import Loaded


class Share(nn.Module):
    """Part of what a wrapper does to a linear layer: `y0 + w (y - y0)`, where y0 is what stands below it."""

    def __init__(self, wrapper: Any, weight: float) -> None:
        super().__init__()
        self.base_layer, self.weight_of_change = wrapper.base_layer, weight
        self._whole = lambda: wrapper  # not as a child, for the model would have what is below it twice

    def __call__(self, x: mx.array) -> mx.array:
        below = self.base_layer(x)
        return below + (self.weight_of_change * (self._whole()(x) - below)).astype(below.dtype)

    def fused_weight(self) -> mx.array:
        """The matrix that this is, in float32."""
        below = _layers.dense(self.base_layer)
        return below + self.weight_of_change * (_layers.fused_weight(self._whole()) - below)


def load(
    paths: Sequence[Path],
    model: nn.Module,
    *,
    base: Path | None = None,
    weights: Sequence[float] = (),
    force: bool = False,
) -> list[Loaded]:
    """Put adapters on a model in this order, each with its weight (not given: 1). Ours and peft's are
    directories, mlx-lm's too, the original's are files.

    One trained on other weights than those in `base` is refused, unless `force`; where one of them is
    refused, the model is left as it was."""
    if weights and len(weights) != len(paths):
        raise ConfigError(
            f"{len(weights)} weights were given for {len(paths)} adapters", hint="give one for each, in order"
        )
    if odd := [w for w in weights if not math.isfinite(w)]:
        raise ConfigError(f"an adapter's weight cannot be {odd[0]}")
    before = _layers.layers(model)
    loaded: list[Loaded] = []
    try:
        for i, path in enumerate(paths):
            under = _layers.layers(model)
            loaded.append(_one(path, model, base, force, beside=bool(i)))
            wrappers = {
                n: m for n, m in _layers.layers(model).items() if m is not under[n] and n in _outer(model)
            }
            if i or (weights and weights[i] != 1):
                _refuse_new_base(path, wrappers, under)
            if weights and weights[i] != 1:
                _layers.put(model, {n: _weighed(m, weights[i], n) for n, m in wrappers.items()})
    except (CheckpointError, UnsupportedError):
        _layers.put(model, before)
        raise
    return loaded


def _outer(model: nn.Module) -> set[str]:
    return {n for n in _layers.adapters(model) if not n.endswith(".base_layer")}


def _one(path: Path, model: nn.Module, base: Path | None, force: bool, *, beside: bool) -> Loaded:
    if _tgla.is_one(path):
        config = getattr(model, "config", None)
        sizes: dict[str, Any] = {name: getattr(config, name, None) for name in _tgla.SIZES.values()}
        pick, found = _tgla.read(path, sizes)
        return _placed(path, model, pick, found, (_tgla.NOTE,))
    if _mlx_lm.is_one(path):
        kinds = {name: _layers.kind(layer) for name, layer in _layers.layers(model).items()}
        pick, found = _mlx_lm.read(path, kinds)
        return _placed(path, model, pick, found, ())
    has = {n for n in ("config.json", "adapter_config.json", checkpoint.MANIFEST) if (path / n).is_file()}
    if has == {"config.json"}:
        raise CheckpointError(f"{path} is a model, not an adapter", hint="give an adapter's directory")
    return _adapter.load_adapter(path, model, base=base, force=force, beside=beside)


def _placed(
    path: Path, model: nn.Module, pick: Pick, found: dict[str, mx.array], notes: tuple[str, ...]
) -> Loaded:
    """Tensors under PEFT's names onto the layers that they are for."""
    try:
        pick = pick.resolve(_adapter.PEFT, "peft")
        pick, found = _joined.as_ours(pick, found, model, _adapter.PREFIX, str(path))
        layers = _adapter.picked(model, pick)
    except (ConfigError, UnsupportedError) as error:
        raise CheckpointError(f"{path} does not fit this model: {error.message}", hint=error.hint) from error
    try:
        wrapped = _adapter.wrap(model, pick, layers)
        _adapter.fill(model, found, str(path), wrapped, ours=False)
    except (CheckpointError, UnsupportedError):
        _layers.put(model, layers)
        raise
    return Loaded(pick=pick, manifest={}, path=path, notes=notes)


def _refuse_new_base(path: Path, wrappers: dict[str, nn.Module], under: dict[str, nn.Module]) -> None:
    """An adapter that stands on matrices of its own (LoftQ's are quantized) comes first, and in full."""
    for name, wrapper in wrappers.items():
        if _layers.innermost(wrapper) is not _layers.innermost(under[name]):
            # Experts are arrays, so what stands for them is made anew each time.
            if _layers.kind(wrapper) == _layers.EXPERTS:
                continue
            raise UnsupportedError(
                f"the adapter {path} brings its own matrix for {name}, so it is there in full or not at all",
                hint="name it first, and give it the weight 1",
            )


def _weighed(wrapper: Any, weight: float, name: str) -> Any:
    """The wrapper, counting so much."""
    if hasattr(wrapper, "weigh"):
        wrapper.weigh(weight)
    elif hasattr(wrapper, "parts") and "lora_magnitude_vector" not in wrapper:
        wrapper.scale = weight * wrapper.scale
    elif _layers.kind(wrapper) == _layers.LINEAR:
        return Share(wrapper, weight)
    else:
        raise UnsupportedError(f"the adapter of {name} cannot be weighted", hint="leave its weight out")
    return wrapper


def told(loaded: Sequence[Loaded]) -> list[str]:
    """What a person should know of adapters that were read, each once."""
    return list(dict.fromkeys(note for one in loaded for note in one.notes))
