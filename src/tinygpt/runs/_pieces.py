"""What runs share: opening models and tokenizers, wherever a path points."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx.utils import tree_flatten

from tinygpt.core import files
from tinygpt.core.config import from_dict
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.core.lock import IN_USE
from tinygpt.data.template import chatml
from tinygpt.data.tokenizer import byte, hf
from tinygpt.data.tokenizer._protocol import Tokenizer
from tinygpt.model import checkpoint
from tinygpt.model.checkpoint import Loaded
from tinygpt.model.quantized import Packing
from tinygpt.peft import _adapter
from tinygpt.runs import _package

TEMPLATE = chatml
PACKED = "packed"  # of an adapter's manifest: how the base was packed for it
RUN = "run.json"  # the record of a run: what makes a folder a run directory
# Files at the top of the directories that runs make; those below are on a checkpoint's own list.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
RUN_FILES = (RUN, "events.jsonl", IN_USE)
# What --force may replace of an earlier quickstart, beside its package.
QUICKSTART_MARK = f"run/{RUN}"
QUICKSTART: dict[str, tuple[str, ...]] = {"run": RUN_FILES, "tokenizer": TOKENIZER_FILES}


def model_path(path: Path) -> Path:
    """The model directory of a path: itself, a specialist's model/, a run's final/, or its newest step."""
    files.recover(path)
    if not path.exists():
        raise CheckpointError(f"there is nothing at {path}", hint="check the path")
    if any((path / own).exists() for own in (checkpoint.MANIFEST, "config.json", "adapter_config.json")):
        return path
    found = (p for p in (path / "steps").glob("[0-9]*") if p.name.isdecimal())
    steps: Sequence[Path] = sorted(found, key=lambda p: int(p.name))
    for candidate in (path / "model", path / "final", *reversed(steps)):
        if candidate.is_dir():
            return candidate
    if (path / RUN).is_file():
        raise CheckpointError(
            f"the run {path} has saved nothing yet",
            hint="wait for its first checkpoint (see --save-every), or go on with it: --resume",
        )
    return path


def refuse_inside(out: Path) -> None:
    """Nothing is made in a checkpoint or a packaged specialist: it holds what its list of files says, and
    whoever replaces it removes the rest. A tokenizer is no checkpoint, but nothing is made in it either."""
    for folder in (out.resolve(), *out.resolve().parents):
        if any(os.path.isfile(folder / mark) for mark in (checkpoint.MANIFEST, _package.LOCK)):
            itself = folder == out.resolve()
            if itself and files.peek_json(folder / checkpoint.MANIFEST).get("kind") == "tokenizer":
                continue
            where = "is" if itself else "lies inside"
            raise ConfigError(f"--out {out} {where} the checkpoint {folder}", hint="choose another --out")


def open_model(
    path: Path,
    adapter: Path | None = None,
    *,
    force: bool = False,
    dtype: str = "auto",
    packing: Packing | None = None,
) -> tuple[Loaded, Tokenizer]:
    """A model, run or specialist directory with its tokenizer, and an adapter on top if one is given: of
    another base than this only with `force`.

    The base of an adapter that was trained on packed matrices is packed in the same way. See
    `checkpoint.load` for dtype and packing."""
    if adapter is not None and packing is None:
        packing = packing_of(model_path(adapter))
    loaded = checkpoint.load(model_path(path), dtype=dtype, packing=packing)
    if adapter is not None:
        _adapter.load_adapter(model_path(adapter), loaded.model, base=loaded.path, force=force)
    tokenizer = hf.load(loaded.path)
    if tokenizer.vocab_size > loaded.config.vocab_size:
        raise CheckpointError(
            f"{loaded.path}: the tokenizer has {tokenizer.vocab_size} ids, "
            f"the model only {loaded.config.vocab_size}",
            hint="they do not belong together: copy or save both again",
        )
    return loaded, tokenizer


def packing_of(adapter: Path) -> Packing | None:
    """How the base was packed that the adapter at this path was trained on; None where it was as it lies."""
    manifest = adapter / checkpoint.MANIFEST
    table = checkpoint.read_json(manifest).get(PACKED) if manifest.is_file() else None
    if table is None:
        return None
    try:
        return from_dict(Packing, table if isinstance(table, dict) else {"": table}, PACKED)
    except ConfigError as error:
        raise CheckpointError(f"{manifest}: {error.message}", hint=error.hint) from error


def base_of(path: Path) -> Path | None:
    """The model that the adapter at `path` was trained on; None when there is a model at `path`."""
    return _adapter.base_of(model_path(path))


def open_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a setting: "byte", or the path of a directory or tokenizer.json."""
    return byte.load() if name == "byte" else hf.load(Path(name))


def ids(tokenizer: Tokenizer) -> dict[str, int | None]:
    """What config.json should say of a tokenizer."""
    return {"eos": tokenizer.eos_id, "bos": tokenizer.bos_id, "pad": tokenizer.pad_id}


def n_parameters(module: Any) -> int:
    """Number of learned values."""
    return sum(int(value.size) for value in dict(tree_flatten(module.trainable_parameters())).values())
