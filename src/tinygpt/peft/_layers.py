"""The layers that an adapter may stand on: which there are, how targets name them, their shapes and weights.

Three kinds: a linear layer with its matrix (out, in), an embedding (V, D), and the stacked matrices (E, out,
in) of one projection of a mixture's experts. The first two may be quantized in any of MLX's modes. An
adapter's wrapper stands for the layer that it wraps, so wrappers may stand on wrappers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError, UnsupportedError, nearest
from tinygpt.model.mlp.moe import Experts
from tinygpt.model.quantized import dense as unpacked
from tinygpt.model.quantized import is_router

LINEAR, EMBEDDING, EXPERTS = "linear layer", "embedding", "stack of experts"
ALL, AUTO = "all-linear", "auto"
# What is adapted where nobody says: queries and values, as in the LoRA paper's section 7.1, by the names that
# model families give them; the first line whose names are all there.
USUAL = (
    ("q_proj", "v_proj"), ("qkv_proj",), ("query_key_value",), ("c_attn",), ("Wqkv",), ("wq", "wv"),
    ("q_b_proj", "kv_b_proj"), ("in_proj",),
)  # fmt: skip
PATTERN = re.compile(r"[^\w.\-]")  # a name has none of these: a target with one is a regular expression


class Stack(nn.Module):
    """The matrices (E, out, in) of one projection of a mixture's experts, as a layer of its own."""

    def __init__(self, weight: mx.array) -> None:
        super().__init__()
        self.weight = weight
        self.freeze()  # it comes into a model that is frozen already

    def through(self, x: mx.array, product: Callable[[mx.array, mx.array], mx.array]) -> mx.array:
        """Each row of x by its own expert's matrix; `product` knows which that is."""
        return product(x, self.weight)


def innermost(layer: Any) -> Any:
    """The layer below all wrappers."""
    while "base_layer" in layer:
        layer = layer.base_layer
    return layer


def quantized(layer: Any) -> bool:
    """Whether the layer below all wrappers holds packed weights."""
    return isinstance(innermost(layer), nn.QuantizedLinear | nn.QuantizedEmbedding)


def kind(layer: Any) -> str:
    """LINEAR, EMBEDDING, EXPERTS, or "" for another layer."""
    found = innermost(layer)
    if isinstance(found, nn.Linear | nn.QuantizedLinear):
        return LINEAR
    if isinstance(found, nn.Embedding | nn.QuantizedEmbedding):
        return EMBEDDING
    return EXPERTS if isinstance(found, Stack) else ""


def shape(layer: Any) -> tuple[int, int]:
    """(out, in) features of a layer, packed or not; an embedding reads one of V tokens and writes D values.
    Experts have one shape each."""
    found = innermost(layer)
    *_, rows, columns = found.weight.shape
    if quantized(found):  # 32 bits of a word hold 32 / bits values in every mode
        columns = columns * 32 // found.bits
    return (columns, rows) if kind(found) == EMBEDDING else (rows, columns)


def dense(layer: Any) -> mx.array:
    """What a layer computes with, unpacked and in float32: (out, in), (V, D) or (E, out, in)."""
    if "base_layer" in layer:
        return fused_weight(layer)
    return unpacked(layer) if quantized(layer) else layer.weight.astype(mx.float32)


def fused_weight(wrapper: Any) -> mx.array:
    """The matrix of a wrapped layer with the adapter in it, float32: the wrapper's own `fused_weight()`, or
    the base's and its `delta()`."""
    if hasattr(wrapper, "fused_weight"):
        return wrapper.fused_weight()
    return dense(wrapper.base_layer) + wrapper.delta()


def bias(layer: Any) -> mx.array | None:
    """The bias that a layer adds, with what adapters make of it; None where there is none."""
    if hasattr(layer, "fused_bias"):
        return layer.fused_bias()
    return bias(layer.base_layer) if "base_layer" in layer else layer.get("bias")


def input_alone(model: nn.Module, wrapper: Any) -> bool:
    """Whether a wrapper changes what an embedding reads, and not the output matrix that it is too."""
    if kind(wrapper) != EMBEDDING or getattr(wrapper, "tied", True):
        return False
    if (output := getattr(model, "output", None)) is not None:
        return output.module is wrapper
    # mlx_lm's models do not name their output matrix: where no other has a row a token, it is this one.
    n_tokens = shape(wrapper)[1]
    return not any(kind(each) == LINEAR and shape(each)[0] == n_tokens for each in layers(model).values())


