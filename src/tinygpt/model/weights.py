"""What a model's tensors become as they are read: checked, cast and packed, one after the other.

Tensors come lazy from their files, so nothing is in memory before it is used, and what is cast or packed
here is dropped before the next one is read: a model never lies in memory twice, nor dense beside packed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx.utils import tree_flatten, tree_unflatten

from tinygpt.core import backend
from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import CheckpointError, ConfigError, nearest
from tinygpt.model import quantized
from tinygpt.model.quantized import Packing

UNPAIRED = "its config.json and its weights do not belong together: copy or save both again"
Tensors = dict[str, mx.array]


def wide(dtype: str) -> mx.Dtype | None:
    """What floating-point tensors are cast to; None: nothing. See `checkpoint.load`."""
    if dtype == "auto":
        return mx.float32 if backend.on_cpu() else None
    return None if dtype == "stored" else getattr(mx, dtype)


def place(
    model: nn.Module,
    tensors: Tensors,
    usual: Packing | None,
    single: Mapping[str, Packing | None],
    packing: Packing | None,
    *,
    dtype: mx.Dtype | None,
    where: str,
) -> None:
    """Give a model packed matrices where the tensors have them, or pack the dense ones as `packing` says.

    `usual` and `single` are what config.json says of its own. The lazy `tensors` are replaced one by one."""
    computed = dtype or stored(tensors)
    own = _packed(model, tensors, usual, single, where)
    quantized.place(model, own, computed)
    _drop_empty_biases(model, tensors, own)
    if packing is not None and not own:
        pack(model, tensors, packing, computed, where)
    elif packing is not None:
        refuse_other(own, packing, where)


def refuse_other(own: Mapping[str, Packing], packing: Packing, where: str) -> None:
    """A base that is packed keeps its form: ConfigError where another one is asked for."""
    for name, one in own.items():
        if one != packing:
            raise ConfigError(
                f"{where} is quantized already, {name} in {one}, and {packing} is asked for",
                hint="leave --qlora and its settings out, or give the dense base",
            )


def stored(tensors: Tensors) -> mx.Dtype:
    """The floating-point dtype that most of the tensors have."""
    found = [t.dtype for t in tensors.values() if mx.issubdtype(t.dtype, mx.floating)]
    return max(found, key=found.count, default=mx.float32)


def _packed(
    model: nn.Module,
    tensors: Tensors,
    usual: Packing | None,
    single: Mapping[str, Packing | None],
    where: str,
) -> dict[str, Packing]:
    """How each matrix is packed that has scales beside it."""
    modules, piled, found = dict(model.named_modules()), quantized.stacks(model), dict[str, Packing]()
    renamed = bool(set(single) - set(modules) - set(piled))  # some are told under another tool's names
    for tensor in sorted(tensors):
        name, _, part = tensor.rpartition(".")
        if part != "scales":
            continue
        how = single.get(name) or usual
        if how is None:
            raise CheckpointError(
                f"{where}: {name} is packed, and config.json does not say how", hint=UNPAIRED
            )
        if name not in piled and not (name in modules and quantized.packable(modules[name])):
            raise CheckpointError(
                f"{where}: {name} is packed, and this model has no packed form of it",
                hint="open the dense model, or pack it with --qlora",
            )
        if renamed and name not in single:
            n_in = (piled[name] if name in piled else modules[name].weight).shape[-1]
            how = quantized.as_lies(tensors, name, n_in) or how
        found[name] = how
    return found


def _drop_empty_biases(model: nn.Module, tensors: Tensors, own: Mapping[str, Packing]) -> None:
    """Some GPTQ files have biases of zeros where the model has none."""
    wanted = {name for name, _ in tree_flatten(model.parameters())}
    for name in own:
        bias = f"{name}.bias"
        if bias in tensors and bias not in wanted and not tensors[bias].any().item():
            del tensors[bias]


def pack(model: nn.Module, tensors: Tensors, how: Packing, dtype: mx.Dtype, where: str) -> None:
    """Pack a model's matrices; what they become takes the place of the lazy dense ones."""
    chosen, odd = quantized.choose(model, how)
    if odd and not chosen:
        raise ConfigError(
            f"{where} cannot be packed: no matrix has rows that divide into groups of {how.group_size}",
            hint=f"choose smaller groups, or nvfp4, whose groups are of 16: {odd[0]} is one of them",
        )
    shapes = {name: value.shape for name, value in tree_flatten(model.parameters())}
    quantized.place(model, chosen, dtype)
    for name in chosen:
        whole = name if name in shapes else f"{name}.weight"
        if whole not in tensors or tensors[whole].shape != shapes[whole]:
            continue  # fill() says what is wrong with it
        tensor = tensors.pop(whole)
        refuse_nan({whole: tensor}, where)
        made = dict(zip(quantized.PARTS, how.pack(tensor)))
        mx.eval(made)
        del tensor
        tensors |= {f"{name}.{part}": value for part, value in made.items()}


