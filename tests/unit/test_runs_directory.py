"""The rules about making, resuming and replacing the directory of a run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

import nano
from tinygpt.core.config import from_dict, load_file
from tinygpt.core.errors import CheckpointError, ConfigError, LockedError
from tinygpt.core.lock import IN_USE, run_lock
from tinygpt.model import checkpoint
from tinygpt.runs import pretrain
from tinygpt.runs._directory import FREE, RunDirectory
from tinygpt.runs._settings import FreshModel


@dataclass(frozen=True, kw_only=True)
class Config(FreshModel):
    """Settings of a run that reads a file."""

    data: Annotated[Path | None, "A file."] = None
    tokenizer: Annotated[str, "A name or path."] = "byte"


def config(out: Path, **changes: Any) -> Config:
    return from_dict(Config, {"out": str(out), "seed": 3, **changes})


def begun(out: Path, *steps: int, **changes: Any) -> RunDirectory:
    """A run directory with checkpoints at these steps."""
    directory = RunDirectory("train", config(out, **changes))
    directory.start()
    for step in steps:
        (out / "steps" / f"{step:06d}").mkdir(parents=True)
        checkpoint.seal(out / "steps" / f"{step:06d}", kind="model")
    return directory


def test_nothing_is_made_before_the_start(tmp_path: Path) -> None:
    out = tmp_path / "a" / "run"
    directory = RunDirectory("train", config(out))
    assert not (tmp_path / "a").exists()
    directory.start()
    record = json.loads((out / "run.json").read_text())
    assert record["command"] == "train" and record["config"]["seed"] == 3
    again = from_dict(Config, load_file(out / "run.json"))
    assert again == config(out), "run.json is a config file that repeats the run"


def test_a_seed_that_was_drawn_is_recorded_and_used_again(tmp_path: Path) -> None:
    first = begun(tmp_path / "run", 4, seed=None)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["seed"] == first.seed
    for seed in (None, first.seed):
        assert RunDirectory("train", config(tmp_path / "run", seed=seed, resume=True)).seed == first.seed
    with pytest.raises(ConfigError, match=rf"has seed {first.seed}, not {first.seed + 1}"):
        RunDirectory("train", config(tmp_path / "run", seed=first.seed + 1, resume=True))
    others = {RunDirectory("train", config(tmp_path / str(i), seed=None)).seed for i in range(4)}
    assert len(others) > 1


def test_an_existing_run_is_neither_overwritten_nor_lost(tmp_path: Path) -> None:
    out = tmp_path / "run"
    begun(out, 4)
    with pytest.raises(ConfigError, match="run directory .* exists"):
        RunDirectory("train", config(out))
    forced = RunDirectory("train", config(out, force=True))
    assert (out / "steps" / "000004").exists(), "it goes only when the new run starts"
    forced.start()
    assert forced.step() == 0 and sorted(p.name for p in out.iterdir()) == ["run.json"]


def test_force_removes_no_input_and_nothing_foreign(tmp_path: Path) -> None:
    out = tmp_path / "run"
    begun(out)
    for changes in ({"data": str(out / "x.jsonl")}, {"tokenizer": str(out / "final")}):
        with pytest.raises(ConfigError, match="is inside --out"):
            RunDirectory("train", config(out, force=True, **changes))
    for name in ("notes.txt", "steps/000004/notes.txt"):
        begun(tmp_path / "mixed", 4, force=True)
        (tmp_path / "mixed" / name).touch()
        with pytest.raises(ConfigError, match=f"{name} was not written by tinygpt"):
            RunDirectory("train", config(tmp_path / "mixed", force=True))
        (tmp_path / "mixed" / name).unlink()
    (tmp_path / "home" / "letters").mkdir(parents=True)
    with pytest.raises(ConfigError, match="is no run directory"):
        RunDirectory("train", config(tmp_path / "home", force=True))
    with pytest.raises(ConfigError, match="holds no run to resume"):
        RunDirectory("train", config(tmp_path / "home", resume=True))


def test_resuming_needs_the_same_settings(tmp_path: Path) -> None:
    out = tmp_path / "run"
    begun(out, 4, 12, lr=0.01)
    same = RunDirectory("train", config(out, lr=0.01, resume=True))
    assert same.step() == 12 and same.latest == out / "steps" / "000012"
    with pytest.raises(ConfigError, match=r"cannot resume .*lr 0\.01 -> 0\.001"):
        RunDirectory("train", config(out, resume=True))
    with pytest.raises(ConfigError) as caught:
        RunDirectory("train", config(out, lr=0.01, resume=True, batch=4, optimizer={"name": "muon"}))
    assert "batch 16 -> 4" in str(caught.value) and "optimizer" in str(caught.value)
    assert "lr" not in caught.value.message
    with pytest.raises(ConfigError, match="holds a 'train' run"):
        RunDirectory("sft", config(out, lr=0.01, resume=True))


def test_how_a_path_is_spelled_means_nothing_where_contents_are_hashed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    begun(out)
    record = json.loads((out / "run.json").read_text())
    again = config(out, resume=True, data=str(tmp_path / "x"), tokenizer=str(tmp_path / "t"))
    with pytest.raises(ConfigError, match=r"cannot resume .*tokenizer 'byte' -> .*data None -> "):
        RunDirectory("train", again)  # an older version recorded no hashes
    (out / "run.json").write_text(json.dumps(record | {"inputs": {"the data": "1", "the base model": "2"}}))
    directory = RunDirectory("train", again)
    directory.learns_from({"the data": "1", "the base model": "2"})
    for found in ({"the data": "1"}, {"the data": "1", "the base model": "2", "the tokenizer": "3"}):
        with pytest.raises(ConfigError, match="the (base model|tokenizer) changed since the run began"):
            directory.learns_from(found)


@pytest.mark.parametrize("text", ["3", "[]", "{}", '{"config": {}}', '{"config": []}',
    '{"config": {"seed": 1}, "inputs": [1]}'])  # fmt: skip
def test_a_record_that_is_none(text: str, tmp_path: Path) -> None:
    begun(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(text)
    with pytest.raises((ConfigError, CheckpointError), match=r"run\.json (is not the record|must hold)"):
        RunDirectory("train", config(tmp_path / "run", resume=True))


def test_a_damaged_last_checkpoint_names_the_one_before_it(tmp_path: Path) -> None:
    out = tmp_path / "run"
    begun(out, 4, 8, 12)
    for step in ("000012", "000008"):
        (out / "steps" / step / "tinygpt.json").write_text("torn")
    (out / "final").mkdir()
    directory = RunDirectory("train", config(out, resume=True))
    with pytest.raises(CheckpointError, match=r"000012/tinygpt\.json cannot be read") as caught:
        directory.start()
    assert "remove " in caught.value.hint and "goes on from step 4" in caught.value.hint
    (out / "steps" / "000004" / "tinygpt.json").write_text("torn")
    with pytest.raises(CheckpointError) as caught:
        directory.start()
    assert "no older checkpoint is whole" in caught.value.hint


def test_replacing_where_one_stands_and_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, link = tmp_path / "disk" / "run", tmp_path / "link"
    begun(out, 4)
    link.symlink_to(out)
    monkeypatch.chdir(out)
    for path in (Path("."), link, out):
        (out / "steps" / "000004").mkdir(parents=True, exist_ok=True)
        checkpoint.seal(out / "steps" / "000004", kind="model")
        RunDirectory("train", config(path, force=True)).start()
        assert [p.name for p in Path.cwd().iterdir()] == ["run.json"], "it is still the same directory"
    assert link.is_symlink() and [p.name for p in out.parent.iterdir()] == ["run"]


def test_settings_that_change_nothing_may_differ(tmp_path: Path) -> None:
    out = tmp_path / "run"
    begun(out, 4)
    free = {"save_every": 5, "keep": 7, "eval_every": 3, "eval_batches": 1, "max_minutes": 2.5, "lock": False}
    free |= {"keep_best": True, "patience": 3, "min_delta": 0.1, "eval_limit": 9, "eval_tasks": "sort_6"}
    free |= {
        "eval_options": {"sort_6": {"n": 3}},
        "sample_every": 2,
        "sample_prompt": "a",
        "sample_tokens": 5,
    }
    free |= {"throttle": 0.5, "max_step_rate": 2.0, "throttle_file": "t", "pause_on_battery": True}
    free |= {"pause_when_hot": True}
    RunDirectory("train", config(out, resume=True, **free))
    RunDirectory("train", config(out, resume=True, wait=True, **free | {"lock": True}))
    of_train = {"prefetch", "workers"}
    assert set(free) | {"save_history", "out", "resume", "force", "wait", "seed"} | of_train == FREE
    assert set(pretrain.Config.__dataclass_fields__) >= FREE, "a renamed setting must be renamed here too"


def test_what_was_begun_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    """Of two that found nothing, or the same, the one that waited longer finds it changed."""
    first, second = (RunDirectory("train", config(tmp_path / "run", resume=True)) for _ in range(2))
    first.start()
    with pytest.raises(ConfigError, match="another process has used .*run since"):
        second.start()


def test_replacing_a_run_keeps_the_lock_that_is_held(tmp_path: Path) -> None:
    out = tmp_path / "run"
    begun(out, 4)
    forced = RunDirectory("train", config(out, force=True))
    with run_lock(out, "train"):
        forced.start()
        assert sorted(p.name for p in out.iterdir()) == [IN_USE, "run.json"]
        with pytest.raises(LockedError, match="another process writes to .*run: 'train'"), run_lock(out, "b"):
            pass
    assert [p.name for p in out.iterdir()] == ["run.json"] and [p.name for p in tmp_path.iterdir()] == ["run"]


def test_nothing_is_made_inside_a_checkpoint(tmp_path: Path) -> None:
    model = tmp_path / "m"
    checkpoint.save(model, nano.model())
    (model / "run.json").touch()
    (tmp_path / "link").symlink_to(model)
    for out, more in ((model / "deep" / "run", {}), (tmp_path / "link" / "run", {"resume": True})):
        with pytest.raises(ConfigError, match=f"--out {out} lies inside the checkpoint {model}"):
            RunDirectory("train", config(out, **more))
    for more in ({}, {"force": True}, {"resume": True}):
        with pytest.raises(ConfigError, match="--out .* is the checkpoint"):
            RunDirectory("train", config(model, **more))
    (tmp_path / "specialist").mkdir()
    (tmp_path / "specialist" / "tinygpt.lock.json").touch()
    with pytest.raises(ConfigError, match="lies inside the checkpoint"):
        RunDirectory("train", config(tmp_path / "specialist" / "run"))


def test_resuming_what_never_began_begins_it(tmp_path: Path) -> None:
    directory = RunDirectory("train", config(tmp_path / "run", resume=True))
    directory.start()
    assert directory.step() == 0 and directory.latest is None
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".run.json.tinygpt.tmp-1").touch()
    RunDirectory("train", config(tmp_path / "killed", resume=True)).start()


def test_checkpoints_are_ordered_by_number_and_pruned(tmp_path: Path) -> None:
    directory = begun(tmp_path / "run", 5, 999_995, 1_000_000, keep=2)
    (tmp_path / "run" / "steps" / ".000010.tinygpt.tmp-1").mkdir()
    assert directory.step() == 1_000_000
    directory.prune()
    left = sorted(p.name for p in (tmp_path / "run" / "steps").glob("[0-9]*"))
    assert left == ["1000000", "999995"]


def test_what_dead_writers_left_is_removed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    begun(out, 5)
    gone = 2**22 + 1  # no process has it: Linux and macOS stop at 2^22
    (out / "steps" / f".000010.tinygpt.tmp-{gone}" / "new").mkdir(parents=True)
    (out / f".events.jsonl.tinygpt.tmp-{gone}").touch()
    (out / ".mine").touch()
    RunDirectory("train", config(out, resume=True)).start()
    assert sorted(p.name for p in out.rglob(".*")) == [".mine"]
