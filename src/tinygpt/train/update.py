"""Updaters turn a batch into a change of weights.

Gradient: backward pass, accumulation, global clip, optimizer.

Weights live in float32 (master copies); with a smaller compute dtype they are cast inside the loss, so
gradients arrive in float32 and tiny updates are never lost. The step is one compiled function on explicit
state: weights and optimizer tensors go in and come out, the learning rate and the step number are arrays, so
a single trace serves the whole run. A step whose loss or gradient norm is no finite number, or beyond the
`limits` that a guard sets, changes nothing."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

from mlx.utils import tree_unflatten

from tinygpt.core import backend
from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.model.noise import row_keys
from tinygpt.model.seeds import key_of
from tinygpt.model.terms import MEASURE, adjust
from tinygpt.train import survey
from tinygpt.train.groups import Group, alike
from tinygpt.train.objective._drawn import DRAWS
from tinygpt.train.protocols import (
    Drawing,
    Objective,
    Optimizer,
    Refreshing,
    Seen,
    Settling,
    Surveying,
    Tensors,
    Transform,
)
from tinygpt.train.state import arrays, fits, in_parts, masters
from tinygpt.train.world import World

if TYPE_CHECKING:
    from tinygpt.data.batch import Batch

Rewrite = Callable[["Batch", int], "Batch"]
REFRESHED = "refreshed"  # among the optimizer's tensors that are saved


class Gradient:
    """Gradient descent on an objective.

    schedule(step) gives the learning rate of step 1, 2, ...; `accumulate` splits a batch's rows into that
    many parts whose gradients are weighted by their learned tokens, so that 8 parts equal one batch of 8;
    `clip` bounds the global norm (0: off). `seed` is of the draws that some optimizers need. `groups` says by
    a tensor's name what its learning rate is multiplied by, and whether it decays: what does not is moved by
    `undecayed`, the same optimizer without decay. Of several processes (`world`) each takes its part of the
    rows. Where the module wants noise, every row gets a key of it from (seed, step, the row's number in the
    whole batch), so no way of splitting a batch changes the noise. transform(name, weight) is what the
    forward pass reads instead of a weight, with its own gradient. rewrite(batch, step) is the batch that a
    step learns from, where the model as it stands has a part in it. `limits` bound the loss and the gradient
    norm of a step that is to count, `lr_scale` is a factor on all rates: a guard sets both. A refresh that
    was due at a step which did not count is made at the next one that does."""

    def __init__(
        self,
        objective: Objective,
        optimizer: Optimizer,
        schedule: Callable[[int], float],
        *,
        accumulate: int = 1,
        clip: float = 1.0,
        dtype: str = "float32",
        compiled: bool = True,
        seed: int = 0,
        groups: Callable[[str], Group] = alike,
        undecayed: Optimizer | None = None,
        world: World | None = None,
        transform: Transform | None = None,
        rewrite: Rewrite | None = None,
    ) -> None:
        self.limits, self.lr_scale = (math.inf, math.inf), 1.0
        self.transform, self.rewrite = transform, rewrite
        self.objective, self.optimizer, self.schedule = objective, optimizer, schedule
        self.world = world or World()
        self.accumulate, self.clip = accumulate, clip
        self.seed, self.undecayed = seed, undecayed or optimizer
        self.dtype = getattr(mx, dtype)
        self.weights = masters(objective.module)
        self.groups = {name: groups(name) for name in self.weights}
        self.rates = sorted({group.rate for group in self.groups.values()})
        self.optimizer_state = optimizer.init(self.weights)
        self.refreshed = 0  # step of the last refresh
        wrap: Callable[[Any], Any] = backend.compile if compiled else (lambda f: f)
        self._whole, self._part, self._finish, self._look = (
            wrap(self._whole_step),
            wrap(self._add_part),
            wrap(self._apply),
            wrap(self._survey),
        )

    def step(self, batch: Batch, step: int) -> dict[str, float]:
        """Take step number `step` (from 1) and return loss, lr, grad_norm and the objective's own numbers."""
        batch = self.rewrite(batch, step) if self.rewrite is not None else batch
        lr = self.lr_scale * self.schedule(step)
        # A rate that is a number in the trace would have kernels of its own: several are one array.
        rates = mx.array([lr * rate for rate in self.rates], mx.float32)
        rate = rates[0] if self.rates == [1.0] else rates
        scalars = rate, mx.array(step, mx.float32), mx.array(self.limits, mx.float32)
        due, spread = self._due(step), batch.tokens.shape[0]
        if self.accumulate == 1 and due is None and self.world.size == 1:
            given = arrays(batch) | self._keys(step, spread)
            self._surveyed([given])
            changed, facts = self._whole(self.weights, self.optimizer_state, given, *scalars)
        else:
            changed, facts = self._accumulated(batch, step, *scalars, due)
            spread = len(self.weights)  # what is left to do goes by tensors, not by rows
        self._take(changed)
        if isinstance(self.optimizer, Settling) and self.optimizer.settles(step):
            self._take([self.optimizer.settle(self.weights, self.optimizer_state, step)])
        self.objective.module.update(tree_unflatten(list(self.weights.items())))
        with backend.shards(backend.streams(spread)):
            mx.eval(self.weights, self.optimizer_state, facts)
        return {name: float(value.item()) for name, value in facts.items()} | {"lr": lr}

    def backward_bytes(self, batch: Batch) -> int:
        """Bytes of arrays that forward and backward pass of these rows take beside what is held, measured.

        Gradients are summed as they come, so these are the activations; nothing is changed or drawn."""
        given = arrays(batch)
        mx.eval(given)
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        with backend.shards(backend.streams(batch.tokens.shape[0])):
            gradients, facts = self._gradients(self.weights, given)
            mx.eval([g.sum() for g in gradients.values()], facts)
        self.objective.module.update(tree_unflatten(list(self.weights.items())))
        return mx.get_peak_memory() - before

    def _keys(self, step: int, rows: int) -> Tensors:
        """The keys of this process's rows, when the module has any use for them."""
        if not getattr(self.objective.module, "noise", None):
            return {}
        return {"keys": row_keys(self.seed, step, rows * self.world.size)[self.world.rank * rows :][:rows]}

    def _surveyed(self, parts: list[Tensors]) -> None:
        """Give the parts what their loss must know of the whole batch, where it must."""
        if isinstance(self.objective, Surveying):
            survey.add(parts, lambda part: self._look(self.weights, part), self.world)

    def _survey(self, weights: Tensors, batch: Tensors) -> Tensors:
        assert isinstance(self.objective, Surveying)
        self._read(weights)
        return survey.sums(self.objective.survey, batch)

    def _take(self, changed: list[tuple[Tensors, Tensors]]) -> None:
        """Make the lanes' results the state, in the order that the tensors had: a trace depends on it."""
        weights = {name: w for new, _ in changed for name, w in new.items()}
        state = {name: w for _, new in changed for name, w in new.items()}
        self.weights = {name: weights[name] for name in self.weights}
        self.optimizer_state = {name: state[name] for name in self.optimizer_state}

    def _due(self, step: int) -> Refreshing | None:
        """The optimizer, where a refresh is due at this step, or was since the last that was made."""
        optimizer = self.optimizer
        if not isinstance(optimizer, Refreshing):
            return None
        return optimizer if any(optimizer.due(n) for n in range(self.refreshed + 1, step + 1)) else None

    def _accumulated(
        self,
        batch: Batch,
        number: int,
        lr: mx.array,
        step: mx.array,
        limits: mx.array,
        due: Refreshing | None,
    ) -> tuple[list[tuple[Tensors, Tensors]], Tensors]:
        batch = self.world.share(batch)
        parts, rows = in_parts(batch, self.accumulate), batch.tokens.shape[0]
        size = rows // self.accumulate
        for name, value in self._keys(number, rows).items():
            for i, part in enumerate(parts):
                part[name] = value[i * size :][:size]
        self._surveyed(parts)
        sums, facts, total = self._mean(parts)
        state = self.optimizer_state
        if due is not None and _counts(facts["loss"], _norm(sums), limits).item():
            seen = Seen(
                gradients=sums, tokens=total, key=key_of(self.seed, number, "refresh"),
                drawn=lambda: self.drawn(parts, size, number),
            )  # fmt: skip
            state, self.refreshed = due.refresh(state, seen), number
        changed, norm = self._finish(self.weights, sums, state, lr, step, facts["loss"], limits)
        return self._adjusted(changed, facts | {"grad_norm": norm}, limits)

    def _mean(self, parts: list[Tensors]) -> tuple[Tensors, Tensors, mx.array]:
        """(gradients of the mean loss over all parts, the objective's numbers, what the mean is over)."""
        totals = [self.objective.weights(part).sum() for part in parts]
        whole = self.world.sum({"total": sum(totals[1:], totals[0])})["total"]
        total = mx.maximum(whole, 1.0)
        sums: Tensors = {name: mx.zeros(w.shape) for name, w in self.weights.items()}
        facts: Tensors = {}
        with backend.shards(backend.streams(parts[0]["tokens"].shape[0])):
            for part, weight in zip(parts, totals):
                sums, share = self._part(self.weights, sums, part, weight / total)
                facts = {name: facts.get(name, mx.array(0.0)) + value for name, value in share.items()}
                mx.eval(sums, facts)  # frees this part's activations before the next one is built
        return self.world.sum(sums), self.world.sum(facts), total

    def drawn(self, parts: list[Tensors], size: int, step: int) -> Tensors:
        """Gradients of the mean loss at targets that the model draws, each row with a key of its own, so that
        they are the same however the rows are split."""
        if not isinstance(self.objective, Drawing):
            raise ConfigError(
                "this optimizer estimates curvature from drawn targets, and this objective has none",
                hint="use another --optimizer",
            )
        n = size * len(parts)
        keys = mx.random.split(key_of(self.seed, step, "targets"), n * self.world.size)
        keys = keys[self.world.rank * n :]
        return self._mean([{**part, DRAWS: keys[i * size :][:size]} for i, part in enumerate(parts)])[0]

    def _gradients(self, weights: Tensors, batch: Tensors) -> tuple[Tensors, Tensors]:
        """Gradients of the mean loss and the objective's numbers; on CPUs each core takes some rows."""
        lanes = backend.streams(next(iter(batch.values())).shape[0])
        if len(lanes) == 1:
            return self._backward(weights, batch)
        parts = [{name: value[i :: len(lanes)] for name, value in batch.items()} for i in range(len(lanes))]
        totals = [self.objective.weights(part).sum() for part in parts]
        total = mx.maximum(sum(totals[1:], totals[0]), 1.0)
        found = []
        for lane, part, weight in zip(lanes, parts, totals):
            with mx.stream(lane):
                share = weight / total
                gradients, facts = self._backward(weights, part)
                found.append(
                    ({n: g * share for n, g in gradients.items()}, {n: f * share for n, f in facts.items()})
                )
        gradients, facts = found[0]
        for more_gradients, more_facts in found[1:]:
            gradients = {name: g + more_gradients[name] for name, g in gradients.items()}
            facts = {name: f + more_facts[name] for name, f in facts.items()}
        return gradients, facts

    def _backward(self, weights: Tensors, batch: Tensors) -> tuple[Tensors, Tensors]:
        def loss(weights: Tensors) -> tuple[mx.array, dict[str, mx.array]]:
            self._read(weights)
            if DRAWS in batch and isinstance(self.objective, Drawing):
                return self.objective.drawn(batch), {}
            return self.objective.loss(batch)

        (value, facts), gradients = mx.value_and_grad(loss)(weights)
        return gradients, {"loss": value, **facts}

    def _read(self, weights: Tensors) -> None:
        """Put what forward passes read into the module: weights in the compute dtype, or what stands for
        them."""
        read = self.transform or (lambda _, w: w)
        cast = [(name, read(name, w).astype(self.dtype)) for name, w in weights.items()]
        self.objective.module.update(tree_unflatten(cast))

    def _add_part(
        self, weights: Tensors, sums: Tensors, batch: Tensors, share: mx.array
    ) -> tuple[Tensors, Tensors]:
        gradients, facts = self._gradients(weights, batch)
        added = {name: sums[name] + share * g for name, g in gradients.items()}
        return added, {name: share * value for name, value in facts.items()}

    def _apply(
        self,
        weights: Tensors,
        gradients: Tensors,
        state: Tensors,
        lr: mx.array,
        step: mx.array,
        loss: mx.array,
        limits: mx.array,
    ) -> tuple[list[tuple[Tensors, Tensors]], mx.array]:
        norm = _norm(gradients)
        counts = _counts(loss, norm, limits)
        if self.clip:
            factor = mx.minimum(1.0, self.clip / (norm + 1e-6))
            gradients = {name: g * factor for name, g in gradients.items()}
        names = list(weights)
        lanes = backend.streams(len(names))
        found = []
        for i, lane in enumerate(lanes):
            with mx.stream(lane):
                mine: dict[Group, Tensors] = {}
                for name in names[i :: len(lanes)]:
                    mine.setdefault(self.groups[name], {})[name] = weights[name]
                for group, members in mine.items():
                    optimizer = self.optimizer if group.decay else self.undecayed
                    rate = lr[self.rates.index(group.rate)] if lr.ndim else lr
                    found.append(optimizer.apply(members, gradients, state, rate, step))
        return [
            (_where(counts, new, weights), _where(counts, moved, state)) for new, moved in _added(found)
        ], norm

    def _whole_step(
        self,
        weights: Tensors,
        state: Tensors,
        batch: Tensors,
        lr: mx.array,
        step: mx.array,
        limits: mx.array,
    ) -> tuple[list[tuple[Tensors, Tensors]], Tensors]:
        gradients, facts = self._gradients(weights, batch)
        changed, norm = self._apply(weights, gradients, state, lr, step, facts["loss"], limits)
        return self._adjusted(changed, facts | {"grad_norm": norm}, limits)

    def _adjusted(
        self, changed: list[tuple[Tensors, Tensors]], facts: Tensors, limits: mx.array
    ) -> tuple[list[tuple[Tensors, Tensors]], Tensors]:
        """Move what is moved by measures, not by gradients, and keep these out of what is told."""
        measures = {n.removeprefix(MEASURE): v for n, v in facts.items() if n.startswith(MEASURE)}
        if measures:
            counts = _counts(facts["loss"], facts["grad_norm"], limits)
            changed = [
                (_where(counts, adjust(self.objective.module, new, measures), new), state)
                for new, state in changed
            ]
        return changed, {n: v for n, v in facts.items() if not n.startswith(MEASURE)}

    def state(self) -> Tensors:
        """The optimizer's tensors, for a resumable checkpoint, and the step of its last refresh."""
        told = {REFRESHED: mx.array(self.refreshed)} if isinstance(self.optimizer, Refreshing) else {}
        return self.optimizer_state | told

    def follow(self) -> None:
        """Begin with rank 0's weights and optimizer state, where there are several ranks."""
        if self.world.size == 1:
            return
        self.weights = self.world.spread(self.weights)
        self.optimizer_state = self.world.spread(self.optimizer_state)
        self.refreshed = int(self.world.spread({REFRESHED: mx.array(self.refreshed)})[REFRESHED].item())
        self.objective.module.update(tree_unflatten(list(self.weights.items())))

    def snapshot(self) -> Tensors:
        """Weights and optimizer as they are now; costs nothing until the next step."""
        named = (("weights", self.weights), ("optimizer", self.state()))
        return {f"{part}.{name}": value for part, held in named for name, value in held.items()}

    def rewind(self, tensors: Mapping[str, mx.array]) -> None:
        """Be as at a snapshot, bit for bit."""
        self.weights = {name: tensors[f"weights.{name}"] for name in self.weights}
        held = {n.removeprefix("optimizer."): t for n, t in tensors.items() if n.startswith("optimizer.")}
        self._take_back(held)
        self.objective.module.update(tree_unflatten(list(self.weights.items())))

    @contextlib.contextmanager
    def reading(self) -> Generator[None]:
        """Within, the module holds what forward passes read where that is not the weights that learn."""
        if self.transform is None:
            yield
            return
        read = [(name, self.transform(name, w)) for name, w in self.weights.items()]
        self.objective.module.update(tree_unflatten(read))
        try:
            yield
        finally:
            self.objective.module.update(tree_unflatten(list(self.weights.items())))

    def restore(self, tensors: Mapping[str, mx.array]) -> None:
        """Take back the optimizer's tensors; the weights must be in the module already."""
        self._take_back(tensors)
        self.weights = masters(self.objective.module)
        mx.eval(self.optimizer_state)

    def _take_back(self, tensors: Mapping[str, mx.array]) -> None:
        """Make these the optimizer's, where they fit."""
        fits(self.state(), tensors)
        self.optimizer_state = {name: tensors[name] for name in self.optimizer_state}
        if REFRESHED in tensors:
            self.refreshed = int(tensors[REFRESHED].item())


def _norm(gradients: Tensors) -> mx.array:
    """Global norm of all gradients, in float32."""
    return mx.sqrt(sum((g.astype(mx.float32).square().sum() for g in gradients.values()), mx.array(0.0)))


def _counts(loss: mx.array, norm: mx.array, limits: mx.array) -> mx.array:
    """Whether a step is to change anything: finite, and within its limits."""
    return mx.isfinite(loss) & mx.isfinite(norm) & (loss <= limits[0]) & (norm <= limits[1])


def _where(counts: mx.array, new: Tensors, old: Tensors) -> Tensors:
    return {name: mx.where(counts, value, old[name]) for name, value in new.items()}


def _added(changed: list[tuple[Tensors, Tensors]]) -> list[tuple[Tensors, Tensors]]:
    """The same, with every tensor of the state once: what several calls return of one is added up."""
    sums: Tensors = {}
    for _, state in changed:
        sums |= {name: sums[name] + w if name in sums else w for name, w in state.items()}
    return [(new, {name: sums.pop(name) for name in state if name in sums}) for new, state in changed]
