"""Guard: spikes in loss or gradient norm, and values that are no numbers, are told, undone and skipped.

A step is a spike when its loss or the logarithm of its gradient norm exceeds `median + factor * sigma` of the
last `window` good steps, with `sigma = 1.4826 MAD` (the median absolute deviation, in units of a normal's
standard deviation) and a floor below it. Median and MAD do not move with the spikes themselves. Of normal
noise, the default of 6 sigma over 50 steps calls one value in 235,000 a spike, 8 sigma one in six million, 3
sigma one in 240 (12 million draws).

The bounds are known before the step, so the updater itself leaves out an update beyond them. What follows
when the mode is "on":

1. The update is not made: weights and optimizer are those before the step, and its batch is skipped.
2. Was it the batch, or did an earlier update do damage? The PROBES batches before the last good snapshot
   are read again. Where the mean loss on them has grown by more than a sigma since, weights and optimizer go
   back to that snapshot, one that CALM steps without a spike have confirmed. Numbers of steps and batches
   only grow, so what was read since then is skipped, and a resumed run meets the same.
3. Where that repeats, the learning rate is halved each time; after REPEATS returns the run gives up.

In the mode "warn" spikes are told and applied. A loss or gradient that is no finite number is never applied
in any mode. After HOPELESS steps in a row that were not applied, a run gives up.

Paper: Chowdhery et al. 2022 (PaLM), arXiv:2204.02311, section 5.1 (go back, skip the batches); OLMo et al.
2024, arXiv:2501.00656, and its code's SkipStepAdamW (skip what lies sigmas above the recent steps).
Differs: robust statistics instead of mean and deviation; going back is the second answer, not the first, and
not without a measurement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, Protocol, runtime_checkable

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError, TinyGPTError
from tinygpt.core.events import Events, RolledBack, Spike
from tinygpt.train.protocols import Tensors

PROBES = 3
CALM = 5
REPEATS = 3
HOPELESS = 10
LOWER = 0.5
NORMAL = 1.4826  # MAD of a normal distribution of deviation 1, inverted
# Least sigma: of the loss as a part of it and in nats, of the norm's logarithm. Late in training a loss may
# hardly vary for a while, and then any batch would be a spike.
LOSS_PART, LOSS_LEAST, NORM_LEAST = 0.02, 0.01, 0.1
NEVER = (math.inf, math.inf)
NOTHING = (-math.inf, -math.inf)  # limits of a step that is only to be measured
Again = Callable[[int], Mapping[str, float]]


@runtime_checkable
class Recoverable(Protocol):
    """An updater that leaves out a step beyond `limits` (loss, gradient norm), scales its learning rate, and
    can go back: `snapshot` is all that `rewind` needs to be in the same state again, bit for bit."""

    limits: tuple[float, float]
    lr_scale: float

    def snapshot(self) -> Tensors: ...

    def rewind(self, tensors: Mapping[str, mx.array]) -> None: ...


class Guard:
    """Watches the steps of one run. `mode` is "warn" or "on"; without `detect` only values that are no finite
    numbers count. `on` holds one more copy of weights and optimizer, two for CALM steps after a snapshot."""

    def __init__(self, mode: str, *, detect: bool = True, window: int = 50, factor: float = 6.0) -> None:
        if mode not in ("warn", "on"):
            raise ConfigError(f"a guard is 'warn' or 'on', not '{mode}'")
        if window < 10:
            raise ConfigError(f"--spike-window must be at least 10, got {window}")
        if not (math.isfinite(factor) and factor > 0):
            raise ConfigError(f"--spike-factor must be positive, got {factor:g}")
        self.acts, self.detect, self.window, self.factor = mode == "on", detect, window, factor
        self._losses: list[float] = []
        self._norms: list[float] = []  # logarithms
        self._last, self._told = 0, 0  # steps of the last spike, and of the last that was told
        self._recent: list[tuple[int, float]] = []  # the last good steps, with their losses
        self._returns, self._returned = 0, 0  # returns that did not help; step of the last one
        self.lr_scale = 1.0
        self.skipped: list[int] = []  # steps whose update was not made
        # By step: the good snapshot, then one that waits; and the good steps before each.
        self._held: dict[int, Tensors] = {}
        self._before: dict[int, list[tuple[int, float]]] = {}

    @property
    def limits(self) -> tuple[float, float]:
        """The largest loss and gradient norm that are no spike, in float32; infinite until the window is
        full."""
        if not self.detect or len(self._losses) < self.window:
            return NEVER
        loss, sigma = _spread(self._losses)
        loss += self.factor * max(sigma, LOSS_PART * abs(loss), LOSS_LEAST)
        norm, sigma = _spread(self._norms)
        norm += self.factor * max(sigma, NORM_LEAST)
        # Rounded as the updater reads them, so that both judge alike.
        both: Any = mx.array([loss, math.exp(min(norm, 80.0))], mx.float32).tolist()
        return both[0], both[1]

    def before(self, updater: Any, step: int) -> None:
        """Make ready for step number `step`: keep what may have to come back, set the bounds."""
        if not self.acts:
            return
        if not isinstance(updater, Recoverable):
            raise ConfigError(
                "this run's updater cannot go back to an earlier state", hint="use --auto-rollback warn"
            )
        done = step - 1
        newest = max(self._held, default=0)
        if done - newest >= CALM:
            self._held = {s: held for s, held in self._held.items() if s == newest}
        calm = not self._last or done - self._last >= CALM
        if calm and done > newest and done % (self.window // 2) == 0:
            self._held[done], self._before[done] = updater.snapshot(), list(self._recent)
            self._before = {s: steps for s, steps in self._before.items() if s in self._held}
        updater.limits, updater.lr_scale = self.limits, self.lr_scale

    def after(
        self, updater: Any, step: int, facts: Mapping[str, float], events: Events, again: Again
    ) -> None:
        """Judge the step that was taken, tell, and go back where that is due. again(step) takes the step of
        that number once more and returns its facts, under the limits that the updater has then."""
        loss, norm = facts["loss"], facts.get("grad_norm", 0.0)
        finite, limits = math.isfinite(loss) and math.isfinite(norm), self.limits
        spike = not finite or loss > limits[0] or norm > limits[1]
        if finite and not (spike and self.acts):
            self._losses = [*self._losses, loss][-self.window :]
            self._norms = [*self._norms, math.log(max(norm, 1e-30))][-self.window :]
            self._recent = [*self._recent, (step, loss)][-PROBES:]
        if not spike:
            return
        self._last = step
        applied = finite and not self.acts
        if not applied:
            self.skipped.append(step)
        if not applied or not self._told or step - self._told >= self.window // 2:
            self._told = step
            events.emit(
                Spike(step=step, loss=loss, grad_norm=norm, loss_limit=limits[0], grad_norm_limit=limits[1],
                      applied=applied)
            )  # fmt: skip
        if self.skipped[-HOPELESS:] == list(range(step - HOPELESS + 1, step + 1)):
            raise diverged(step, facts, f"the last {HOPELESS} steps were not applied")
        if self.acts and self._held:
            newest = max(self._held)
            if step - 1 - newest < CALM:  # it is not confirmed
                del self._held[newest]
            if self._held and self._damaged(updater, again):
                self._back(updater, step, facts, events)

    def _damaged(self, updater: Recoverable, again: Again) -> bool:
        """Whether the weights read the batches before the snapshot worse than at that time."""
        updater.limits = NOTHING
        was = self._before[max(self._held)]
        worse = sum(again(step)["loss"] - loss for step, loss in was) / len(was)
        middle, sigma = _spread(self._losses)
        return not worse <= max(sigma, LOSS_PART * abs(middle), LOSS_LEAST)

    def _back(self, updater: Recoverable, step: int, facts: Mapping[str, float], events: Events) -> None:
        near = self._returned and step - self._returned <= 2 * self.window
        self._returns, self._returned = self._returns + 1 if near else 1, step
        if self._returns > REPEATS:
            raise diverged(step, facts, f"returning to an earlier state did not help {REPEATS} times")
        if self._returns > 1:
            self.lr_scale *= LOWER
        ((to, tensors),) = self._held.items()
        updater.rewind(tensors)
        events.emit(RolledBack(step=step, to=to, lr_scale=self.lr_scale))

    def state(self) -> dict[str, Any]:
        """What a resumed run must know, as JSON; the snapshots are in `tensors`."""
        return {
            "losses": list(self._losses), "log_grad_norms": list(self._norms), "recent": list(self._recent),
            "before": {str(step): list(self._before[step]) for step in self._held},
            "last_spike": self._last, "last_told": self._told, "returns": self._returns,
            "last_return": self._returned, "lr_scale": self.lr_scale, "skipped": list(self.skipped),
        }  # fmt: skip

    def tensors(self) -> Tensors:
        """The snapshots held, as `STEP.NAME`."""
        return {f"{step}.{name}": value for step, held in self._held.items() for name, value in held.items()}

    def restore(self, state: Mapping[str, Any], tensors: Mapping[str, mx.array]) -> None:
        """Go on as the guard that wrote these."""
        self._losses, self._norms = list(state["losses"]), list(state["log_grad_norms"])
        self._recent = [(int(step), loss) for step, loss in state["recent"]]
        self._before = {
            int(at): [(int(step), loss) for step, loss in steps] for at, steps in state["before"].items()
        }
        self._last, self._told = state["last_spike"], state["last_told"]
        self._returns, self._returned = state["returns"], state["last_return"]
        self.lr_scale, self.skipped = state["lr_scale"], list(state["skipped"])
        held: dict[int, Tensors] = {}
        for name, value in tensors.items():
            step, _, rest = name.partition(".")
            held.setdefault(int(step), {})[rest] = value
        mx.eval(held)  # the file that they come from may be removed
        self._held = dict(sorted(held.items()))


def diverged(step: int, facts: Mapping[str, float], why: str = "") -> TinyGPTError:
    """The error of a run that cannot go on; its last checkpoint stays as it is."""
    return TinyGPTError(
        f"training diverged at step {step}: loss {facts['loss']}, gradient norm {facts.get('grad_norm')}"
        + (f"; {why}" if why else ""),
        hint="start again with a lower --lr or a longer warm-up",
    )


def _spread(values: list[float]) -> tuple[float, float]:
    """Median, and the deviation that a normal distribution of the same MAD has."""
    middle = median(values)
    return middle, NORMAL * median(abs(v - middle) for v in values)
