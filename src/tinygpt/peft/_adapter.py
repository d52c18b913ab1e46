"""Seams of every adapter: wrap chosen layers, freeze the rest, save and load in PEFT's format, fuse, unfuse.

A technique file offers `wrap(layer, config, key) -> module`: a module with the layer as its `base_layer`.
Everything else in it is the adapter: its tensors are saved under PEFT's names, and learn where the wrapper
does not freeze them. The wrapper has `delta()`, what it adds to the base's matrix, or, where it does more
than add, `fused_weight()` and `fused_bias()`; on an embedding it has `as_linear`, on experts `through`
(_layers.Stack). A technique may also have

- `ON`: the kinds of layers that it works on (_layers.py), else linear layers alone;
- `check(config, layers)`: refuse to train what makes no sense;
- `shared(config, layers, seed) -> {name in the file: array}`: drawn once, handed to every `wrap` as a fourth
  argument, saved once, and filled in place where an adapter is read;
- `empty(layer, config)`: what `wrap` gives, to be filled from a file, so without drawing or decomposing;
- `at(config, name)`: the config of one layer; `compact` and `expand`: what a finished adapter's file holds;
- `to_peft(config, wrappers)` and `from_peft(data, targets)`: how its config reads in adapter_config.json.

and a wrapper `stored() -> {name: array}` with `restore(tensors)` where the file holds something else than
its own tensors. An adapter directory is sealed as a model is (model/checkpoint.py), and
`peft.PeftModel.from_pretrained(base, directory)` opens it as it lies when peft has the technique and the base
is Llama-shaped; a GPT-2-shaped base has its q, k and v in one matrix elsewhere, so its adapters open in
tinygpt only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx.utils import tree_flatten, tree_unflatten

from tinygpt.core import files
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick, to_dict
from tinygpt.core.errors import CheckpointError, ConfigError, TinyGPTError, UnsupportedError
from tinygpt.core.family import Family
from tinygpt.model import checkpoint
from tinygpt.model.seeds import key_of
from tinygpt.peft import _format, _joined, _layers
from tinygpt.peft._layers import adapters, chosen, put

PEFT = Family("tinygpt.peft", verb="wrap")
PREFIX = _format.PREFIX
CARRIES = "fuse it first, or start from the base model"


@dataclass(frozen=True)
class Loaded:
    """An adapter read from disk, which the model carries now. `manifest` is empty for one that peft wrote."""

    pick: Pick
    manifest: dict[str, Any]
    path: Path
    notes: tuple[str, ...] = ()

    def state(self) -> dict[str, Any]:
        """The run state of a resumable adapter checkpoint."""
        return checkpoint.read_json(self.path / "state.json")

    def optimizer(self) -> dict[str, mx.array]:
        """The updater's tensors of a resumable adapter checkpoint."""
        return checkpoint.read_tensors(self.path, "optimizer")


def tensors(model: nn.Module) -> dict[str, mx.array]:
    """The adapter's tensors by their names in the model, the base's left out."""
    return {
        f"{name}.{inner}": value
        for name, module in adapters(model).items()
        for inner, value in _own(module).items()
    }


def _own(wrapper: nn.Module) -> dict[str, mx.array]:
    named: Any = tree_flatten(wrapper.parameters())
    return {n: v for n, v in named if not n.startswith("base_layer.")}


def stored(wrappers: Mapping[str, nn.Module]) -> dict[str, mx.array]:
    """What a file holds of these wrappers, under PEFT's names."""
    found: dict[str, mx.array] = {}
    for name, each in wrappers.items():
        module: Any = each
        own = module.stored() if hasattr(module, "stored") else _own(module)
        found |= {f"{PREFIX}{name}.{inner}": value for inner, value in own.items()}
        found |= module.get("_shared", {})
    return found


def picked(model: nn.Module, pick: Pick) -> dict[str, nn.Module]:
    """The layers that an adapter's settings name, by dotted name."""
    options, on = pick.options, getattr(PEFT.load(pick.name), "ON", (_layers.LINEAR,))
    return chosen(model, options.targets, getattr(options, "exclude", ()), on)


