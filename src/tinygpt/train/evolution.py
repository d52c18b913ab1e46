"""Evolution strategies: learn from rewards alone, by trying random changes of all weights; no backward pass.

    g = 1 / (n sigma) sum_i F_i eps_i,   eps_i ~ N(0, 1),   F_i the reward at w + sigma eps_i

estimates the gradient of the reward, smoothed with width sigma; the optimizer then steps along it. The reward
may be anything that can be computed, such as whether an answer that was written is right. Every eps is tried
with both signs (antithetic pairs), so that it is weighed by a difference; F is the reward's centered rank
within the population (-0.5 the worst, 0.5 the best), so that one wild reward cannot rule a step.

Only rewards and seeds are kept: a tensor's noise is made again from (seed, step, pair, name) wherever it is
needed. It is added to the weights in place and taken off again, one tensor after another, so that there is
one model and one tensor more (two while the step is taken), and nothing of what backward passes and moments
would hold. Taking off is exact: each tensor's weights and noise are rounded to a grid of 2^-23 of its largest
value, on which float32 sums lose nothing.

Paper: Salimans et al. 2017, arXiv:1703.03864 (algorithm 1, sections 2.1 and 2.2); antithetic pairs: Geweke
1988; noise from seeds in place: Malladi et al. 2023, arXiv:2305.17333 (MeZO), algorithm 1.
Differs: the workers are one machine; equal rewards share the mean of their ranks, so that noise among equals
moves nothing; noise is fresh, not read from a shared table, and ends at 6 sigma; the grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mlx.utils import tree_unflatten

from tinygpt.core import backend
from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError, TinyGPTError
from tinygpt.model.seeds import key_of
from tinygpt.model.terms import MEASURE, adjust
from tinygpt.train.protocols import Objective, Optimizer, Refreshing, Tensors
from tinygpt.train.state import fits, in_parts, masters

if TYPE_CHECKING:
    from tinygpt.data.batch import Batch

Reward = Callable[["Batch", int], float]
"""reward(batch, step): how good the objective's module is as it stands; larger is better. One with `told()`
gives the figures of what it has judged since it was last asked."""
REACH = 6.0  # standard deviations at which noise ends: the grid must know
TOTAL, COUNT = "@total", "@count"  # of a loss, beside what is told of it
DIGITS = 23  # bits of a weight on its tensor's grid, one fewer than float32 has


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of evolution strategies."""

    population: Annotated[int, "Changed models that are tried in a step; even, they come in pairs."] = 40
    sigma: Annotated[float, "Standard deviation of the changes."] = 0.02
    shaping: Annotated[
        Literal["ranks", "none"], "What weighs a change: its reward's centered rank, or the reward itself."
    ] = "ranks"

    def __post_init__(self) -> None:
        if self.population < 2 or self.population % 2:
            raise ConfigError(f"--population must be even and at least 2, got {self.population}")
        if not 0 < self.sigma < math.inf:
            raise ConfigError(f"--sigma must be positive, got {self.sigma}")


def centered_ranks(rewards: Sequence[float]) -> list[float]:
    """The rank of each reward, from -0.5 for the worst to 0.5 for the best; equal ones share their mean."""
    ordered = sorted(rewards)
    first = {reward: i for i, reward in reversed(list(enumerate(ordered)))}
    last = {reward: i for i, reward in enumerate(ordered)}
    return [(first[reward] + last[reward]) / 2 / (len(rewards) - 1) - 0.5 for reward in rewards]


