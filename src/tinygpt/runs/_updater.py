"""What takes the steps of a training run: gradient descent as its settings say, or what the run brings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from mlx.utils import tree_flatten

from tinygpt.core import backend
from tinygpt.core.backend import nn
from tinygpt.core.errors import ConfigError
from tinygpt.model.lm import LM
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._settings import OPTIM, SCHEDULE
from tinygpt.train.groups import groups
from tinygpt.train.loop import Updater
from tinygpt.train.qat import BITS, group_size, transform
from tinygpt.train.update import Gradient, Objective, Rewrite, Tensors, Transform


class Resumable(Updater, Protocol):
    """An updater that takes its state back."""

    def restore(self, tensors: Tensors) -> None: ...


Make = Callable[[Callable[[int], float], str], Resumable]
"""make(rate, dtype): an updater, from the learning rate of a step and the compute dtype."""


def updater(
    directory: RunDirectory,
    objective: Objective,
    before: int,
    make: Make | None,
    rewrite: Rewrite | None = None,
) -> Resumable:
    """The updater of a run whose schedule begins after the step `before`; see Gradient for `rewrite`."""
    config, world = directory.config, directory.world
    steps, _, lr = config.amounts
    course = config.course
    schedule = SCHEDULE.load(course.name)
    dtype = backend.compute_dtype(config.dtype)

    def rate(step: int) -> float:
        return lr * schedule.at(step - before, steps, course.options)

    if make is not None:
        if world.size > 1:
            raise ConfigError(
                f"'{directory.command}' runs in one process", hint="start it without a launcher"
            )
        return make(rate, dtype)
    if world.size > 1 and config.auto_rollback == "on":
        raise ConfigError("--auto-rollback on works in one process", hint="use warn")
    model: Any = objective.module
    model.noise, model.recompute = config.noise, config.grad_checkpoint
    optimizer, options = OPTIM.load(config.optimizer.name), config.optimizer.options
    learned = [name for name, _ in tree_flatten(model.trainable_parameters())]

    def built(options: Any) -> Any:
        return config.around(optimizer.build(options), before)

    return Gradient(
        objective, built(options), rate,
        accumulate=config.accumulate, clip=config.clip, dtype=dtype, compiled=config.compile,
        seed=directory.seed, groups=groups(learned, **config.group_rules()),
        undecayed=built(replace(options, weight_decay=0.0)) if config.no_decay else None,
        transform=_grid(config.qat, model), world=world, rewrite=rewrite,
    )  # fmt: skip


def _grid(qat: str, module: nn.Module) -> Transform | None:
    """What the forward pass reads, and the same in the model's config; None: the weights themselves."""
    bits = BITS.get(qat, 0)
    size = group_size(module) if bits else 0
    if isinstance(module, LM):
        module.trained_for(bits, size)
    return transform(bits, size) if bits else None
