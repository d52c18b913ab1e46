"""What runs share: opening models and tokenizers, wherever a path points."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx.utils import tree_flatten

from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.data import rows
from tinygpt.data.template import chatml
from tinygpt.data.tokenizer import byte, hf
from tinygpt.data.tokenizer._protocol import Tokenizer
from tinygpt.model import checkpoint
from tinygpt.model.checkpoint import Loaded
from tinygpt.peft import _adapter
from tinygpt.runs import _package

TEMPLATE = chatml
write_jsonl = rows.write


def model_path(path: Path) -> Path:
    """The model directory of a path: itself, a specialist's model/, a run's final/, or its newest step."""
    if not path.exists():
        raise CheckpointError(f"there is nothing at {path}", hint="check the path")
    if (path / checkpoint.MANIFEST).exists() or (path / "config.json").exists():
        return path
    found = (p for p in (path / "steps").glob("[0-9]*") if p.name.isdigit())
    steps: Sequence[Path] = sorted(found, key=lambda p: int(p.name))
    for candidate in (path / "model", path / "final", *reversed(steps)):
        if candidate.is_dir():
            return candidate
    return path


def refuse_inside(out: Path) -> None:
    """Nothing is made in a checkpoint or a packaged specialist: it holds what its list of files says, and
    whoever replaces it removes the rest."""
    for folder in (out.resolve(), *out.resolve().parents):
        if any(os.path.isfile(folder / mark) for mark in (checkpoint.MANIFEST, _package.LOCK)):
            where = "is" if folder == out.resolve() else "lies inside"
            raise ConfigError(f"--out {out} {where} the checkpoint {folder}", hint="choose another --out")


def open_model(path: Path, adapter: Path | None = None) -> tuple[Loaded, Tokenizer]:
    """A model, run or specialist directory with its tokenizer, and an adapter on top if one is given."""
    loaded = checkpoint.load(model_path(path))
    if adapter is not None:
        _adapter.load_adapter(model_path(adapter), loaded.model, base=loaded.path)
    tokenizer = hf.load(loaded.path)
    if tokenizer.vocab_size > loaded.config.vocab_size:
        raise CheckpointError(
            f"{loaded.path}: the tokenizer has {tokenizer.vocab_size} ids, "
            f"the model only {loaded.config.vocab_size}"
        )
    return loaded, tokenizer


def base_of(path: Path) -> Path | None:
    """The model that the adapter at `path` was trained on; None when there is a model at `path`."""
    path = model_path(path)
    kind, config = checkpoint.MANIFEST, "adapter_config.json"
    ours = checkpoint.read_json(path / kind) if (path / kind).exists() else {}
    if ours.get("kind") != "adapter" and (ours or not (path / config).exists()):
        return None
    named = ours.get("base", {}).get("path") or checkpoint.read_json(path / config).get(
        "base_model_name_or_path"
    )
    if not named or not Path(named).exists():
        raise CheckpointError(
            f"{path} is an adapter, and its base model is not at {named}",
            hint="start where that path leads to it, or give a model",
        )
    return Path(named)


def open_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a setting: "byte", or the path of a directory or tokenizer.json."""
    return byte.load() if name == "byte" else hf.load(Path(name))


def ids(tokenizer: Tokenizer) -> dict[str, int | None]:
    """What config.json should say of a tokenizer."""
    return {"eos": tokenizer.eos_id, "bos": tokenizer.bos_id, "pad": tokenizer.pad_id}


def n_parameters(module: Any) -> int:
    """Number of learned values."""
    return sum(int(value.size) for value in dict(tree_flatten(module.trainable_parameters())).values())
