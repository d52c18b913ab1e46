"""Whether models are of one kind, so that their weights can be merged: config, tokenizer, tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tinygpt.core.errors import CheckpointError, UnsupportedError
from tinygpt.model import checkpoint, foreign
from tinygpt.model.config import ModelConfig
from tinygpt.model.shards import Shards
from tinygpt.runs import _pieces

# Keys of config.json that change nothing in what a model computes; two models may differ in them.
NEUTRAL = {
    "architectures", "transformers_version", "dtype", "torch_dtype", "_name_or_path", "use_cache",
    "bos_token_id", "eos_token_id", "pad_token_id", "initializer_range", "auto_map", "unsloth_version",
    "attention_dropout",
}  # fmt: skip


def opened(path: Path) -> Path:
    """The folder of a model whose files are as its manifest says, if it has one."""
    folder = _pieces.model_path(path)
    if (folder / checkpoint.MANIFEST).exists() or not (folder / "config.json").exists():
        kind = checkpoint.validate(folder)["kind"]
        if kind != "model":
            hint = "bake an adapter into its base first: tinygpt bake-lora" if kind == "adapter" else ""
            raise CheckpointError(f"{folder} is of kind {kind}, not a model", hint=hint)
    if {"quantization", "quantization_config"} & set(checkpoint.read_json(folder / "config.json")):
        raise UnsupportedError(
            f"{folder} is quantized: packed weights cannot be merged", hint="dequantize it first"
        )
    return folder


def refuse_other_kind(first: Path, other: Path) -> None:
    """Two models must be of one architecture, and spell texts with the same ids."""
    a, b = (checkpoint.read_json(folder / "config.json") for folder in (first, other))
    odd = [k for k in dict.fromkeys([*a, *b]) if k not in NEUTRAL and a.get(k) != b.get(k)]
    odd.sort(key=lambda key: key != "model_type")
    if odd and not (_native(first, a) and _native(other, b) and _computed(first) == _computed(other)):
        was = f"{odd[0]} is {a.get(odd[0])!r} in {first} and {b.get(odd[0])!r} in {other}"
        raise CheckpointError(
            f"the models differ in what they compute: {was}", hint="merge models of one kind"
        )
    if (one := _vocabulary(first)) != (two := _vocabulary(other)):
        names = {n for n in {*one, *two} if one.get(n) != two.get(n)}
        raise CheckpointError(
            f"{first} and {other} have different tokenizers: {min(names)!r} is one of {len(names)} tokens "
            "that only one of them has, or that they number differently",
            hint="their rows of embeddings mean different things, so they cannot be merged",
        )


def _native(folder: Path, data: dict[str, Any]) -> bool:
    return not foreign.serves(folder, data)


def _computed(folder: Path) -> ModelConfig:
    """What a config.json says, whichever way it is spelled: transformers 5 has other keys than 4."""
    return replace(checkpoint.read_config(folder), initializer_range=0.02)


def _vocabulary(folder: Path) -> dict[str, int]:
    """Token ids by name; empty where there is no tokenizer.json."""
    import tokenizers

    file = folder / "tokenizer.json"
    return tokenizers.Tokenizer.from_file(str(file)).get_vocab() if file.is_file() else {}


def refuse_other_tensors(lead: Shards, first: Path, other: Shards, folder: Path) -> None:
    """Two models must have the same tensors, of the same shapes."""
    odd = sorted({*lead.entries} ^ {*other.entries})
    if odd:
        has, lacks = (first, folder) if odd[0] in lead.entries else (folder, first)
        raise CheckpointError(f"{lacks} lacks the tensor {odd[0]}, which {has} has", hint=checkpoint.UNPAIRED)
    for name in lead:
        a, b = lead.entries[name], other.entries[name]
        if a.shape != b.shape:
            raise CheckpointError(
                f"{name} has the shape {a.shape} in {first} and {b.shape} in {folder}",
                hint="models of different sizes cannot be merged",
            )
        if a.is_float != b.is_float:
            odd_one, where = (a, first) if b.is_float else (b, folder)
            raise CheckpointError(
                f"{name} holds numbers of the type {odd_one.code} in {where}, which are no weights",
                hint="give weights in float32, float16 or bfloat16",
            )
