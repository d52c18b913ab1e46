"""How much memory a training step will take, found before step 1.

What a step keeps between forward and backward pass depends on every slot of the model, on the device's
operators and on the order in which they run. So it is measured on a few rows, and the rest is arithmetic, for
activations grow with the rows of a part. A step peaks in one of two places:

    activations of a part (+ the sum of gradients when a step has several)      at the end of the forward pass
    gradients, as they came and clipped, new weights, new optimizer state       at the end of the step

both beside the weights and the optimizer's state from before the step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinygpt.core import backend
from tinygpt.core.backend import mx

if TYPE_CHECKING:
    from tinygpt.data.batch import Batch
    from tinygpt.train.update import Gradient

PROBE = 256  # tokens of a core's share that are enough: what is the same for any number of rows is then small


def step_bytes(updater: Gradient, batch: Batch) -> int:
    """Most bytes of arrays that are alive in a step on such batches, all that is held now included."""
    held = mx.get_active_memory()
    rows, length = batch.tokens.shape
    part = max(1, rows // updater.accumulate)
    lanes = len(backend.streams(part))
    probe = min(part, lanes * max(1, -(-PROBE // length)))
    weights = sum(w.nbytes for w in updater.weights.values())
    state = sum(s.nbytes for s in updater.optimizer_state.values())
    # Copies in a smaller compute dtype are as many for one row as for all.
    copies = sum(w.size for w in updater.weights.values()) * updater.dtype.size
    copies = 0 if updater.dtype == mx.float32 else copies
    taken = max(0, updater.backward_bytes(batch.rows(0, probe)) - copies)
    backward = copies + taken * part // probe + (weights if updater.accumulate > 1 else 0)
    update = 3 * weights + state
    return held + max(backward, update)
