"""What a run learns: a whole model, or an adapter on its base; how a checkpoint of it is written and read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.core.config import Pick, to_dict
from tinygpt.core.errors import ConfigError
from tinygpt.model import checkpoint, quantized
from tinygpt.peft import _adapter
from tinygpt.runs import _pieces

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.model.lm import LM

Write = Callable[..., Path]
Resume = Callable[[Path], None]


def learned(
    model: LM,
    tokenizer: Tokenizer,
    *,
    base: Path | None = None,
    adapter: Pick | None = None,
    seed: int = 0,
    packing: quantized.Packing | None = None,
    carried: bool = False,
) -> tuple[Write, Resume]:
    """write(path, **parts), which saves what is learned, and resume(path), which puts it back.

    That is the model, or the `adapter` that is put on it here, drawn from `seed`, and that `base` carries;
    `packing` is how the base was packed as it was read, and with `carried` the model has its adapter already.
    ConfigError where the adapter does not fit the model, or where the whole model cannot learn."""
    if adapter is None:
        _refuse_whole(model)

        def write_model(path: Path, **parts: Any) -> Path:
            ids, stop_ids = _pieces.ids(tokenizer), tokenizer.stop_ids
            return checkpoint.save(
                path, model, write_tokenizer=tokenizer.save, ids=ids, stop_ids=stop_ids, **parts
            )

        def resume_model(path: Path) -> None:
            checkpoint.fill(model, checkpoint.load(path).tensors(), str(path))

        return write_model, resume_model
    assert base is not None
    if not carried:
        if check := getattr(_adapter.PEFT.load(adapter.name), "check", None):
            check(adapter.options, _adapter.picked(model, adapter))
        _adapter.attach(model, adapter, seed=seed)

    def write_adapter(path: Path, **parts: Any) -> Path:
        how = {_pieces.PACKED: to_dict(packing)} if packing is not None else {}
        return _adapter.save_adapter(
            path, model, adapter, base=base, write_tokenizer=tokenizer.save, **how, **parts
        )

    def resume_adapter(path: Path) -> None:
        _adapter.fill(model, checkpoint.read_tensors(path, "adapter_model"), str(path))

    return write_adapter, resume_adapter


def _refuse_whole(model: Any) -> None:
    """ConfigError where not all weights can learn, or be saved as a model of ours."""
    hint = "learn an adapter on it: sft with --adapter lora, without --full"
    if quantized.packed(model):
        raise ConfigError("the base is quantized, and packed weights do not learn", hint=hint)
    if not getattr(model, "packs", True):
        raise ConfigError(
            f"a {model.config.model_type} is run by mlx_lm, and tinygpt has no way to save one", hint=hint
        )