def attach(model: nn.Module, pick: Pick, *, seed: int = 0) -> list[str]:
    """Freeze the model, wrap the chosen layers, return their names. Each key derives from (seed, name)."""
    if adapters(model):
        raise ConfigError("the model carries an adapter already", hint=CARRIES)
    pick = pick.resolve(PEFT, "peft")
    wrapped = wrap(model, pick, picked(model, pick), seed)
    return list(wrapped)


def wrap(
    model: nn.Module, pick: Pick, layers: Mapping[str, nn.Module], seed: int = 0, *, empty: bool = False
) -> dict[str, nn.Module]:
    """Freeze the model and put wrappers in the place of these layers; `empty`: to be filled from a file."""
    technique = PEFT.load(pick.name)
    model.freeze()
    common: list[dict[str, mx.array]] = []
    if hasattr(technique, "shared"):
        common.append(technique.shared(pick.options, layers, seed))
    wrapped: dict[str, nn.Module] = {}
    for name, layer in layers.items():
        options = technique.at(pick.options, name) if hasattr(technique, "at") else pick.options
        if empty and hasattr(technique, "empty"):
            wrapped[name] = technique.empty(layer, options, *common)
        else:
            wrapped[name] = technique.wrap(layer, options, key_of(seed, "peft", name), *common)
        if common:
            wrapped[name]["_shared"] = common[0]
    put(model, wrapped)
    mx.eval(
        [dict(module) for module in wrapped.values()]
    )  # with what does not learn: steps are compiled on it
    return wrapped


def fuse(model: nn.Module, *, dequantize: bool = False) -> dict[str, nn.Module]:
    """Put each change into its base matrix, in the base's dtype; returns the wrappers for `unfuse`.

    A packed matrix is refused, or, with `dequantize`, becomes a dense one in the dtype of its scales."""
    out = {n: m for n, m in adapters(model).items() if not n.endswith(".base_layer")}
    for name, module in out.items():
        if _layers.quantized(module) and not dequantize:
            raise UnsupportedError(
                f"{name} is quantized, a change cannot be added to it", hint="dequantize the base first"
            )
        if _layers.input_alone(model, module):
            raise UnsupportedError(
                f"{name} is also the output matrix, and the adapter changes only what it reads",
                hint="use the adapter unfused; --set adapter.tied=true adapts both",
            )
    fused = {name: _fused(module) for name, module in out.items()}
    put(model, fused)
    mx.eval(model.parameters())
    return out


def _fused(wrapper: nn.Module) -> nn.Module:
    base = _layers.innermost(wrapper)
    dtype = base.scales.dtype if _layers.quantized(base) else base.weight.dtype
    if dtype == mx.uint8:  # scales of the fp4 and fp8 modes are bytes
        dtype = mx.float32
    weight = _layers.fused_weight(wrapper).astype(dtype)
    if _layers.kind(base) == _layers.EXPERTS:
        return _layers.Stack(weight)
    added = _layers.bias(wrapper)
    new = nn.Embedding(1, 1) if _layers.kind(base) == _layers.EMBEDDING else nn.Linear(1, 1, bias=False)
    new.weight = weight
    if added is not None:
        new.bias = added
    new.freeze()
    return new


def unfuse(model: nn.Module, out: Mapping[str, nn.Module]) -> None:
    """Undo `fuse`: the base's matrices come back bit for bit, with the adapter beside them."""
    put(model, out)


def save_adapter(
    path: Path,
    model: nn.Module,
    pick: Pick,
    *,
    base: Path,
    write_tokenizer: Callable[[Path], None] | None = None,
    **kept: Any,
) -> Path:
    """Write the adapter a model carries, in one step. `base` is the directory of the model it grew on, `kept`
    what `checkpoint.written` takes.

    The manifest names it as seen from the adapter's own folder, so it is found from anywhere, and still when
    both are moved together; adapter_config.json as it was given."""
    wrappers = adapters(model)
    if not wrappers:
        raise ConfigError("the model carries no adapter to save", hint="attach one first")
    pick = pick.resolve(PEFT, "peft")
    way = os.path.relpath(os.path.realpath(base), os.path.realpath(path))
    identity = {"path": Path(way).as_posix(), "hash": checkpoint.identity(base), **_format.hub_id(base)}
    config = {
        "base_model_name_or_path": identity.get("id", str(base)), "revision": identity.get("revision"),
        "task_type": "CAUSAL_LM", "target_modules": _ends(model, wrappers), "inference_mode": True,
        **PEFT.load(pick.name).to_peft(pick.options, wrappers),
    }  # fmt: skip
    found = stored(wrappers)
    if kept.get("optimizer") is None and (compact := getattr(PEFT.load(pick.name), "compact", None)):
        found, more = compact(found)
        config |= more
    with checkpoint.written(path, kind="adapter", base=identity, peft=to_dict(pick), **kept) as folder:
        files.write_json(folder / "adapter_config.json", config)
        checkpoint.write_tensors(folder, "adapter_model", found)
        if write_tokenizer is not None:
            write_tokenizer(folder)
    return Path(path)


