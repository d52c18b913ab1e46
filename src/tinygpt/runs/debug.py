"""Debug a checkpoint: its tensor names, dtypes and statistics, the next tokens, the loss on a fixed text.

An adapter is opened on the base model that it was trained on; of names and tensors its own are shown.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mlx.utils import tree_flatten

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data.tokenizer._protocol import Tokenizer, byte_lengths
from tinygpt.model import checkpoint, count, layout, ops
from tinygpt.model.checkpoint import Loaded
from tinygpt.model.lm import LM
from tinygpt.peft import _adapter, _rank_pattern
from tinygpt.runs import _pieces


def _open(path: Path) -> tuple[Loaded, Tokenizer]:
    """The model at a path, or the base of the adapter there with it."""
    base = _pieces.base_of(path)
    return _pieces.open_model(path) if base is None else _pieces.open_model(base, path)


def _stored(path: Path) -> dict[str, mx.array]:
    """What an adapter's file should hold, as the loaded model has it."""
    found = _adapter.stored(_adapter.adapters(_open(path)[0].model))
    return {name.removeprefix(_adapter.PREFIX): value for name, value in found.items()}


def names(path: Path) -> dict[str, Any]:
    """Tensor names that the config asks for, against those in the file."""
    model_dir = _pieces.model_path(path)
    if _pieces.base_of(model_dir) is not None:  # one that lacks a tensor, or has one too many, does not open
        return {"common": len(_stored(model_dir)), "missing": [], "extra": []}
    config = checkpoint.read_config(model_dir)
    wanted = set(count.tensors(LM(config)))
    found = set(layout.from_disk(checkpoint.read_tensors(model_dir, "model"), config))
    return {"common": len(wanted & found), "missing": sorted(wanted - found), "extra": sorted(found - wanted)}


def dtypes(path: Path) -> dict[str, Any]:
    """How many tensors and bytes of each dtype the file holds."""
    totals: dict[str, dict[str, int]] = {}
    path = _pieces.model_path(path)
    stem = "adapter_model" if (path / "adapter_config.json").exists() else "model"
    for tensor in checkpoint.read_tensors(path, stem).values():
        entry = totals.setdefault(
            str(tensor.dtype).rsplit(".", 1)[-1], {"tensors": 0, "values": 0, "bytes": 0}
        )
        entry["tensors"] += 1
        entry["values"] += int(tensor.size)
        entry["bytes"] += tensor.nbytes
    return totals


def load(path: Path) -> list[dict[str, Any]]:
    """Each tensor as it sits in the loaded model: mean, deviation, extremes, and the difference from the
    file."""
    path = _pieces.model_path(path)
    if _pieces.base_of(path) is None:
        loaded = checkpoint.load(path)
        values = dict(tree_flatten(loaded.model.parameters()))
        disk = layout.from_disk(checkpoint.read_tensors(path, "model"), loaded.config)
    else:
        values = _stored(path)
        found = checkpoint.read_tensors(path, "adapter_model")
        data = checkpoint.read_json(path / "adapter_config.json")
        if data.get("peft_type") == "ADALORA":  # its file leaves out what is zero
            found = _rank_pattern.expand(found, data)
        disk = {name.removeprefix(_adapter.PREFIX): value for name, value in found.items()}
    rows = []
    for name, value in values.items():
        x = value.astype(mx.float32)
        rows.append(
            {
                "name": name, "mean": x.mean().item(), "std": mx.std(x).item(), "min": x.min().item(),
                "max": x.max().item(), "difference": mx.abs(x - disk[name]).max().item(),
            }
        )  # fmt: skip
    return rows


def logits(path: Path, prompt: str, top: int) -> list[dict[str, Any]]:
    """The most likely next tokens after a prompt."""
    if top < 1:
        raise ConfigError(f"--top must be at least 1, got {top}")
    loaded, tokenizer = _open(path)
    ids = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    ids += tokenizer.encode(prompt)
    if not ids:
        raise DataError("the prompt has no tokens", hint="give some text with --prompt")
    if len(ids) > loaded.config.reach:
        raise DataError(
            f"the prompt has {len(ids)} tokens, the context only {loaded.config.reach}",
            hint="shorten it",
        )
    scores = loaded.model(mx.array([ids]))[0, -1].astype(mx.float32)
    probabilities = mx.softmax(scores)
    best = mx.argsort(-scores)[:top]
    return [
        {
            "id": i,
            "text": tokenizer.decode([i]),
            "logit": scores[i].item(),
            "probability": probabilities[i].item(),
        }
        for i in map(int, best)
    ]


# Sonnet 18, lines 1-8 (1609): a fixed text that every model can be measured on.
EXCERPT = """Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date:
Sometime too hot the eye of heaven shines,
And often is his gold complexion dimmed,
And every fair from fair sometime declines,
By chance, or nature's changing course, untrimmed."""


def loss(path: Path, text: str | None) -> dict[str, Any]:
    """Loss on a fixed excerpt or a given text, per token and in bits per byte.

    The text follows a start token, as in training and in `eval`; of a long one the beginning is read."""
    loaded, tokenizer = _open(path)
    ids = tokenizer.encode(EXCERPT if text is None else text)[: loaded.config.reach]
    n_bytes = int(byte_lengths(tokenizer)[ids].sum())
    if not n_bytes:
        raise DataError("there is no text to measure", hint="give some with --text")
    start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    logits = loaded.model(mx.array([[start, *ids[:-1]]]))[0]
    nats = ops.cross_entropy(logits, mx.array(ids)).sum().item()
    return {
        "tokens": len(ids), "bytes": n_bytes, "loss": nats / len(ids),
        "bits_per_byte": nats / math.log(2) / n_bytes,
    }  # fmt: skip
