"""Settings of training runs, and the rules of their directory."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

import nano
from tinygpt.core.config import Pick, from_dict, load_file
from tinygpt.core.errors import ConfigError, LockedError
from tinygpt.core.events import Events
from tinygpt.core.lock import IN_USE, run_lock
from tinygpt.data.tokenizer import byte
from tinygpt.model import checkpoint
from tinygpt.model.config import ModelConfig
from tinygpt.model.presets import by_depth
from tinygpt.runs import _train, pretrain, sft
from tinygpt.runs._directory import FREE, RunDirectory
from tinygpt.runs._train import FreshModel, TrainSettings
from tinygpt.train.update import arrays


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
    return directory


# Settings.


def test_what_is_not_given_is_derived() -> None:
    plain = config(Path("r"))
    assert (plain.steps, plain.batch, plain.lr) == (500, 16, 1e-3)
    found = by_depth(2, vocab_size=256, context=64, tokens_per_parameter=20)
    deep = config(Path("r"), depth=2, context=64)
    assert (deep.steps, deep.batch, deep.lr) == (found.steps, found.batch, found.lr)
    more = config(Path("r"), depth=2, context=64, regime="overtrained")
    assert more.steps > deep.steps
    assert config(Path("r"), depth=2, context=64, steps=7).steps == 7, "a given value wins"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "--steps must be at least 1"),
        ({"keep": 0}, "--keep must be at least 1"),
        ({"lr": 0}, "--lr must be positive"),
        ({"clip": -1}, "--clip must not be negative"),
        ({"save_every": -1}, "--save-every must not be negative"),
        ({"eval_batches": -1}, "--eval-batches must not be negative"),
        ({"batch": 6, "accumulate": 4}, "--batch 6 is not a multiple of --accumulate 4"),
        ({"resume": True, "force": True}, "--resume continues"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(Path("r"), **changes)


def test_a_fresh_model() -> None:
    model = config(Path("r"), model={"hidden_size": 32, "num_hidden_layers": 1}, context=16).fresh(70, 1)
    assert model.config.vocab_size == 70 and model.config.hidden_size == 32
    assert model.config.max_position_embeddings == 16
    assert model.config.head_dim == 8 and model.config.intermediate_size == 96, "derived from the new width"
    with pytest.raises(ConfigError, match="vocab_size is 10, but the tokenizer has 70 ids"):
        config(Path("r"), model={"vocab_size": 10}).fresh(70, 1)
    with pytest.raises(ConfigError, match="unknown preset 'tinny'"):
        config(Path("r"), preset="tinny").fresh(70, 1)


def test_rows_are_at_most_as_long_as_the_model_can_read() -> None:
    model = ModelConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, max_position_embeddings=32
    )
    assert _train.row_length(config(Path("r")), model) == 32
    assert _train.row_length(config(Path("r"), context=8), model) == 8
    with pytest.raises(ConfigError, match="--context 33 is longer than the model's own, 32"):
        _train.row_length(config(Path("r"), context=33), model)


# The directory.


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


def test_settings_that_change_nothing_may_differ(tmp_path: Path) -> None:
    out = tmp_path / "run"
    begun(out, 4)
    free = {"save_every": 5, "keep": 7, "eval_every": 3, "eval_batches": 1, "max_minutes": 2.5, "lock": False}
    RunDirectory("train", config(out, resume=True, wait=True, **free))
    assert set(free) | {"out", "resume", "force", "wait", "seed"} == FREE
    assert set(TrainSettings.__dataclass_fields__) >= FREE, "a renamed setting must be renamed here too"


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
    (tmp_path / "killed" / ".run.json.tmp-1").touch()
    RunDirectory("train", config(tmp_path / "killed", resume=True)).start()


def test_checkpoints_are_ordered_by_number_and_pruned(tmp_path: Path) -> None:
    directory = begun(tmp_path / "run", 5, 999_995, 1_000_000, keep=2)
    (tmp_path / "run" / "steps" / ".000010.tmp-1").mkdir()
    assert directory.step() == 1_000_000
    directory.prune()
    left = sorted(p.name for p in (tmp_path / "run" / "steps").glob("[0-9]*"))
    assert left == ["1000000", "999995"]


def test_what_dead_writers_left_is_removed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    begun(out, 5)
    gone = 2**22 + 1  # no process has it: Linux and macOS stop at 2^22
    (out / "steps" / f".000010.tmp-{gone}").mkdir()
    (out / f".events.jsonl.tmp-{gone}").touch()
    (out / ".mine").touch()
    RunDirectory("train", config(out, resume=True)).start()
    assert sorted(p.name for p in out.rglob(".*")) == [".mine"]


def test_held_out_loss_weighs_by_tokens() -> None:
    objective = _train.OBJECTIVE.load("next_token").build(nano.model())
    one, two = nano.batch(1, 10, seed=1, real=[10]), nano.batch(1, 10, seed=2, real=[3])
    losses = [_train.held_out_loss(objective, [b], 0)(1)["loss"] for b in (one, two)]
    both = _train.held_out_loss(objective, [one, two], 0)(1)["loss"]
    counts = [float(b.weights.sum()) for b in (one, two)]
    nano.close(both, sum(n * loss for n, loss in zip(counts, losses)) / sum(counts), 1e-5)
    assert _train.held_out_loss(objective, [one, two], 1)(1)["loss"] == losses[0]


def test_held_out_loss_is_that_of_the_whole_batch() -> None:
    """Cores share its rows; one of them may get nothing but padding. The default reads more than a few."""
    objective = _train.OBJECTIVE.load("next_token").build(nano.model())
    batch = nano.batch(5, 10, real=[10, 0, 7, 0, 1])
    wanted = objective.loss(arrays(batch))[0].item()
    nano.close(_train.held_out_loss(objective, [batch], 0)(1)["loss"], wanted, 1e-5)
    source = Counted([batch] * 40)
    _train.held_out_loss(objective, source, config(Path("r")).eval_batches)(1)
    assert source.read == 32, "an evaluation of 8 said little"


class Counted(list[Any]):
    """Knows how many of its items were asked for."""

    read = 0

    def __getitem__(self, index: Any) -> Any:
        self.read += 1
        return super().__getitem__(index)


def test_a_run_tells_whoever_listens(tmp_path: Path, memory: Any) -> None:
    """The run's own events file and the caller's sinks hear the same."""
    from tinygpt.core import events as ev

    (tmp_path / "t.txt").write_text("to be or not to be, that is the question\n" * 30)
    settings = pretrain.Config(
        corpus=(tmp_path / "t.txt",), out=tmp_path / "run", steps=2, batch=2, context=16, seed=1,
        compile=False, save_every=1, keep=1, model={"hidden_size": 32, "num_hidden_layers": 1},
    )  # fmt: skip
    result = pretrain.run(settings, Events(memory))
    assert (result.status, result.step) == ("done", 2)
    kinds = [type(e).kind for e in memory.events if not isinstance(e, ev.Progress)]
    assert kinds == [e["kind"] for e in ev.read(tmp_path / "run" / "events.jsonl")]
    assert kinds[0] == "run.started" and kinds[-1] == "run.ended" and kinds.count("train.step") == 2
    assert [p.name for p in (tmp_path / "run" / "steps").iterdir()] == ["000002"]


def small(folder: Path, **changes: Any) -> pretrain.Config:
    """A run of one step on t.txt."""
    return from_dict(pretrain.Config, {
        "corpus": [str(folder / "t.txt")], "out": str(folder / "run"), "steps": 1, "batch": 2, "context": 16,
        "seed": 1, "compile": False, **changes,
    })  # fmt: skip


def test_resuming_needs_the_same_inputs(tmp_path: Path) -> None:
    text, base, out = tmp_path / "t.txt", tmp_path / "base", tmp_path / "run"

    def make(seed: int) -> None:
        tokenizer = byte.load(None)
        model = nano.model(seed=seed, vocab_size=tokenizer.vocab_size)
        checkpoint.save(base, model, write_tokenizer=tokenizer.save, replace=True)

    def resume() -> None:
        pretrain.run(small(tmp_path, base=str(base), resume=True), Events())

    make(0)
    text.write_text("to be or not to be, that is the question\n" * 30)
    resume()
    before = (out / "run.json").read_bytes()
    assert set(json.loads(before)["inputs"]) == {"the base model", "the tokenizer", "the data"}
    text.write_text("to be or not to be, that is the answer?!\n" * 30)
    with pytest.raises(
        ConfigError, match="cannot resume .*run: the data changed since the run began"
    ) as caught:
        resume()
    assert "another --out" in caught.value.hint
    make(1)
    with pytest.raises(ConfigError, match="run: the base model and the data changed since"):
        resume()
    assert (out / "run.json").read_bytes() == before
    text.write_text("to be or not to be, that is the question\n" * 30)
    make(0)
    resume()
    record = json.loads(before)
    del record["inputs"]
    (out / "run.json").write_text(json.dumps(record))
    resume()
    assert (out / "run.json").read_bytes() == before, "a run of an older version gets its hashes now"


def test_resuming_needs_the_same_tokenizer(tmp_path: Path) -> None:
    byte.load(None).save(tmp_path / "tok")
    (tmp_path / "t.txt").write_text("to be or not to be, that is the question\n" * 30)
    changes = {"tokenizer": str(tmp_path / "tok"), "model": {"hidden_size": 32, "num_hidden_layers": 1}}
    pretrain.run(small(tmp_path, **changes), Events())
    beside = tmp_path / "tok" / "tokenizer_config.json"
    beside.write_text(beside.read_text().replace("<|pad|>", "<|im_end|>"))
    with pytest.raises(ConfigError, match="run: the tokenizer changed since the run began"):
        pretrain.run(small(tmp_path, resume=True, **changes), Events())


def test_two_never_write_to_one_run(tmp_path: Path) -> None:
    """Whatever --no-lock says."""
    (tmp_path / "t.txt").write_text("to be or not to be, that is the question\n" * 30)
    settings = small(tmp_path, lock=False, resume=True, model={"hidden_size": 32, "num_hidden_layers": 1})
    with (
        run_lock(tmp_path / "run", "sft"),
        pytest.raises(LockedError, match=rf"another process writes to .*run: 'sft' \(process {os.getpid()}"),
    ):
        pretrain.run(settings, Events())
    assert not list((tmp_path / "run").iterdir())
    pretrain.run(settings, Events())
    assert IN_USE not in {p.name for p in (tmp_path / "run").iterdir()}


def test_an_adapter_beside_full_tuning_is_refused() -> None:
    given: dict[str, Any] = {
        "out": Path("x"),
        "data": (Path("y"),),
        "base": Path("z"),
        "adapter": Pick("lora", {"rank": 3}),
    }
    assert sft.Config(**given).adapter.options.rank == 3
    with pytest.raises(ConfigError, match="all weights will learn"):
        sft.Config(**given, full=True)


def test_two_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="--depth and --preset"):
        FreshModel(out=Path("x"), depth=4, preset="mega")