def _ends(model: nn.Module, wrappers: Mapping[str, nn.Module]) -> list[str]:
    """The shortest names that mean these layers to peft: last parts, or all where others share them."""
    ends = {name.rsplit(".", 1)[-1] for name in wrappers}
    meant = {name for end in ends for name in _layers.matching(end, _layers.layers(model))}
    return sorted(ends if meant == set(wrappers) else wrappers)


def load_adapter(
    path: Path,
    model: nn.Module,
    *,
    base: Path | None = None,
    hashes: bool = True,
    force: bool = False,
    beside: bool = False,
) -> Loaded:
    """Read an adapter, ours or peft's, onto a base model, and leave only the adapter learning.

    With `base`, the directory the model was read from, one of ours trained on other weights is refused,
    unless `force`; one whose matrices do not fit the model is always refused. `beside`: the model may carry
    adapters already, and this one is wrapped around them.
    """
    path = Path(path)
    files.recover(path)
    if adapters(model) and not beside:
        raise ConfigError("the model carries an adapter already", hint=CARRIES)
    if not path.is_dir():
        raise CheckpointError(f"there is no adapter at {path}", hint="give the path of an adapter directory")
    manifest: dict[str, Any] = {}
    if (path / checkpoint.MANIFEST).exists() or not (path / "adapter_config.json").exists():
        manifest = checkpoint.validate(path, hashes=hashes)
        if manifest["kind"] != "adapter":
            raise CheckpointError(
                f"{path} is of kind {manifest['kind']}, not an adapter", hint="give an adapter's directory"
            )
    trained_on = _base(path, manifest)
    known = trained_on["hash"] and not force
    if base is not None and known and trained_on["hash"] != checkpoint.identity(base):
        was = trained_on.get("id") or os.path.realpath(path / trained_on["path"])
        raise CheckpointError(
            f"the adapter {path} was trained on other weights than those in {base}",
            hint=f"its base was {was}; --force opens it all the same",
        )
    pick = _read_config(path, manifest)
    found = checkpoint.read_tensors(path, "adapter_model")
    if expand := getattr(PEFT.load(pick.name), "expand", None):
        found = expand(found, checkpoint.read_json(path / "adapter_config.json"))
    if not manifest:
        pick, found = _joined.as_ours(pick, found, model, PREFIX, str(path))
        found = _format.without_copies(found, model, PREFIX, str(path))
    modules = _fitting(path, model, pick, found)
    try:
        wrapped = wrap(model, pick, modules, empty=bool(manifest))
        fill(model, found, str(path), wrapped, ours=bool(manifest))
    except TinyGPTError as error:
        put(model, modules)  # a refused adapter leaves the model as it was
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} does not fit this model: {error.message}", hint=error.hint) from error
    return Loaded(pick=pick, manifest=manifest, path=path)


