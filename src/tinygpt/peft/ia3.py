"""IA3: nothing is added to a matrix; learned vectors stretch keys, values and what an MLP holds inside.

`y = l * (W x + c)` where a matrix makes keys or values, and `y = W (l * x) + c` for the matrix that reads the
MLP's inner activations, so that they are what is scaled. l has one number for each output, or each input,
and starts at one: the adapted model starts as the base model. Fused it is `diag(l) W` (and `l * c`), or
`W diag(l)`: a model with it is no larger and no slower.

Paper: Liu et al., NeurIPS 2022, arXiv:2205.05638 (section 3.3).
Differs: the targets are choosable; those in `feedforward` scale their input, all others their output.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.peft import _format, _layers


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of IA3."""

    targets: Annotated[tuple[str, ...], "Endings of names to adapt; all-linear: all in the blocks."] = (
        "k_proj", "v_proj", "down_proj",
    )  # fmt: skip
    feedforward: Annotated[tuple[str, ...], "Endings of those whose input is scaled, not the output."] = (
        "down_proj",
    )
    exclude: Annotated[tuple[str, ...], "Layers that the targets name and that stay as they are."] = ()

    def __post_init__(self) -> None:
        if not self.targets:
            raise ConfigError(
                "an adapter without targets learns nothing", hint="for example --targets k_proj,v_proj"
            )


def at(config: Config, name: str) -> Config:
    """The config for the layer of this name: `feedforward` is empty where its output is scaled."""
    inner = any(_layers.matching(end, (name,)) for end in config.feedforward)
    return dataclasses.replace(config, targets=(name,), feedforward=(name,) if inner else ())


class IA3(nn.Module):
    """x (..., in) -> (..., out). `ia3_l` as in peft: (out, 1), or (1, in) where the input is scaled."""

    def __init__(self, base: nn.Module, config: Config) -> None:
        super().__init__()
        self.base_layer = base
        n_out, n_in = _layers.shape(base)
        self.inner = bool(config.feedforward)
        self.ia3_l = mx.ones((1, n_in) if self.inner else (n_out, 1))

    def __call__(self, x: mx.array) -> mx.array:
        scale = self.ia3_l.reshape(-1)
        if self.inner:
            return self.base_layer((x * scale).astype(x.dtype))
        y = self.base_layer(x)
        return (y * scale).astype(y.dtype)

    def fused_weight(self) -> mx.array:
        """The base matrix (out, in) with its rows or columns stretched, in float32."""
        return _layers.dense(self.base_layer) * self.ia3_l.astype(mx.float32)

    def fused_bias(self) -> mx.array | None:
        """The bias, stretched where the output is."""
        bias = _layers.bias(self.base_layer)
        return bias if bias is None or self.inner else (bias * self.ia3_l.reshape(-1)).astype(bias.dtype)

    def weigh(self, weight: float) -> None:
        """Let the change count this much: l becomes 1 + weight (l - 1)."""
        self.ia3_l = 1 + weight * (self.ia3_l - 1)


def wrap(layer: nn.Module, config: Config, key: mx.array) -> IA3:
    """A layer with its vector; nothing is drawn."""
    return IA3(layer, config)


def check(config: Config, matrices: Mapping[str, nn.Module]) -> None:
    """Refuse a feedforward target that no adapted matrix has, unless it is the usual one."""
    for end in config.feedforward:
        if config.feedforward != Config().feedforward and not _layers.matching(end, matrices):
            raise ConfigError(
                f"the feedforward target '{end}' is none of the adapted matrices",
                hint=f"they are: {', '.join(sorted({n.rsplit('.', 1)[-1] for n in matrices}))}",
            )


def to_peft(config: Config, wrappers: Mapping[str, nn.Module]) -> dict[str, Any]:
    """What adapter_config.json says of this technique."""
    # peft wants each feedforward module spelled as the target is; whole names always mean what they say.
    ends = {name: name.rsplit(".", 1)[-1] for name in wrappers}
    short = set(config.targets) == set(ends.values()) and not config.exclude
    named = ends if short else {name: name for name in wrappers}
    return {
        "peft_type": "IA3", "feedforward_modules": sorted({named[n] for n, m in wrappers.items() if m.inner}),
        "fan_in_fan_out": False, "init_ia3_weights": True,
        **({} if short else {"target_modules": sorted(wrappers)}),
    }  # fmt: skip


def from_peft(data: Mapping[str, Any], targets: tuple[str, ...]) -> Config | None:
    """The config of an adapter that peft wrote, None when of another type; what we lack is refused."""
    if data.get("peft_type") != "IA3":
        return None
    _format.refuse_features(data, {"feedforward_modules", "init_ia3_weights", "exclude_modules"})
    inner, exclude = (_format.names_in(data, key) for key in ("feedforward_modules", "exclude_modules"))
    return Config(targets=targets, feedforward=inner, exclude=exclude)
