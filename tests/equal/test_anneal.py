"""--decay-only: a stable run and its decay are the run in one piece."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core import events as ev
from tinygpt.core import files
from tinygpt.core.config import from_dict, load_file
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.model import checkpoint
from tinygpt.runs import pretrain

STABLE, DECAY = 5, 3


def config(folder: Path, out: str, **changes: Any) -> pretrain.Config:
    text = folder / "t.txt"
    if not text.exists():
        text.write_text("".join(f"{i} times {i} is {i * i}\n" for i in range(400)))
    return from_dict(pretrain.Config, {
        "corpus": [str(text)], "out": str(folder / out), "compile": False, "eval_batches": 1,
        "lock": False, **changes,
    })  # fmt: skip


def fresh(folder: Path, out: str, **changes: Any) -> pretrain.Config:
    small = {"batch": 2, "context": 16, "lr": 3e-3, "seed": 4, "save_every": 1, "keep": 20}
    return config(folder, out, **{**small, "model": {"hidden_size": 32, "num_hidden_layers": 1}, **changes})


def stable(folder: Path, **changes: Any) -> Path:
    """The last checkpoint of a run that never decays."""
    schedule = {"name": "constant", "warmup": 2}
    pretrain.run(fresh(folder, "stable", schedule=schedule, steps=STABLE, **changes), Events())
    return folder / "stable" / "steps" / f"{STABLE:06d}"


def decay(folder: Path, base: Path, **changes: Any) -> pretrain.Config:
    given = {"schedule": {"name": "wsd", "shape": "linear"}, "steps": DECAY, "context": 16, **changes}
    return config(folder, "decay", base=str(base), decay_only=True, **given)


def tensors(path: Path) -> dict[str, np.ndarray]:
    return nano.flat(checkpoint.load(path).model)


@pytest.mark.parametrize("optimizer", ["adamw", "sophia"])
def test_a_stable_run_and_its_decay_are_the_run_in_one_piece(
    tmp_path: Path, memory: Any, optimizer: str
) -> None:
    """Bit for bit: the same step numbers, batches, rates, and what the optimizer carries and draws."""
    wsd = {"name": "wsd", "warmup": 2, "decay": DECAY, "shape": "linear"}
    pretrain.run(fresh(tmp_path, "whole", schedule=wsd, steps=STABLE + DECAY, optimizer=optimizer), Events())
    base = stable(tmp_path, optimizer=optimizer)
    settings = decay(tmp_path, base, optimizer=optimizer, save_every=1, keep=9)
    assert (settings.lr, settings.batch, settings.seed) == (3e-3, 2, 4), "those of the stable run"
    assert settings.course.options.warmup == 0 and settings.course.options.decay == DECAY
    pretrain.run(settings, Events(memory))
    assert not [e for e in memory.events if "would have read next" in str(e)]
    whole, found = tensors(tmp_path / "whole" / "final"), tensors(tmp_path / "decay" / "final")
    assert all(np.array_equal(found[n], whole[n]) for n in whole)
    steps = [e for e in ev.read(tmp_path / "decay" / "events.jsonl") if e["kind"] == "train.step"]
    assert [e["step"] for e in steps] == [6, 7, 8]
    assert [e["lr"] for e in steps] == pytest.approx([3e-3 * f for f in (0.67, 0.34, 0.01)])
    # Stopped after a step of its own, or before the first, and resumed.
    for last in ("000006", None):
        for path in sorted((tmp_path / "decay" / "steps").iterdir()):
            if last is None or path.name > last:
                files.remove_directory(path)
        again = decay(tmp_path, base, optimizer=optimizer, save_every=1, keep=9, resume=True)
        pretrain.run(again, Events())
        found = tensors(tmp_path / "decay" / "final")
        assert all(np.array_equal(found[n], whole[n]) for n in whole)


def test_a_stable_run_with_a_guard_and_another_length_of_decay(tmp_path: Path) -> None:
    """A guard's snapshots are no state of the optimizer; what a decay recorded can be run again, longer."""
    base = stable(tmp_path, auto_rollback="on")
    pretrain.run(decay(tmp_path, base), Events())
    again = load_file(tmp_path / "decay" / "run.json") | {"steps": DECAY + 1, "out": str(tmp_path / "again")}
    pretrain.run(from_dict(pretrain.Config, again), Events())
    found = ev.read(tmp_path / "again" / "events.jsonl")
    rates = [e["lr"] for e in found if e["kind"] == "train.step"]
    assert rates == pytest.approx([3e-3 * f for f in (0.7525, 0.505, 0.2575, 0.01)])


