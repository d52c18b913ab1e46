"""Reading PEFT's adapter_config.json: what is neutral, what must be off, names of layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygpt.core.errors import CheckpointError

KNOWN = "`tinygpt explain peft` lists what this build opens"
# In adapter_config.json, keys that change nothing in what a trained adapter computes.
NEUTRAL = {
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
    "inference_mode", "target_modules", "megatron_core", "qalora_group_size", "runtime_config",
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
