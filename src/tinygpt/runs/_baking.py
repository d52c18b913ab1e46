"""Adapters put into the matrices they stand on, and how much of them is lost by rounding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError, UnsupportedError
from tinygpt.model import quantized
from tinygpt.model.quantized import Packing
from tinygpt.peft import _layers


@dataclass(frozen=True)
class Baked:
    """One matrix with its adapter in it. `effect` is |W' - W|, `missed` |what is stored - W'|, both roots of
    sums of squares: their quotient is the share of the adapter that rounding takes."""

    name: str
    form: str
    effect: float
    missed: float

    @property
    def error(self) -> float:
        return share(self.missed, self.effect)


def share(missed: float, effect: float) -> float:
    """missed / effect; where there is no effect nothing of it can be missed."""
    return missed / effect if effect else 0.0


def total(found: list[Baked]) -> float:
    """The share of the whole adapter that is lost."""
    return share(math.hypot(*(b.missed for b in found)), math.hypot(*(b.effect for b in found)))


def bake(
    model: nn.Module, *, dense: mx.Dtype | None, bits: int, dequantize: bool, usual: mx.Dtype
) -> Iterator[Baked]:
    """Replace each wrapper of a model by one matrix, one after the other.

    dense: the dtype of those that are not packed; None: that of the base's, or `usual` where it was packed. A
    packed one is packed again in its own form, or with `bits`, or with `dequantize` left dense."""
    wrappers = wrapped(model)
    for name, wrapper in wrappers.items():
        if _layers.input_alone(model, wrapper):
            raise UnsupportedError(
                f"{name} is also the output matrix, and the adapter changes only what it reads",
                hint="it can be used beside its base, not baked into it",
            )
    for name, wrapper in wrappers.items():
        base: Any = _layers.innermost(wrapper)
        wanted = _layers.fused_weight(wrapper)
        effect = _norm(wanted - _layers.dense(base))
        if effect == 0 and _layers.bias(wrapper) is base.get("bias"):
            _layers.put(model, {name: base})  # what it stands on stays as it is, bit for bit
            yield Baked(name, "unchanged", 0.0, 0.0)
            continue
        if _layers.quantized(base) and not dequantize:
            how = replace(Packing.of(base), bits=bits) if bits else Packing.of(base)
            new, form = _packed(base, wanted, how), str(how)
            stored = quantized.dense(new)
        else:
            new, form = _dense(
                base, wanted, dense or (usual if _layers.quantized(base) else base.weight.dtype)
            )
            stored = (new if isinstance(new, mx.array) else new.weight).astype(mx.float32)
        missed = _norm(stored - wanted)
        if isinstance(new, nn.Module):
            if (bias := _layers.bias(wrapper)) is not None:
                new.bias = bias
            new.freeze()
        _layers.put(model, {name: new if isinstance(new, nn.Module) else _layers.Stack(new)})
        yield Baked(name, form, effect, missed)


def unpack(model: nn.Module, dtype: mx.Dtype) -> None:
    """Put dense matrices, in this dtype, where packed ones are."""
    stacks, new = dict[str, nn.Module](), dict[str, nn.Module]()
    for name, module in quantized.packed(model).items():
        weight = quantized.dense(module).astype(dtype)
        if isinstance(module, quantized.PackedStack):
            stacks[name] = _layers.Stack(weight)
            continue
        new[name], _ = _dense(module, weight, dtype)
        if "bias" in module:
            new[name].bias = module.bias
        new[name].freeze()
    _layers.put(model, new | stacks)
    mx.eval(model.parameters())


def _norm(x: mx.array) -> float:
    return mx.sqrt((x * x).sum()).item()  # type: ignore[return-value]


def _packed(base: Any, wanted: mx.array, how: Packing) -> nn.Module:
    """A packed module of the base's kind that stands for another matrix."""
    rows, columns = wanted.shape
    if isinstance(base, nn.QuantizedEmbedding):
        new = quantized.PackedEmbedding(rows, columns, **how.table())
        new.dtype = getattr(base, "dtype", mx.float32)
    else:
        new = quantized.PackedLinear(columns, rows, False, **how.table())
    scales = base.scales.dtype
    parts = dict(zip(quantized.PARTS, how.pack(wanted)))
    kept = {n: v if n == "weight" or v.dtype == mx.uint8 else v.astype(scales) for n, v in parts.items()}
    new.update(kept)
    return new


def _dense(base: Any, wanted: mx.array, dtype: mx.Dtype) -> tuple[Any, str]:
    """(the module, or the array of experts' matrices, and its dtype's name)."""
    weight, form = wanted.astype(dtype), str(dtype).rsplit(".", 1)[-1]
    if _layers.kind(base) == _layers.EXPERTS:
        return weight, form
    new = nn.Embedding(1, 1) if _layers.kind(base) == _layers.EMBEDDING else nn.Linear(1, 1, bias=False)
    new.weight = weight
    return new, form


def refuse_loss(found: list[Baked], most: float, extra_bytes: int) -> None:
    """Refuse to write packed matrices in which the adapter is lost."""
    lost = total(found)
    if lost <= most:
        return
    forms = sorted({b.form for b in found if b.effect})
    coarse = any("affine" in form and not form.startswith("8 ") for form in forms)
    finer = "--bits 8 packs them finer, " if coarse else ""
    raise ConfigError(
        f"packed again ({forms[0]}), the {len(found)} adapted matrices miss {lost:.0%} of what the adapter "
        f"changes: rounding would lose it; at most {most:.0%} is accepted",
        hint=f"--dequantize leaves them dense ({extra_bytes / 1e6:,.0f} MB more), {finer}"
        "--max-error accepts more",
    )


def wrapped(model: nn.Module) -> dict[str, nn.Module]:
    """The outer wrappers of a model."""
    return {n: m for n, m in _layers.adapters(model).items() if not n.endswith(".base_layer")}


def dense_bytes(model: nn.Module) -> int:
    """How many bytes more the adapted matrices would take if they were dense, at two a weight."""
    bases: list[Any] = [_layers.innermost(m) for m in wrapped(model).values()]
    sizes = [math.prod(_layers.shape(b)) * 2 - b.weight.nbytes for b in bases if _layers.quantized(b)]
    return sum(sizes)