def test_other_batches_are_told_of(tmp_path: Path, memory: Any) -> None:
    base = stable(tmp_path)
    pretrain.run(decay(tmp_path, base, seed=9, batch=4), Events(memory))
    notes = [str(e) for e in memory.events if "would have read next" in str(e)]
    assert len(notes) == 1 and "--batch 4, not 2, --seed 9, not 4" in notes[0]


def test_any_schedule_that_falls_begins_at_the_peak(tmp_path: Path) -> None:
    base = stable(tmp_path)
    pretrain.run(decay(tmp_path, base, schedule={"name": "linear", "final": 0.1}), Events())
    found = ev.read(tmp_path / "decay" / "events.jsonl")
    rates = [e["lr"] for e in found if e["kind"] == "train.step"]
    assert rates == pytest.approx([3e-3 * f for f in (0.7, 0.4, 0.1)])


def test_what_cannot_be_annealed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--decay-only means nothing without --base"):
        config(tmp_path, "x", decay_only=True)
    base = stable(tmp_path)
    for changes, message in (
        ({"schedule": {"name": "constant"}}, "the constant schedule never decays"),
        ({"schedule": {"name": "wsd", "warmup": 7}}, "schedule.warmup says nothing with --decay-only"),
        ({"schedule": {"name": "wsd", "decay": 2}}, "schedule.decay says nothing with --decay-only"),
        ({"optimizer": "lion"}, "holds the state of adamw, which goes on"),
    ):
        with pytest.raises(ConfigError, match=message):
            decay(tmp_path, base, **changes)
    with pytest.raises(ConfigError, match="are two ways to go on"):
        decay(tmp_path, base, domain_adapt=True)
    with pytest.raises(ConfigError, match="holds no optimizer state to go on with"):
        decay(tmp_path, tmp_path / "stable" / "final")
    assert decay(tmp_path, base, steps=None).steps == 1, "a quarter of the stable run"


def test_a_rate_that_fell_is_not_lifted_again(tmp_path: Path) -> None:
    base = stable(tmp_path)
    pretrain.run(fresh(tmp_path, "cosine", schedule={"name": "cosine", "warmup": 1}, steps=4), Events())
    steps = tmp_path / "cosine" / "steps"
    for step, rate in ((2, "0.00233"), (4, "0.0003")):
        with pytest.raises(ConfigError, match=f"had a learning rate of {rate}, not the peak of 0.003"):
            decay(tmp_path, steps / f"{step:06d}")
    assert decay(tmp_path, steps / "000001").lr == 3e-3, "the peak"
    assert decay(tmp_path, steps / "000004", lr=3e-4).lr == 3e-4, "said by whoever starts it"
    pretrain.run(decay(tmp_path, steps / "000001", save_every=1, keep=9), Events())
    state = base / "state.json"  # of a run whose guard went back and goes on with half the rate
    state.write_text(json.dumps(json.loads(state.read_text()) | {"guard": {"lr_scale": 0.5}}))
    with pytest.raises(ConfigError, match="had a learning rate of 0.0015, not the peak of 0.003"):
        decay(tmp_path, base)
    with pytest.raises(ConfigError, match="with --decay-only, in which the learning rate only fell"):
        decay(tmp_path, tmp_path / "decay" / "steps" / "000002")
