"""Write an adapter anew, in the format of another program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.core.events import Events
from tinygpt.model import checkpoint
from tinygpt.peft import _adapter, _mlx_lm, _open, _plain, _tgla
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
    loaded = checkpoint.load(_pieces.model_path(base))
    found = _open.load([where], loaded.model, base=loaded.path, force=force)
    for note in _open.told(found):
        if events is not None:
            events.note(note, "warning")
    wrappers: Mapping[str, Any] = _adapter.adapters(loaded.model)
    facts = {"out": str(out), "format": format, "technique": found[0].pick.name, "layers": len(wrappers)}
    if format == "peft":
        _adapter.save_adapter(out, loaded.model, found[0].pick, base=loaded.path)
        return facts
    plain = _plain.plain(found[0].pick, wrappers)
    facts |= {"rank": plain.rank, "scale": plain.scale}
    if format == "mlx":
        _mlx_lm.write(out, plain, loaded.path, loaded.config.num_hidden_layers)
    else:
        sizes = {name: getattr(loaded.config, name) for name in _tgla.SIZES.values()}
        _tgla.write(out, plain, sizes)
    return facts