def _base(path: Path, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Path and hash of the base that a manifest names, empty where it does not; its id and revision on the
    hub where it came from there."""
    found = manifest.get("base") or {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise CheckpointError(f"{path / checkpoint.MANIFEST} names no base model", hint=checkpoint.AGAIN)
    return {"path": "", "hash": "", **found}


def base_of(path: Path) -> Path | None:
    """The model that the adapter at `path` was trained on; None when no adapter is there."""
    manifest, config = path / checkpoint.MANIFEST, path / "adapter_config.json"
    ours = checkpoint.read_json(manifest) if manifest.exists() else {}
    if ours.get("kind") != "adapter" and (ours or not config.exists()):
        return None
    trained_on = _base(path, ours)
    data = checkpoint.read_json(config)  # mlx-lm has the base as "model"
    as_given = str(data.get("base_model_name_or_path") or data.get("model") or "")
    # As the command that made it (or peft) found it from where it was started, or as seen from the adapter.
    named = [Path(as_given)] if as_given else []
    named += [Path(os.path.realpath(path / trained_on["path"]))] if trained_on["path"] else []
    found = {os.path.realpath(p): p for p in reversed(named) if p.is_dir()}
    if not found:
        raise CheckpointError(
            f"{path} is an adapter, and its base model is not {f'at {named[-1]}' if named else 'named'}",
            hint="put it back there, or give the model, and this as its --adapter",
        )
    fits = (p for p in found.values() if len(found) == 1 or checkpoint.identity(p) == trained_on["hash"])
    return next(fits, named[-1])


def _read_config(path: Path, manifest: Mapping[str, Any]) -> Pick:
    if manifest:
        own = dict(manifest.get("peft") or {})
        try:
            return Pick(str(own.pop("name", "")), own).resolve(PEFT, "peft")
        except ConfigError as error:
            raise CheckpointError(
                f"{path / checkpoint.MANIFEST}: {error.message}", hint=error.hint
            ) from error
    data = checkpoint.read_json(path / "adapter_config.json")
    targets = _format.names_in(data, "target_modules", str(path / "adapter_config.json"))
    refused: Exception | None = None
    for name in PEFT.names():
        try:
            config = PEFT.load(name).from_peft(data, targets)
        except (CheckpointError, ConfigError) as error:
            refused = CheckpointError(f"{path / 'adapter_config.json'}: {error.message}", hint=error.hint)
            continue
        if config is not None:
            return Pick(name, config)
    raise refused or CheckpointError(
        f"{path / 'adapter_config.json'}: peft_type '{data.get('peft_type')}' is not one this build opens",
        hint=_format.KNOWN,
    )


def _fitting(path: Path, model: nn.Module, pick: Pick, found: Mapping[str, mx.array]) -> dict[str, nn.Module]:
    """The layers that the config's targets name, and those the file's tensors belong to."""
    try:
        wanted = picked(model, pick)
    except (ConfigError, UnsupportedError) as error:
        raise CheckpointError(f"{path} does not fit this model: {error.message}", hint=error.hint) from error
    named = {name.removeprefix(PREFIX) for name in found}
    # A layer that is named but has no tensors, or the other way round, is reported by fill().
    known = _layers.layers(model)
    return {n: m for n, m in known.items() if n in wanted or any(t.startswith(f"{n}.") for t in named)}


def fill(
    model: nn.Module,
    found: Mapping[str, mx.array],
    where: str,
    wrappers: Mapping[str, nn.Module] | None = None,
    *,
    ours: bool = True,
) -> None:
    """Put an adapter's tensors in place; one missing, extra, misshapen or not finite is refused by name.

    wrappers: where to; not given: all of the model's. `ours`: the file holds what `stored` gives; peft's
    holds the wrappers' own tensors."""
    wrappers = adapters(model) if wrappers is None else wrappers
    if ours:
        wanted = {name: value.shape for name, value in stored(wrappers).items()}
    else:
        wanted = {f"{PREFIX}{n}.{i}": v.shape for n, m in wrappers.items() for i, v in _own(m).items()}
        wanted |= {n: v.shape for m in wrappers.values() for n, v in m.get("_shared", {}).items()}
    for odd, sentence in (
        (sorted(set(wanted) - set(found)), "lacks the tensor"),
        (sorted(set(found) - set(wanted)), "has a tensor this model has no place for:"),
    ):
        if odd:
            more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
            raise CheckpointError(
                f"{where} {sentence} {odd[0]}{more}", hint="was it trained on another base model?"
            )
    for name, size in wanted.items():
        if found[name].shape != size:
            raise CheckpointError(
                f"{where}: {name} has shape {found[name].shape}, this base and config need {size}",
                hint="it was trained on a base of other sizes",
            )
    checkpoint.refuse_nan(found, where)
    for name, each in wrappers.items():
        module: Any = each
        start = f"{PREFIX}{name}."
        own = {n.removeprefix(start): value for n, value in found.items() if n.startswith(start)}
        if ours and hasattr(module, "restore"):
            module.restore(own)
        else:
            module.update(tree_unflatten(list(own.items())))
        common = module.get("_shared", {})
        common.update({name: found[name] for name in common})
    mx.eval([dict(module) for module in wrappers.values()])