def fill(
    module: nn.Module, tensors: Mapping[str, mx.array], where: str, dtype: mx.Dtype | None = None
) -> None:
    """Put tensors into a module; one that is missing, extra, misshapen or not finite is refused by name.

    With `dtype` floating-point ones are cast; `tensors` then is a dict, which is emptied, so that no second
    copy of what is in it lives on."""
    flat: Any = tree_flatten(module.parameters())
    places: Tensors = dict(flat)
    wanted = {name: value.shape for name, value in places.items()}
    extra = sorted(set(tensors) - set(wanted))
    missing = sorted(set(wanted) - set(tensors))
    if missing:
        raise CheckpointError(
            f"{where} lacks the tensor {missing[0]}{_more(missing)}.{nearest(missing[0], extra)}",
            hint=UNPAIRED,
        )
    if extra:
        raise CheckpointError(
            f"{where} has the tensor {extra[0]}{_more(extra)}, which this model has no place for",
            hint=UNPAIRED,
        )
    for name, shape in wanted.items():
        if tensors[name].shape != shape:
            raise CheckpointError(
                f"{where}: {name} has shape {tensors[name].shape}, the config says {shape}", hint=UNPAIRED
            )
        if _floating(places[name]) and not _floating(tensors[name]):  # MLX reads 8-bit floats as bytes
            raise CheckpointError(
                f"{where}: {name} holds numbers of the type {str(tensors[name].dtype).rpartition('.')[2]}, "
                "and config.json does not say what they stand for",
                hint="give weights in float32, float16 or bfloat16",
            )
    if dtype is not None:
        assert isinstance(tensors, dict)
        tensors = cast(tensors, dtype, keep=quantized.parts(list(quantized.packed(module))))
    refuse_nan(tensors, where)
    module.update(tree_unflatten(list(tensors.items())))
    mx.eval(module.parameters())


def cast(tensors: Tensors, dtype: mx.Dtype, keep: set[str]) -> Tensors:
    """Floating-point tensors in another dtype but for those to `keep`: each is read, cast and dropped before
    the next. Empties `tensors`."""
    done: Tensors = {}
    while tensors:
        name, tensor = tensors.popitem()
        if mx.issubdtype(tensor.dtype, mx.floating) and tensor.dtype != dtype and name not in keep:
            tensor = tensor.astype(dtype)
            mx.eval(tensor)
        done[name] = tensor
    return done


def refuse_nan(tensors: Mapping[str, mx.array], where: str) -> None:
    """Refuse tensors with NaN or infinity, which answer nothing.

    A sum costs a third of the hashes: where it is finite all values are; where not, each is looked at."""
    for name, tensor in tensors.items():  # one after the other: what a lazy one is made of is dropped again
        if _floating(tensor) and not mx.isfinite(tensor.sum()).item() and not _finite(tensor):
            raise CheckpointError(
                f"{where}: {name} holds NaN or infinity: the run that made it diverged",
                hint="use an older checkpoint, or train again with a smaller --lr",
            )


def _finite(tensor: mx.array) -> bool:
    return bool(mx.isfinite(tensor).all().item())


def _floating(tensor: mx.array) -> bool:
    return mx.issubdtype(tensor.dtype, mx.floating)


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
