"""What runs share: opening models and tokenizers, wherever a path points."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx.utils import tree_flatten

from tinygpt.core import files, hub, rows
from tinygpt.core.config import from_dict
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.core.events import Events
from tinygpt.core.lock import IN_USE
from tinygpt.data.template import _choice
from tinygpt.data.template._choice import Template
from tinygpt.data.tokenizer import _beside, byte, hf
from tinygpt.data.tokenizer._protocol import Tokenizer
from tinygpt.model import checkpoint, quantized
from tinygpt.model.checkpoint import Loaded
from tinygpt.model.quantized import Packing
from tinygpt.peft import _adapter, _open
from tinygpt.runs import _hub, _package

PACKED = "packed"  # of an adapter's manifest: how the base was packed for it
RUN = "run.json"  # the record of a run: what makes a folder a run directory
# Files at the top of the directories that runs make; those below are on a checkpoint's own list.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
EVAL_ROWS = "eval-rows.jsonl"  # of the suites that a run asked while it trained
RUN_FILES = (RUN, "events.jsonl", "pairs.jsonl", EVAL_ROWS, rows.beside(Path(EVAL_ROWS)).name, IN_USE)
# What --force may replace of an earlier quickstart, beside its package.
QUICKSTART_MARK = f"run/{RUN}"
QUICKSTART: dict[str, tuple[str, ...]] = {"run": RUN_FILES, "tokenizer": TOKENIZER_FILES}


def model_path(path: Path) -> Path:
    """The model directory of a path: itself, a specialist's model/, a run's final/, or its newest step; of
    hf://org/name the folder in the hub's cache."""
    path = _hub.fetch(path)
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
    adapters: Path | Sequence[Path] | None = None,
    *,
    weights: Sequence[float] = (),
    force: bool = False,
    dtype: str = "auto",
    packing: Packing | None = None,
    events: Events | None = None,
) -> tuple[Loaded, Tokenizer]:
    """A model, run or specialist directory with its tokenizer, and adapters on top, each with its weight;
    `force` takes those of another base too.

    The base of an adapter that was trained on packed matrices is packed in the same way. See
    `checkpoint.load` for dtype and packing."""
    adapters = (adapters,) if isinstance(adapters, Path) else adapters or ()
    where = [model_path(adapter) for adapter in adapters]
    packing = packing or packing_for(where)
    loaded = checkpoint.load(model_path(path), dtype=dtype, packing=packing)
    for note in _open.told(_open.load(where, loaded.model, base=loaded.path, weights=weights, force=force)):
        if events is not None:
            events.note(note, "warning")
    tokenizer = hf.load(loaded.path)
    if where:
        tokenizer = asked_as(tokenizer, where[-1])
    if tokenizer.vocab_size > loaded.config.vocab_size:
        raise CheckpointError(
            f"{loaded.path}: the tokenizer has {tokenizer.vocab_size} ids, "
            f"the model only {loaded.config.vocab_size}",
            hint="they do not belong together: copy or save both again",
        )
    return loaded, tokenizer


def asked_as(tokenizer: Tokenizer, adapter: Path) -> Tokenizer:
    """The tokenizer with the template that an adapter was trained with."""
    own = _beside.chat_template(adapter)
    return tokenizer.with_template(own) if own and own != tokenizer.chat_template else tokenizer


def packing_for(adapters: Sequence[Path]) -> Packing | None:
    """How the base was packed for these adapters; ConfigError where they want it in different ways."""
    wanted = [packing_of(adapter) for adapter in adapters]
    if odd := next((i for i, one in enumerate(wanted) if one != wanted[0]), 0):
        ways = [str(one or "whole matrices") for one in (wanted[0], wanted[odd])]
        raise ConfigError(
            f"{adapters[0]} was trained on {ways[0]}, {adapters[odd]} on {ways[1]}",
            hint="put one of them on the base at a time",
        )
    return wanted[0] if wanted else None


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


def step_of(folder: Path) -> int | None:
    """At which step of its training a model or checkpoint was written; None where it does not say."""
    told = (files.peek_json(folder / name).get("step") for name in (checkpoint.MANIFEST, "state.json"))
    return next((step for step in told if isinstance(step, int)), None)


def template_of(tokenizer: Tokenizer, name: str = _choice.AUTO) -> Template:
    """How conversations with this tokenizer's model are written and read: in training, chat and suites."""
    return _choice.of(tokenizer, name)


def templated(tokenizer: Tokenizer, name: str, events: Events) -> tuple[Tokenizer, Template]:
    """The chosen template of a run, and the tokenizer as it is saved with what the run makes. What a person
    should know about the choice is told."""
    template = template_of(tokenizer, name)
    if template.note:
        events.note(template.note)
    return _choice.saved(tokenizer, template), template


def base_of(path: Path) -> Path | None:
    """The model that the adapter at `path` was trained on; None when there is a model at `path`. One of
    the hub that is not here any more is named as it is there."""
    folder = model_path(path)
    try:
        return _adapter.base_of(folder)
    except CheckpointError:
        trained_on = files.peek_json(folder / checkpoint.MANIFEST).get("base")
        if not isinstance(trained_on, dict) or not trained_on.get("id"):
            raise
        return Path(str(hub.HubName(str(trained_on["id"]), str(trained_on.get("revision", "")))))


def open_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a setting: "byte", the path of a directory or tokenizer.json, or hf://org/name."""
    return byte.load() if name == "byte" else hf.load(_hub.fetch(name, part="tokenizer"))


def ids(tokenizer: Tokenizer) -> dict[str, int | None]:
    """What config.json should say of a tokenizer."""
    return {"eos": tokenizer.eos_id, "bos": tokenizer.bos_id, "pad": tokenizer.pad_id}


def held(model: Any) -> str:
    """In which dtypes and how packed a model's weights are in memory: the same files give other answers
    under --qlora, or in bf16."""
    weights: list[Any] = list(tree_flatten(model.parameters()))
    return f"{sorted({str(w.dtype) for _, w in weights})} {quantized.packing(model)}"


def n_parameters(module: Any) -> int:
    """Number of learned values."""
    return sum(int(value.size) for value in dict(tree_flatten(module.trainable_parameters())).values())
