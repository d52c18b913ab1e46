"""mlx-lm's adapters: adapters.safetensors and an adapter_config.json with `fine_tune_type`.

There `y = W x + scale (x a) b`, with a (in, r) and b (r, out): ours turned, and `scale` where we have alpha /
r. On experts a (E, r, in) and b (E, out, r) stand as ours do. DoRA has the rows' lengths in `m`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinygpt.core import files
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.model import checkpoint
from tinygpt.peft import _format, _plain

WEIGHTS = "adapters.safetensors"
# Where mlx-lm calls a stack of experts otherwise.
THEIRS, OURS = ".mlp.switch_mlp.", ".mlp.experts."
ENDS = {"lora_a": "lora_A", "lora_b": "lora_B", "m": "lora_magnitude_vector"}


def is_one(path: Path) -> bool:
    """Whether mlx-lm wrote the adapter in this folder."""
    return (path / WEIGHTS).is_file() and "fine_tune_type" in files.peek_json(path / "adapter_config.json")


def read(path: Path, layers: Mapping[str, Any]) -> tuple[Pick, dict[str, mx.array]]:
    """The adapter's settings and its tensors under PEFT's names. `layers`: the kinds of the base's layers by
    name, `_layers.kind`."""
    where = path / "adapter_config.json"
    data = checkpoint.read_json(where)
    technique, knobs = data.get("fine_tune_type"), data.get("lora_parameters")
    if technique not in ("lora", "dora") or not isinstance(knobs, dict):
        raise CheckpointError(
            f"{where}: fine_tune_type '{technique}' holds no adapter",
            hint="lora and dora are read; of a full fine-tune save the model with `mlx_lm.fuse`",
        )
    rank, scale = knobs.get("rank"), knobs.get("scale")
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank < 1 << 16:
        raise CheckpointError(f"{where}: rank cannot be {rank!r}", hint="it is a whole number")
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not abs(scale) < 1e9:
        raise CheckpointError(f"{where}: scale cannot be {scale!r}", hint="mlx-lm writes a number")
    found: dict[str, mx.array] = {}
    names: dict[str, None] = {}
    for full, value in checkpoint.read_tensors(path, "adapters").items():
        name, _, end = full.replace(THEIRS, OURS).rpartition(".")
        if end not in ENDS:
            raise CheckpointError(f"{path / WEIGHTS}: {full} is no part of an adapter", hint="was it tuned?")
        if end == "m" and layers.get(name) == "embedding":
            raise CheckpointError(
                f"{path / WEIGHTS}: {name} is an embedding with a length for each token, and DoRA here has "
                "one for each output",
                hint="fuse it with `mlx_lm.fuse`, or train it without the embedding",
            )
        names[name] = None
        inner, value = _ours(ENDS[end], value, layers.get(name, ""))
        found[f"{_format.PREFIX}{name}.{inner}"] = value
    try:
        pick = Pick(technique, {"rank": rank, "alpha": float(scale) * rank, "targets": tuple(names)})
        return pick, found
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error.message}", hint=error.hint) from error


def _ours(end: str, value: mx.array, kind: str) -> tuple[str, mx.array]:
    if end == "lora_magnitude_vector":
        return end, value
    turned = value if value.ndim == 3 else value.T
    return (f"lora_embedding_{end[-1]}", turned) if kind == "embedding" else (f"{end}.weight", turned)


def write(path: Path, plain: _plain.Plain, base: Path, n_layers: int, *, replace: bool = False) -> Path:
    """A folder that mlx-lm opens beside this base: `mlx_lm.generate --adapter-path`."""
    found: dict[str, mx.array] = {}
    for name, (a, b) in plain.pairs.items():
        theirs = name.replace(OURS, THEIRS)
        stacked = a.ndim == 3
        found |= {f"{theirs}.lora_a": a if stacked else a.T, f"{theirs}.lora_b": b if stacked else b.T}
    for name, lengths in plain.lengths.items():
        found[f"{name}.m"] = lengths
    keys = sorted({name.rpartition(".")[0] for name in found})
    config = {
        "fine_tune_type": "dora" if plain.lengths else "lora", "num_layers": n_layers, "model": str(base),
        # mlx-lm looks keys up inside each block and in the whole model: whole names mean one layer each.
        "lora_parameters": {"rank": plain.rank, "scale": plain.scale, "dropout": 0.0, "keys": keys},
    }  # fmt: skip
    with files.atomic_directory(Path(path), replace=replace) as folder:
        files.write_json(folder / "adapter_config.json", config)
        checkpoint.write_tensors(folder, "adapters", found)
    return Path(path)