class Evolution:
    """Evolution strategies on what an objective's module learns.

    A change is rewarded with minus the objective's loss on the batch, or with what `reward` says of the
    module that holds it. The other arguments are `Gradient`'s; `seed` decides the noise."""

    def __init__(
        self,
        objective: Objective,
        optimizer: Optimizer,
        schedule: Callable[[int], float],
        config: Config,
        *,
        seed: int,
        reward: Reward | None = None,
        accumulate: int = 1,
        clip: float = 0.0,
        dtype: str = "float32",
        compiled: bool = True,
    ) -> None:
        if isinstance(optimizer, Refreshing):
            raise ConfigError(
                "this optimizer reads all gradients at once, which evolution strategies never hold",
                hint="choose another --optimizer, as sgd or adamw",
            )
        self.objective, self.optimizer, self.schedule, self.config = objective, optimizer, schedule, config
        self.seed, self.reward, self.accumulate, self.clip = seed, reward, accumulate, clip
        self.dtype = getattr(mx, dtype)
        self._take_weights()
        self.optimizer_state = optimizer.init(self.weights)
        wrap: Callable[[Any], Any] = backend.compile if compiled else (lambda f: f)
        self._forward, self._shift, self._add = wrap(self._losses), wrap(shifted), wrap(added)

    def step(self, batch: Batch, step: int) -> dict[str, float]:
        """Take step number `step` (from 1). The facts are the loss before the step, lr, grad_norm of the
        estimate, mean and spread of the rewards, and the objective's own numbers."""
        lr = self.schedule(step)
        found = self._measure(batch)
        facts = {name: float(value.item()) for name, value in found.items() if not name.startswith(MEASURE)}
        facts |= {"lr": lr, "grad_norm": 0.0}
        if not math.isfinite(facts["loss"]):
            return facts  # nothing to compare: the loop says so
        measures = {n.removeprefix(MEASURE): v for n, v in found.items() if n.startswith(MEASURE)}
        names = [name for name in self.weights if name not in measures]
        grid = self._to_grid(names)
        rewards: list[float] = []
        for pair in range(self.config.population // 2):
            rewards += self._try(batch, step, pair, grid)
        kept = [r for r in rewards if math.isfinite(r)]
        if not kept:
            raise TinyGPTError(f"no change tried in step {step} has a finite reward", hint="lower --sigma")
        mean = math.fsum(kept) / len(kept)
        facts |= {
            "reward": mean,
            "reward_std": math.sqrt(math.fsum((r - mean) ** 2 for r in kept) / len(kept)),
        }
        facts |= getattr(self.reward, "told", dict[str, float])()
        shares, factor = self.shares(rewards), 1.0
        if self.clip:
            squares = (self._estimate(step, group, shares)[1] for group in self._groups(names))
            factor = min(1.0, self.clip / (math.sqrt(math.fsum(squares)) + 1e-6))
        shares = [factor * share for share in shares]
        squares = [self._apply(step, group, shares, lr) for group in self._groups(names)]
        self._put(adjust(self.objective.module, dict(self.weights), measures))
        return facts | {"grad_norm": math.sqrt(math.fsum(squares)) / factor}

    def shares(self, rewards: Sequence[float]) -> list[float]:
        """What each pair's noise is multiplied by in the estimate of the loss's gradient:
        (F- - F+) / (n sigma). A reward that is no number counts as the worst."""
        worst = min(r for r in rewards if math.isfinite(r))
        finite = [r if math.isfinite(r) else worst for r in rewards]
        shaped = centered_ranks(finite) if self.config.shaping == "ranks" else finite
        scale = 1 / (self.config.population * self.config.sigma)
        return [(minus - plus) * scale for plus, minus in zip(shaped[::2], shaped[1::2], strict=True)]

    def key(self, step: int, pair: int, name: str) -> mx.array:
        """The key of a tensor's noise."""
        return key_of(self.seed, "es", step, pair, name)

    # Trying changes

    def _try(self, batch: Batch, step: int, pair: int, grid: Mapping[str, float]) -> list[float]:
        """The rewards of w + sigma eps and w - sigma eps; the weights are what they were, to the bit."""
        rewards, at = list[float](), 0
        try:
            for side in (1, -1):
                self._move(step, pair, side - at, grid)
                at = side
                rewards.append(self._reward(batch, step))
        finally:
            self._move(step, pair, -at, grid)
        return rewards

    def _move(self, step: int, pair: int, times: int, grid: Mapping[str, float]) -> None:
        """Add `times` the noise of a pair to the weights, a few tensors after another."""
        for group in self._groups(grid):
            new: Tensors = {}
            for name, lane in lanes(group):
                with mx.stream(lane):
                    spacing = grid[name]
                    scalars = mx.array(self.config.sigma / spacing), mx.array(times * spacing)
                    new[name] = self._shift(self.weights[name], self.key(step, pair, name), *scalars)
            self._put(new)

    def _to_grid(self, names: Sequence[str]) -> dict[str, float]:
        """Round the weights to their grids; the spacing of each."""
        grid: dict[str, float] = {}
        for group in self._groups(names):
            largest = {name: self.weights[name].abs().max() for name in group}
            mx.eval(largest)
            for name in group:
                # A power of two with weights and changed weights below 2^DIGITS times it.
                bound = float(largest[name].item()) + REACH * self.config.sigma
                grid[name] = math.ldexp(1.0, math.frexp(bound)[1] - DIGITS)
            self._put({n: mx.round(self.weights[n] / grid[n]) * grid[n] for n in group})
        return grid

    def _reward(self, batch: Batch, step: int) -> float:
        if self.reward is None:
            return -float(self._measure(batch)[TOTAL].item())
        self.objective.module.update(tree_unflatten(self._cast(self.weights)))
        try:
            return self.reward(batch, step)
        finally:
            self.objective.module.update(tree_unflatten(list(self.weights.items())))

    def _measure(self, batch: Batch) -> Tensors:
        """What is made smaller, as TOTAL, and the objective's numbers, of the weights as they are."""
        sums: Tensors = {}
        with backend.shards(backend.streams(batch.tokens.shape[0] // self.accumulate)):
            for part in in_parts(batch, self.accumulate):
                found = self._forward(self.weights, part)
                sums = {name: sums.get(name, mx.array(0.0)) + value for name, value in found.items()}
                mx.eval(sums)  # frees this part's activations before the next one is built
        self.objective.module.update(tree_unflatten(list(self.weights.items())))
        count = mx.maximum(sums.pop(COUNT), 1.0)
        return {name: value / count for name, value in sums.items()}

    def _losses(self, weights: Tensors, batch: Tensors) -> Tensors:
        """The loss and the objective's numbers times COUNT, what they are means over; on CPUs each core takes
        some rows."""
        streams = backend.streams(next(iter(batch.values())).shape[0])
        sums: Tensors = {}
        for i, stream in enumerate(streams):
            with mx.stream(stream):
                part = {name: value[i :: len(streams)] for name, value in batch.items()}
                self.objective.module.update(tree_unflatten(self._cast(weights)))
                loss, facts = self.objective.loss(part)
                count = self.objective.weights(part).sum()
                found = {name: value * count for name, value in {TOTAL: loss, "loss": loss, **facts}.items()}
                found[COUNT] = count
            sums = {name: sums[name] + value if sums else value for name, value in found.items()}
        return sums

    def _cast(self, weights: Tensors) -> list[tuple[str, mx.array]]:
        return [(name, w.astype(self.dtype)) for name, w in weights.items()]

    # Taking the step

    def _estimate(self, step: int, group: Sequence[str], shares: Sequence[float]) -> tuple[Tensors, float]:
        """The gradient of the loss by the tensors of a group, from the pairs' noise, made again and added up;
        and the sum of its squares."""
        sums = {name: mx.zeros(self.weights[name].shape) for name in group}
        for pair, share in enumerate(shares):
            for name, lane in lanes(group):
                with mx.stream(lane):
                    sums[name] = self._add(sums[name], self.key(step, pair, name), mx.array(share))
            mx.eval(sums)
        return sums, math.fsum(float(g.square().sum().item()) for g in sums.values())

    def _apply(self, step: int, group: Sequence[str], shares: Sequence[float], lr: float) -> float:
        """Step a group along its estimate, whose sum of squares is returned."""
        gradients, square = self._estimate(step, group, shares)
        weights = {name: self.weights[name] for name in group}
        scalars = mx.array(lr, mx.float32), mx.array(step, mx.float32)
        new, state = self.optimizer.apply(weights, gradients, self.optimizer_state, *scalars)
        mx.eval(new, state)
        self.optimizer_state |= state
        self._put(new)
        return square

    def _groups(self, names: Sequence[str] | Mapping[str, float]) -> Iterator[list[str]]:
        """Names in order, as many at a time as weigh no more than the largest tensor."""
        most = max(w.nbytes for w in self.weights.values())
        group, room = list[str](), most
        for name in names:
            if group and self.weights[name].nbytes > room:
                yield group
                group, room = [], most
            group.append(name)
            room -= self.weights[name].nbytes
        if group:
            yield group

    # What is learned and kept

    def _put(self, new: Tensors) -> None:
        """Make these the weights, here and in the module, so that nothing holds the old ones."""
        mx.eval(new)
        self.weights |= new
        self.objective.module.update(tree_unflatten(list(new.items())))

    def _take_weights(self) -> None:
        """What learns, in float32 whatever the file's dtype was."""
        self.weights: Tensors = masters(self.objective.module)
        self._put(dict(self.weights))

    def state(self) -> Tensors:
        """The optimizer's tensors, for a resumable checkpoint; the noise needs none."""
        return dict(self.optimizer_state)

    def restore(self, tensors: Mapping[str, mx.array]) -> None:
        """Take back the optimizer's tensors; the weights must be in the module already."""
        fits(self.optimizer_state, tensors)
        self._take_weights()
        self.optimizer_state = dict(tensors)
        mx.eval(self.optimizer_state)


def lanes(names: Sequence[str]) -> Iterator[tuple[str, mx.Stream]]:
    """Each name with the stream it is worked on."""
    streams = backend.streams(len(names))
    return ((name, streams[i % len(streams)]) for i, name in enumerate(names))


def noise(key: mx.array, shape: Sequence[int]) -> mx.array:
    """eps of one tensor."""
    return mx.clip(mx.random.normal(tuple(shape), key=key), -REACH, REACH)


def shifted(weight: mx.array, key: mx.array, steps: mx.array, spacing: mx.array) -> mx.array:
    """w + times sigma eps on a grid: `steps` is sigma in units of the grid, `spacing` the grid's by `times`.

    Every product and sum here is exact but the one inside the rounding, which is the same each time."""
    return weight + mx.round(noise(key, weight.shape) * steps) * spacing


def added(total: mx.array, key: mx.array, share: mx.array) -> mx.array:
    """The sum with one more pair."""
    return total + share * noise(key, total.shape)
