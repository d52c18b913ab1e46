"""What a run learns: a whole model, or an adapter on its base; how a checkpoint of it is written and read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.core.config import Pick
from tinygpt.model import checkpoint
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
    carried: bool = False,
) -> tuple[Write, Resume]:
    """write(path, **parts), which saves what is learned, and resume(path), which puts it back.

    That is the model, or the `adapter` that is put on it here, drawn from `seed`, and that `base` carries;
    with `carried` the model has it already.
    ConfigError where the adapter does not fit the model."""
    if adapter is None:

        def write_model(path: Path, **parts: Any) -> Path:
            ids, stop_ids = _pieces.ids(tokenizer), tokenizer.stop_ids
            return checkpoint.save(
                path, model, write_tokenizer=tokenizer.save, ids=ids, stop_ids=stop_ids, **parts
            )

        def resume_model(path: Path) -> None:
            checkpoint.fill(model, checkpoint.load(path).tensors(), str(path))

        return write_model, resume_model
    assert base is not None
    check = None if carried else getattr(_adapter.PEFT.load(adapter.name), "check", None)
    if check is not None:
        check(adapter.options, _adapter.chosen(model, adapter.options.targets))
    if not carried:
        _adapter.attach(model, adapter, seed=seed)

    def write_adapter(path: Path, **parts: Any) -> Path:
        return _adapter.save_adapter(path, model, adapter, base=base, write_tokenizer=tokenizer.save, **parts)

    def resume_adapter(path: Path) -> None:
        _adapter.fill(model, checkpoint.read_tensors(path, "adapter_model"), str(path))

    return write_adapter, resume_adapter
