"""Seams of every adapter: wrap chosen Linears, freeze the rest, save and load in PEFT's format, fuse, unfuse.

A technique file offers `wrap(linear, config, key) -> module` with `base_layer` and `delta()`, and says
with `to_peft` and `from_peft` how its config reads in adapter_config.json. Everything in the wrapper but
`base_layer` is the adapter: its tensors learn, and are saved under PEFT's names. An adapter directory is
sealed as a model is (model/checkpoint.py), and `peft.PeftModel.from_pretrained(base, directory)` opens it
as it lies when the base is Llama-shaped; a GPT-2-shaped base has its q, k and v in one matrix elsewhere,
so its adapters open in tinygpt only.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx.utils import tree_flatten, tree_unflatten

from tinygpt.core import files
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick, to_dict
from tinygpt.core.errors import CheckpointError, ConfigError, UnsupportedError, nearest
from tinygpt.core.family import Family
from tinygpt.model import checkpoint
from tinygpt.model.seeds import key_of

PEFT = Family("tinygpt.peft", verb="wrap")
PREFIX = "base_model.model."
ALL = "all-linear"
PLAIN_LORA = "tinygpt opens plain LoRA adapters: rank, alpha and target modules"
# In adapter_config.json, keys that change nothing in what a trained adapter computes.
NEUTRAL = {
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
    "inference_mode", "target_modules", "megatron_core", "qalora_group_size", "runtime_config",
}  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    """An adapter read from disk, which the model carries now. `manifest` is empty for one that peft wrote."""

    pick: Pick
    manifest: dict[str, Any]
    path: Path

    def state(self) -> dict[str, Any]:
        """The run state of a resumable adapter checkpoint."""
        return checkpoint.read_json(self.path / "state.json")

    def optimizer(self) -> dict[str, mx.array]:
        """The updater's tensors of a resumable adapter checkpoint."""
        return checkpoint.read_tensors(self.path, "optimizer")


def shape(linear: nn.Module) -> tuple[int, int]:
    """(out, in) features of a Linear, packed or not."""
    n_out, n_in = linear.weight.shape
    return n_out, n_in * 32 // linear.bits if isinstance(linear, nn.QuantizedLinear) else n_in


def linears(model: nn.Module) -> dict[str, nn.Module]:
    """Every Linear by its dotted name, quantized ones included."""
    return {n: m for n, m in sorted(model.named_modules()) if isinstance(m, nn.Linear | nn.QuantizedLinear)}


def chosen(model: nn.Module, targets: Iterable[str]) -> dict[str, nn.Module]:
    """The Linears whose name ends in a target; a target that fits none is refused with the nearest names."""
    found = linears(model)
    inner = {n: m for n, m in found.items() if ".layers." in f".{n}"}
    result: dict[str, nn.Module] = {}
    for target in targets:
        fits = inner if target == ALL else {n: m for n, m in found.items() if f".{n}".endswith(f".{target}")}
        if not fits:
            ends = sorted({n.rsplit(".", 1)[-1] for n in found})
            raise ConfigError(
                f"no matrix of the model is called '{target}'.{nearest(target, ends)}",
                hint=f"targets: {', '.join([*ends, ALL])}",
            )
        result |= fits
    return dict(sorted(result.items()))


def adapters(model: nn.Module) -> dict[str, nn.Module]:
    """The wrappers in a model, by the dotted name of the Linear they stand for."""
    return {n: m for n, m in sorted(model.named_modules()) if "base_layer" in m}


def tensors(model: nn.Module) -> dict[str, mx.array]:
    """The adapter's tensors by their names in the model, the base's left out."""
    return {
        f"{name}.{inner}": value
        for name, module in adapters(model).items()
        for inner, value in tree_flatten(module.parameters())
        if not inner.startswith("base_layer.")
    }


def attach(model: nn.Module, pick: Pick, *, seed: int = 0) -> list[str]:
    """Freeze the model, wrap the chosen Linears, return their names. Each key derives from (seed, name)."""
    if adapters(model):
        raise ConfigError(
            "the model carries an adapter already", hint="fuse it first, or start from the base model"
        )
    pick = pick.resolve(PEFT, "peft")
    _wrap(model, pick, chosen(model, pick.options.targets), seed)
    mx.eval(tensors(model))
    return list(adapters(model))


