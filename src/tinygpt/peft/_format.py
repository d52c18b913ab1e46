"""Reading PEFT's adapter_config.json: what is neutral, what must be off, names of layers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import CheckpointError
from tinygpt.peft import _layers

PREFIX = "base_model.model."
KNOWN = "`tinygpt explain peft` lists what this build opens"
# In adapter_config.json, keys that change nothing in what a trained adapter computes.
NEUTRAL = {
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
    "inference_mode", "target_modules", "megatron_core", "qalora_group_size", "runtime_config",
    "fan_in_fan_out",  # how the base lies, not the adapter
}  # fmt: skip


def refuse_features(data: Mapping[str, Any], own: set[str]) -> None:
    """Refuse each key of adapter_config.json that is switched on and neither neutral nor the technique's."""
    off = {"bias": "none"}
    for key, value in data.items():
        if key in own or key in NEUTRAL or value == off.get(key) or value in (None, False, "", [], {}):
            continue
        raise CheckpointError(f"{key} = {value!r} is not supported", hint=KNOWN)


def names_in(data: Mapping[str, Any], key: str, where: str = "") -> tuple[str, ...]:
    """The names in a setting of adapter_config.json: a list of endings, or one regular expression."""
    found = data.get(key) or []
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise CheckpointError(
            f"{f'{where}: ' if where else ''}{key} must be names, got {found!r}", hint=KNOWN
        )
    return tuple(sorted(found))


def without_copies(
    found: Mapping[str, mx.array], model: nn.Module, prefix: str, where: str
) -> dict[str, mx.array]:
    """The tensors of a file that peft wrote, without those it writes twice.

    Where an embedding is adapted peft adds the base's own tables; one that differs from the model's is
    refused, since peft would put it in place. Where the output matrix is tied to it
    (`ensure_weight_tying`), the same pair is there turned, as the output's."""
    tables, tied = _layers.layers(model), getattr(getattr(model, "output", None), "module", None)
    turned: dict[str, mx.array] = {}
    for name, layer in tables.items():
        if layer is tied and _layers.kind(layer) == _layers.EMBEDDING:
            tables["lm_head"] = layer
            for mine, other in (("A", "B"), ("B", "A")):
                if (pair := found.get(f"{prefix}{name}.lora_embedding_{other}")) is not None:
                    turned[f"{prefix}lm_head.lora_{mine}.weight"] = pair.T
            break
    kept: dict[str, mx.array] = {}
    for name, value in found.items():
        copy = turned.get(name)
        if name.endswith(".base_layer.weight"):
            layer = tables.get(name.removeprefix(prefix).removesuffix(".base_layer.weight"))
            copy = None if layer is None else _layers.dense(layer)
        if copy is None:
            kept[name] = value
        elif copy.shape != value.shape or not mx.array_equal(copy, value.astype(copy.dtype)):
            raise CheckpointError(
                f"{where}: {name} is not what the base has there", hint="it was trained on other weights"
            )
    return kept


def hub_id(base: Path) -> dict[str, str]:
    """{"id": "org/name", "revision": commit} of a base that lies in huggingface_hub's cache, else {}."""
    parts = Path(os.path.abspath(base)).parts
    for folder, word, commit in zip(parts, parts[1:], parts[2:]):
        if folder.startswith("models--") and word == "snapshots":
            return {"id": folder.removeprefix("models--").replace("--", "/"), "revision": commit}
    return {}
