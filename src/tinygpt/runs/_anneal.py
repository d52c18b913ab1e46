"""--decay-only: go on with a checkpoint of a stable run while the learning rate only falls.

The checkpoint's step, weights and optimizer state go on, and so do the batches, which are those of the next
steps. With the data, seed, batch and context of the stable run, and a `wsd` schedule, both runs together are
the run in one piece that would have decayed there, bit for bit. Source: Hu et al. 2024, arXiv:2404.06395
(section 4: one stable run serves decays at any length).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.model import checkpoint
from tinygpt.runs import _pieces
from tinygpt.runs._settings import SCHEDULE, FreshModel


class Stable(NamedTuple):
    """A checkpoint to go on with: where it is, its step, and the record of its run."""

    path: Path
    step: int
    record: dict[str, Any]


def stable(base: Path | None) -> Stable:
    """What lies at --base; ConfigError when there is nothing to go on with."""
    if base is None:
        raise ConfigError(
            "--decay-only means nothing without --base", hint="give a checkpoint in a run's steps/"
        )
    path = _pieces.model_path(base)
    if not (path / "state.json").is_file():
        raise ConfigError(
            f"{path} holds no optimizer state to go on with", hint="give a checkpoint in the run's steps/"
        )
    record = checkpoint.read_json(path / _pieces.RUN)
    if record.get("command") != "train":
        raise ConfigError(f"{path} is not of a 'train' run", hint="--decay-only goes on with these alone")
    return Stable(path, checkpoint.read_json(path / "state.json")["step"], record)


def derived(config: FreshModel) -> dict[str, Any]:
    """Settings that are the stable run's when they are not given; the optimizer must be."""
    found = stable(config.base)
    settings = found.record["config"]
    if (name := settings["optimizer"]["name"]) != config.optimizer.name:
        raise ConfigError(
            f"{found.path} holds the state of {name}, which goes on", hint=f"--optimizer {name}"
        )
    if config.lr is None:
        _refuse_fallen(found)
    same = {key: settings[key] for key in ("lr", "batch", "seed")}
    return {"steps": max(1, round(found.step / 4)), **same}


def _refuse_fallen(found: Stable) -> None:
    """ConfigError where the rate of the checkpoint's step is not the peak of its run, to which it would
    jump."""
    settings = found.record["config"]
    options = {name: value for name, value in settings["schedule"].items() if name != "name"}
    pick = Pick(settings["schedule"]["name"], options).resolve(SCHEDULE, "schedule")
    guard: dict[str, Any] = checkpoint.read_json(found.path / "state.json").get("guard") or {}
    part = SCHEDULE.load(pick.name).at(found.step, settings["steps"], pick.options)
    part *= guard.get("lr_scale", 1.0)
    if settings.get("decay_only"):
        was = "is of a run with --decay-only, in which the learning rate only fell"
    elif part < 1 - 1e-6:
        was = f"had a learning rate of {part * settings['lr']:.3g}, not the peak of {settings['lr']:g}"
    else:
        return
    raise ConfigError(
        f"{found.path} {was}",
        hint="give one from a step at its run's peak rate, as constant and wsd have, or say --lr",
    )


def falling(schedule: Pick, steps: int) -> Pick:
    """A schedule without what comes before its decay."""
    options = schedule.options
    if not hasattr(options, "final"):
        raise ConfigError(f"the {schedule.name} schedule never decays", hint="--schedule wsd does")
    whole = {"warmup": 0.0, "decay": float(steps)} if hasattr(options, "decay") else {"warmup": 0.0}
    for name, value in whole.items():
        if getattr(options, name) not in (value, type(options).__dataclass_fields__[name].default):
            raise ConfigError(
                f"schedule.{name} says nothing with --decay-only: the whole run decays", hint="leave it out"
            )
    return Pick(schedule.name, replace(options, **whole))


def tell_other_batches(config: FreshModel, inputs: dict[str, str], events: Events) -> None:
    """Say where the batches are not those that the stable run would have read next."""
    found = stable(config.base)
    settings = found.record["config"]
    now = {"batch": config.batch, "context": config.context, "seed": config.seed}
    other = [
        f"--{name} {value}, not {settings[name]}" for name, value in now.items() if settings[name] != value
    ]
    if found.record.get("inputs", {}).get("the data") != inputs["the data"]:
        other.append("other data")
    if other:
        told = f"not the batches that {found.path} would have read next: {', '.join(other)}"
        events.note(told, "warning")