def _wrap(model: nn.Module, pick: Pick, modules: Mapping[str, nn.Module], seed: int) -> None:
    wrap = PEFT.load(pick.name).wrap
    model.freeze()
    wrapped = {n: wrap(m, pick.options, key_of(seed, "peft", n)) for n, m in modules.items()}
    _put(model, wrapped)


def _put(model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    model.update_modules(tree_unflatten(list(modules.items())))


def fuse(model: nn.Module) -> dict[str, nn.Module]:
    """Add each change to its base matrix, in the base's dtype; returns the wrappers for `unfuse`."""
    out = adapters(model)
    for name, module in out.items():
        if isinstance(module.base_layer, nn.QuantizedLinear):
            raise UnsupportedError(
                f"{name} is quantized, a change cannot be added to it", hint="dequantize the base first"
            )
    fused = {}
    for name, module in out.items():
        base = module.base_layer
        fused[name] = nn.Linear(*reversed(shape(base)), bias="bias" in base)
        summed = base.weight.astype(mx.float32) + module.delta()
        fused[name].update({**base.parameters(), "weight": summed.astype(base.weight.dtype)})
        fused[name].freeze()
    _put(model, fused)
    mx.eval(model.parameters())
    return out


def unfuse(model: nn.Module, out: Mapping[str, nn.Module]) -> None:
    """Undo `fuse`: the base's matrices come back bit for bit, with the adapter beside them."""
    _put(model, out)


def save_adapter(
    path: Path,
    model: nn.Module,
    pick: Pick,
    *,
    base: Path,
    write_tokenizer: Callable[[Path], None] | None = None,
    state: Mapping[str, Any] | None = None,
    optimizer: Mapping[str, mx.array] | None = None,
    run: Mapping[str, Any] | None = None,
    replace: bool = False,
    **facts: Any,
) -> Path:
    """Write the adapter a model carries, in one step. `base` is the directory of the model it grew on.

    The manifest names it as seen from the adapter's own folder, so it is found from anywhere, and still when
    both are moved together; adapter_config.json as it was given."""
    found = tensors(model)
    if not found:
        raise ConfigError("the model carries no adapter to save", hint="attach one first")
    pick = pick.resolve(PEFT, "peft")
    ends = {name.rsplit(".", 1)[-1] for name in adapters(model)}
    ends = sorted(ends if ALL in pick.options.targets else pick.options.targets)
    way = os.path.relpath(os.path.realpath(base), os.path.realpath(path))
    identity = {"path": Path(way).as_posix(), "hash": checkpoint.identity(base)}
    config = {
        **PEFT.load(pick.name).to_peft(pick.options), "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base), "target_modules": ends, "inference_mode": True,
    }  # fmt: skip
    with files.atomic_directory(Path(path), replace=replace) as folder:
        files.write_json(folder / "adapter_config.json", config)
        checkpoint.write_tensors(folder, "adapter_model", {PREFIX + n: value for n, value in found.items()})
        if write_tokenizer is not None:
            write_tokenizer(folder)
        if optimizer is not None:
            checkpoint.write_tensors(folder, "optimizer", optimizer)
        if state is not None:
            files.write_json(folder / "state.json", state)
        if run is not None:
            files.write_json(folder / "run.json", run)
        checkpoint.seal(folder, kind="adapter", base=identity, peft=to_dict(pick), **facts)
    return Path(path)


def load_adapter(path: Path, model: nn.Module, *, base: Path | None = None, hashes: bool = True) -> Loaded:
    """Read an adapter, ours or peft's, onto a base model, and leave only the adapter learning.

    With `base`, the directory the model was read from, one of ours trained on other weights is refused; one
    whose matrices do not fit the model is always refused.
    """
    path = Path(path)
    files.recover(path)
    if adapters(model):
        raise ConfigError(
            "the model carries an adapter already", hint="fuse it first, or start from the base model"
        )
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
    if base is not None and trained_on["hash"] and trained_on["hash"] != checkpoint.identity(base):
        raise CheckpointError(
            f"the adapter {path} was trained on other weights than those in {base}",
            hint=f"its base was {os.path.realpath(path / trained_on['path'])}",
        )
    pick = _read_config(path, manifest)
    found = checkpoint.read_tensors(path, "adapter_model")
    pick, modules = _fitting(path, model, pick, found)
    _wrap(model, pick, modules, 0)
    try:
        fill(model, found, str(path))
    except CheckpointError:
        _put(model, modules)  # a refused adapter leaves the model as it was
        raise
    return Loaded(pick=pick, manifest=manifest, path=path)


def _base(path: Path, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Path and hash of the base that a manifest names, empty where it does not."""
    found = manifest.get("base") or {}
    if not isinstance(found, dict) or not all(isinstance(found.get(k, ""), str) for k in ("path", "hash")):
        raise CheckpointError(f"{path / checkpoint.MANIFEST} names no base model", hint=checkpoint.AGAIN)
    return {"path": found.get("path", ""), "hash": found.get("hash", "")}


def base_of(path: Path) -> Path | None:
    """The model that the adapter at `path` was trained on; None when no adapter is there."""
    manifest, config = path / checkpoint.MANIFEST, path / "adapter_config.json"
    ours = checkpoint.read_json(manifest) if manifest.exists() else {}
    if ours.get("kind") != "adapter" and (ours or not config.exists()):
        return None
    trained_on = _base(path, ours)
    as_given = str(checkpoint.read_json(config).get("base_model_name_or_path") or "")
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
    targets = data.get("target_modules") or []
    targets = [targets] if isinstance(targets, str) else targets
    if not isinstance(targets, list) or not all(isinstance(t, str) for t in targets):
        raise CheckpointError(
            f"{path / 'adapter_config.json'}: target_modules must be names, got {targets!r}", hint=PLAIN_LORA
        )
    targets = tuple(sorted(targets))
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
        hint=PLAIN_LORA,
    )


def refuse_features(data: Mapping[str, Any], own: set[str]) -> None:
    """Refuse each key of adapter_config.json that is switched on and neither neutral nor the technique's."""
    off = {"bias": "none"}
    for key, value in data.items():
        if key in own or key in NEUTRAL or value == off.get(key) or value in (None, False, "", [], {}):
            continue
        raise CheckpointError(f"{key} = {value!r} is not supported", hint=PLAIN_LORA)


def _fitting(
    path: Path, model: nn.Module, pick: Pick, found: Mapping[str, mx.array]
) -> tuple[Pick, dict[str, nn.Module]]:
    """The Linears that the config's targets name, and those the file's tensors belong to."""
    known = linears(model)
    targets = pick.options.targets
    lone = targets[0] if len(targets) == 1 and targets[0] != ALL else ""
    pattern = {n: m for n, m in known.items() if lone and _matches(lone, n)}
    if pattern and not any(f".{n}".endswith(f".{lone}") for n in known):
        # peft reads a lone string as a regular expression over whole names; we note the names it means.
        pick = Pick(pick.name, dataclasses.replace(pick.options, targets=tuple(pattern)))
    try:
        wanted = chosen(model, pick.options.targets)
    except ConfigError as error:
        raise CheckpointError(f"{path} does not fit this model: {error.message}", hint=error.hint) from error
    named = {name.removeprefix(PREFIX) for name in found}
    # A matrix that is named but has no tensors, or the other way round, is reported by fill().
    return pick, {n: m for n, m in known.items() if n in wanted or any(t.startswith(f"{n}.") for t in named)}


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error:
        return False


def fill(model: nn.Module, found: Mapping[str, mx.array], where: str) -> None:
    """Put an adapter's tensors in place; one missing, extra, misshapen or not finite is refused by name."""
    wanted = {PREFIX + n: value.shape for n, value in tensors(model).items()}
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
    model.update(tree_unflatten([(n.removeprefix(PREFIX), value) for n, value in found.items()]))
    mx.eval(tensors(model))
