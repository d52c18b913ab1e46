"""A model written anew from one that lies on disk: config and tokenizer go along with other weights."""

from __future__ import annotations

import fnmatch
import shutil
from pathlib import Path
from typing import Any

from mlx.utils import tree_flatten

from tinygpt.core import files, hub
from tinygpt.core.backend import mx
from tinygpt.model import checkpoint, layout, quantized, shards
from tinygpt.model.lm import LM
from tinygpt.runs import _pieces

DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
# Configs of generation, tokenizers, templates and the licence. No code, and no model card, the old model's.
WITH_IT = (
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "chat_template.jinja",
    "chat_template.json", "LICENSE*", "NOTICE*",
)  # fmt: skip


def claim(out: Path, *, force: bool | None) -> None:
    """Refuse to write a model where something is; with `force` one of ours goes. None: nothing ever does."""
    _pieces.refuse_inside(out.resolve().parent)
    files.refuse_existing(out, force=force, what="model", mark=checkpoint.MANIFEST, replaced={"": ()})


def copy(source: Path, folder: Path) -> None:
    """Copy what belongs to a model but its config and weights; links become files."""
    try:
        for path in sorted(p for p in source.iterdir() if p.is_file()):
            if any(fnmatch.fnmatchcase(path.name, pattern) for pattern in WITH_IT):
                shutil.copyfile(path, folder / path.name)
    except OSError as error:
        raise files.unwritable(folder, error) from error


def write_model(folder: Path, source: Path, model: Any, dtype: str | None, **facts: Any) -> None:
    """Fill a folder with a model that was read from `source`: tensors in the layout of its architecture, each
    in its own dtype or in `dtype`; what is packed stays packed. `facts` go into the manifest."""
    packed = quantized.parts(list(quantized.packed(model)))
    wide = getattr(mx, dtype) if dtype else None
    held: Any = {
        n: v if wide is None or n in packed or not mx.issubdtype(v.dtype, mx.floating) else v.astype(wide)
        for n, v in dict[str, Any](tree_flatten(model.parameters())).items()
    }
    old = checkpoint.read_json(source / "config.json")
    native = isinstance(model, LM)
    tensors = layout.to_disk(held, model.config) if native else held
    plan = {name: (str(value.dtype).rsplit(".", 1)[-1], value.shape) for name, value in tensors.items()}
    if native and layout.model_type(model.config) != old["model_type"]:  # another name for the same stack
        ids = {name: old.get(f"{name}_token_id") for name in ("eos", "bos", "pad")}
        kept = {k: old[k] for k in ("dtype", "torch_dtype") if k in old}
        old = layout.to_hf(model.config, **ids) | kept
    new = {k: v for k, v in old.items() if k not in quantized.KEYS} | quantized.described(model)
    if dtype:
        new = {k: v for k, v in new.items() if k != "torch_dtype"} | {"dtype": dtype}
    files.write_json(folder / "config.json", new)
    copy(source, folder)
    shards.write(folder, "model", plan, tensors.__getitem__)
    checkpoint.seal(folder, kind="model", **facts)


def origin(given: Path, folder: Path) -> dict[str, str]:
    """How a manifest names the model that another was made from: its path, or its name and commit on the hub,
    and the hash of its weights."""
    return {"path": str(hub.of_snapshot(folder) or hub.spelled(given)), "hash": checkpoint.identity(folder)}