def adapters(model: nn.Module) -> dict[str, nn.Module]:
    """The wrappers in a model, by the dotted name of the layer they stand for; inner ones by `base_layer`."""
    return {n: m for n, m in sorted(model.named_modules()) if "base_layer" in m}


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every layer that an adapter may stand on, by its dotted name; a wrapped one is its wrapper."""
    found: dict[str, nn.Module] = {}
    taken = tuple(f"{name}." for name in adapters(model))
    for name, module in sorted(model.named_modules()):
        if name.startswith(taken):
            continue
        if kind(module):
            found[name] = module
        elif isinstance(module, Experts):
            found |= {f"{name}.{k}": Stack(v) for k, v in module.items() if isinstance(v, mx.array)}
    return found


def put(model: nn.Module, new: Mapping[str, nn.Module]) -> None:
    """Put layers in their places; what stands for an array of experts' matrices becomes that array again."""
    for name, layer in new.items():
        *way, last = name.split(".")
        at: Any = model
        for step in way:
            at = at[int(step)] if isinstance(at, list) else at[step]
        if isinstance(at, list):
            at[int(last)] = layer
        elif isinstance(layer, Stack) and not isinstance(at.get(last), Stack):
            setattr(at, last, layer.weight)
            at.freeze(keys=[last], recurse=False)
        else:
            # An array that was frozen is remembered by its name, which would hide the wrapper's tensors.
            at.unfreeze(keys=[last], recurse=False)
            setattr(at, last, layer)


def targets_of(model: nn.Module, targets: Iterable[str]) -> tuple[str, ...]:
    """The targets, with what `auto` means for this model in its place."""
    ends = {name.rsplit(".", 1)[-1] for name, layer in layers(model).items() if kind(layer) == LINEAR}
    auto = next((names for names in USUAL if ends.issuperset(names)), (ALL,))
    return tuple(name for target in targets for name in (auto if target == AUTO else (target,)))


def matching(target: str, names: Iterable[str]) -> list[str]:
    """The names that a target means: those it ends, or, where it is a regular expression, fits as a whole."""
    if not PATTERN.search(target):
        return [name for name in names if f".{name}".endswith(f".{target}")]
    try:
        pattern = re.compile(target)
    except re.error as error:
        raise ConfigError(
            f"the target '{target}' is no regular expression: {error}",
            hint="a target is the ending of a name, or a regular expression over whole names",
        ) from error
    return [name for name in names if pattern.fullmatch(name)]


def chosen(
    model: nn.Module,
    targets: Iterable[str],
    exclude: Iterable[str] = (),
    on: Sequence[str] = (LINEAR, EMBEDDING, EXPERTS),
) -> dict[str, nn.Module]:
    """The layers that the targets name; a target that fits none is refused with the nearest names.

    `on`: the kinds of layers that the technique works on."""
    found = layers(model)
    # Routers are as small as there are experts, less than usual ranks: they learn where they are named.
    inner = [n for n, m in found.items() if kind(m) == LINEAR and ".layers." in f".{n}" and not is_router(n)]
    ends = sorted({n.rsplit(".", 1)[-1] for n in found})
    names: set[str] = set()
    for target in targets_of(model, targets):
        fits = inner if target == ALL else matching(target, found)
        if not fits:
            raise ConfigError(
                f"no matrix of the model is called '{target}'.{nearest(target, ends)}",
                hint=f"targets: {', '.join([*ends, ALL, AUTO])}",
            )
        names.update(fits)
    for target in exclude:
        out = matching(target, found)
        if not out:
            raise ConfigError(
                f"no matrix of the model is called '{target}', so it cannot be excluded."
                f"{nearest(target, ends)}",
                hint=f"names end in: {', '.join(ends)}",
            )
        names.difference_update(out)
    if not names:
        raise ConfigError("every target is excluded, so nothing would learn", hint="exclude less")
    for name in sorted(names):
        if kind(found[name]) not in on:
            raise UnsupportedError(
                f"{name} is a matrix of kind '{kind(found[name])}', and this adapter works on: "
                f"{', '.join(on)}",
                hint="choose other --targets, or another --adapter",
            )
    return {name: found[name] for name in sorted(names)}
