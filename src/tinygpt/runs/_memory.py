"""What training takes of this machine's memory, asked before anything is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygpt.core import backend
from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.model import count
from tinygpt.model.config import ModelConfig
from tinygpt.train.memory import step_bytes

if TYPE_CHECKING:
    from tinygpt.data.batch import Batch
    from tinygpt.train.update import Gradient

CACHE = 32 << 20  # what MLX keeps of freed buffers on a CPU
MUCH = 0.8  # of the memory there is: beyond, other programs are pushed out


def refuse_too_large(
    model: ModelConfig | Any,
    rows: int,
    context: int,
    dtype: str = "auto",
    *,
    whole: bool = True,
    recompute: bool = False,
) -> None:
    """ConfigError when a step takes more memory than there is, which is asked before anything is built.

    The estimate is a fifth to a half of what is really taken, so that nothing that fits is refused. Where not
    the `whole` model learns, one layer may be all that the backward pass goes through; with `recompute`
    blocks keep their input alone."""
    if not isinstance(model, ModelConfig):
        return  # nothing is known of a foreign architecture; the first step is measured before it is taken
    dtype = backend.compute_dtype(dtype)
    least = count.activation_bytes(model, rows, context, dtype=dtype, recompute=recompute)
    least = least + count.state_bytes(model) if whole else least // model.num_hidden_layers
    if least > (there := backend.memory()):
        raise ConfigError(
            f"training this model on {rows} rows of {context} tokens at once needs at least "
            f"{least // 10**9:,} GB of memory, this machine has {there // 10**9:,}",
            hint="choose a smaller model, a shorter --context or fewer rows (--batch, --accumulate)",
        )


def expected(updater: Gradient, batch: Batch, events: Events) -> int:
    """Bytes that a run of such steps will take, as `backend.memory_peak` counts them; a note warns of too
    many."""
    before, held = backend.memory_peak(), mx.get_active_memory()
    step = step_bytes(updater, batch)
    # On a CPU the process is counted, with its libraries and what it read; on a GPU the arrays are.
    found = before + step - held + min(CACHE, step) if backend.on_cpu() else step
    if found > MUCH * (there := backend.memory()):
        events.note(
            f"this run will take about {found / 1e9:.1f} GB, this machine has {there / 1e9:.1f}: it may be "
            "slow, or be killed; choose fewer rows (--batch, --accumulate), a shorter --context or a smaller "
            "model",
            "warning",
        )
    return found
