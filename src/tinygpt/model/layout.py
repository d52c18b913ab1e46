"""How a model lies on disk: config.json and tensor names as other tools expect them.

A config whose slots are those of an architecture that other tools know (the files of `arch/`) is written with
that `model_type`, names and layout, so `transformers` and `mlx_lm` open the directory as it lies. Any other
config has `model_type` "tinygpt" and its slots spelled out. A config is of an architecture if what that one
would write says all of it: reading it again gives the same config.

Reading takes each of them, in any of the spellings that are found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygpt.core.backend import mx
from tinygpt.core.config import from_dict, to_dict
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.core.family import Family
from tinygpt.model.arch import _tensors
from tinygpt.model.arch._source import GRID, IDLE, Source
from tinygpt.model.arch._source import SIZES as _SIZES
from tinygpt.model.config import ModelConfig

ARCH = Family("tinygpt.model.arch", verb="read")
OURS = "tinygpt"
SIZES = (*_SIZES, "attention_bias", "mlp_bias")
SLOTS = ("attention", "mlp", "position", "norm", "residual", "head")
# Fields that are written only where they differ from what all stacks had before them.
RARE: dict[str, Any] = {
    "embedding_norm": None, "depth": {"name": "all"}, "second_position": None, "second_layers": [],
    "embedding_scale": 1.0, "logit_divisor": 1.0, "logit_cap": 0.0,
}  # fmt: skip
Weights = dict[str, mx.array]


def known(kind: Any) -> bool:
    """Whether the native decoder opens configs of this `model_type`."""
    return kind == OURS or kind in ARCH.names()


def model_type(config: ModelConfig) -> str:
    """The name other tools know this stack by, for example "llama" or "gpt2", or "tinygpt" when none fits."""
    if config.attention.name != "gqa" or config.attention.options.key_shift:
        return OURS  # other tools know neither another attention nor shifted keys
    if config.embedding_norm is not None or config.depth.name != "all" or config.head.name != "linear":
        return OURS
    for name in ARCH.names():
        if ARCH.load(name).fits(config) and _says_all(name, config):
            return name
    return OURS


def _says_all(kind: str, config: ModelConfig) -> bool:
    """Whether what an architecture writes of a config is all there is to say."""
    try:
        return from_hf(_written(config, kind)) == config
    except (ConfigError, CheckpointError):
        return False


def _written(config: ModelConfig, kind: str) -> dict[str, Any]:
    """config.json of a stack of this kind, without the ids of special tokens."""
    arch = ARCH.load(kind)
    grid = {name: getattr(config, name) for name in GRID if config.qat_bits}
    return {"architectures": [arch.CLASS], "model_type": kind, **arch.write(config), **grid}


def to_hf(
    config: ModelConfig, *, eos: int | None = None, bos: int | None = None, pad: int | None = None
) -> dict[str, Any]:
    """The content of config.json."""
    kind = model_type(config)
    ids = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
    if kind != OURS:
        return {**_written(config, kind), **ids}
    rare = {name: to_dict(getattr(config, name)) for name in RARE}
    return {
        "architectures": ["TinyGPT"],
        "model_type": OURS,
        **{name: getattr(config, name) for name in SIZES},
        "norm_eps": config.norm_eps,
        **{slot: to_dict(getattr(config, slot)) for slot in SLOTS},
        **{name: value for name, value in rare.items() if value != RARE[name]},
        **{name: getattr(config, name) for name in GRID if config.qat_bits},
        **ids,
    }


def from_hf(data: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
    """A ModelConfig from config.json. Keys that could change the mathematics and are not known are refused by
    name."""
    kind = data.get("model_type")
    try:
        if kind == OURS:
            return from_dict(ModelConfig, {k: v for k, v in data.items() if k not in IDLE})
        if known(kind):
            arch = ARCH.load(str(kind))
            source = Source(data, str(kind), arch.USUAL, where)
            values = arch.read(source)
            source.close()
            return from_dict(ModelConfig, values)
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error.message}", hint=error.hint) from error
    raise CheckpointError(
        f"{where}: model_type '{kind}' is not one this build opens",
        hint=f"it opens {', '.join(ARCH.names())} and {OURS}",
    )


def to_disk(weights: Mapping[str, mx.array], config: ModelConfig) -> Weights:
    """Our tensors under the names and in the layout of the config's model_type."""
    kind = model_type(config)
    write = None if kind == OURS else getattr(ARCH.load(kind), "to_disk", None)
    return dict(weights) if write is None else write(weights, config)


def from_disk(weights: Mapping[str, mx.array], config: ModelConfig) -> Weights:
    """Tensors of any of these architectures under our names. Names that do not belong to the layout come back
    as they are, to be reported."""
    if any(name.endswith("wte.weight") for name in weights):
        return ARCH.load("gpt2").from_disk(weights)
    return _tensors.ours(weights, config)
