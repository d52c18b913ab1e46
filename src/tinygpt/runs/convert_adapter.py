"""Write an adapter anew, in the format of another program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinygpt.core.config import to_dict
from tinygpt.core.errors import CheckpointError, ConfigError, UnsupportedError
from tinygpt.core.events import Events
from tinygpt.data.tokenizer import hf
from tinygpt.model import checkpoint
from tinygpt.peft import _adapter, _layers, _mlx_lm, _open, _plain, _tgla
from tinygpt.runs import _pieces

FORMATS = ("peft", "mlx", "tgla")


def run(
    adapter: Path,
    *,
    out: Path,
    format: str = "peft",
    base: Path | None = None,
    force: bool = False,
    events: Events | None = None,
) -> dict[str, Any]:
    """Read an adapter of any known format and write it as `format`: "peft" (ours, which peft opens), "mlx"
    for mlx-lm, "tgla" for the original. Not given, `base` is the model that the adapter names."""
    where = _pieces.model_path(adapter)
    if out.exists() and (out.is_dir() and any(out.iterdir()) or out.is_file()):
        raise ConfigError(f"--out {out} exists", hint="choose another name, or move it away")
    _pieces.refuse_inside(out)
    base = base or _adapter.base_of(where)
    if base is None:
        raise CheckpointError(f"{adapter} does not name its base model", hint="give it: --base MODEL")
    packing = _pieces.packing_of(where)
    loaded = checkpoint.load(_pieces.model_path(base), packing=packing)
    found = _open.load([where], loaded.model, base=loaded.path, force=force)
    for note in _open.told(found):
        if events is not None:
            events.note(note, "warning")
    wrappers: Mapping[str, Any] = _adapter.adapters(loaded.model)
    facts = {"out": str(out), "format": format, "technique": found[0].pick.name, "layers": len(wrappers)}
    if format == "peft":
        how = {} if packing is None else {_pieces.PACKED: to_dict(packing)}
        write = hf.load(where).save if (where / "tokenizer.json").is_file() else None
        _adapter.save_adapter(
            out, loaded.model, found[0].pick, base=loaded.path, write_tokenizer=write, **how
        )
        return facts
    if packing is not None and events is not None:
        events.note(
            f"the adapter was trained on its base packed in {packing}; other programs put it on the base as "
            "they find it",
            "warning",
        )
    plain = _plain.plain(found[0].pick, wrappers)
    facts |= {"rank": plain.rank, "scale": plain.scale}
    if format == "mlx":
        _refuse_embeddings(loaded.model, plain, wrappers)
        _mlx_lm.write(out, plain, loaded.path, loaded.config.num_hidden_layers)
    else:
        sizes = {name: getattr(loaded.config, name) for name in _tgla.SIZES.values()}
        _tgla.write(out, plain, sizes)
    return facts


def _refuse_embeddings(model: Any, plain: _plain.Plain, wrappers: Mapping[str, Any]) -> None:
    """Refuse embeddings that mlx-lm adapts in another way than this adapter does."""
    for name, wrapper in wrappers.items():
        if _layers.kind(wrapper) == _layers.EMBEDDING and name in plain.lengths:
            why = "its DoRA has a length for each token of an embedding, this one for each of its outputs"
        elif _layers.input_alone(model, wrapper):
            why = "it always adapts both uses of a table that is the output matrix too, this one the input"
        else:
            continue
        said = f"mlx-lm has no form of the adapter of {name}: {why}"
        raise UnsupportedError(said, hint="use --format peft")
