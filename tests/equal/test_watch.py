"""What is looked at while a run trains: the best step, stopping early, samples, suites, speed, memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import nano
from tinygpt.core import events as ev
from tinygpt.core.config import from_dict
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events, MemorySink
from tinygpt.core.rows import beside, read_rows
from tinygpt.data.tokenizer import byte
from tinygpt.model import checkpoint, count
from tinygpt.runs import _memory, _watch, pretrain, sft
from tinygpt.train.watch import Watch

TEXT = "to be or not to be, that is the question\n"
TINY = {"hidden_size": 32, "num_hidden_layers": 1}


def config(folder: Path, out: str = "run", **changes: Any) -> pretrain.Config:
    if not (folder / "t.txt").exists():
        (folder / "t.txt").write_text(TEXT * 60)
    return from_dict(pretrain.Config, {
        "corpus": [str(folder / "t.txt")], "out": str(folder / out), "batch": 2, "context": 16, "seed": 1,
        "steps": 8, "compile": False, "lock": False, "held_out": 0.2, "model": TINY, **changes,
    })  # fmt: skip


def test_a_watch_counts_evaluations_without_progress() -> None:
    watch = Watch(patience=2, min_delta=0.1, keep=True)
    seen = [watch.see(i, "held_out", {"loss": x}) for i, x in enumerate((3.0, 2.95, 2.85, 2.8), 1)]
    assert seen == [True] * 4 and not watch.over, "slow progress adds up"
    assert not watch.see(5, "held_out", {"loss": 2.9}) and watch.over
    assert (watch.best, watch.step) == (2.8, 4)
    again = Watch(patience=3, min_delta=0.1, keep=False)
    again.restore(json.loads(json.dumps(watch.state())))
    assert again.state() == watch.state() and not again.over
    assert not again.see(6, "sort_6", {"loss": 0.0}), "another evaluation's loss"
    assert not again.see(7, "held_out", {"loss": float("nan")}) and again.over
    fresh = Watch(keep=True)
    fresh.see(1, "held_out", {"loss": float("nan")})
    assert json.loads(json.dumps(fresh.state(), allow_nan=False)) == {"waited": 1} and not fresh.metrics()


RISING = {"lr": 3.0, "schedule": "constant", "clip": 0.0}  # a rate at which nothing gets better for long


def test_a_run_stops_early_and_keeps_its_best(tmp_path: Path, memory: MemorySink) -> None:
    how: dict[str, Any] = {**RISING, "steps": 60, "eval_every": 1, "patience": 3, "keep_best": True}
    result = pretrain.run(config(tmp_path, **how), Events(memory))
    losses = {e.step: e.metrics["loss"] for e in memory.of(ev.Evaluated)}
    best = min(losses, key=lambda step: losses[step])
    assert (result.status, result.step) == ("early", best + 3) and result.step < 60
    assert result.metrics["best_step"] == best and memory.of(ev.RunEnded)[0].status == "early"
    kept = checkpoint.load(tmp_path / "run" / "best")
    assert kept.manifest["step"] == best and kept.manifest["held_out_loss"] == losses[best]
    assert checkpoint.load(tmp_path / "run" / "final").manifest["step"] == result.step
    again = pretrain.run(config(tmp_path, **how, resume=True), Events())
    assert (again.status, again.step) == ("early", result.step), "it has seen enough"
    more = pretrain.run(config(tmp_path, **(how | {"patience": 6}), resume=True), Events())
    assert more.step > result.step


def test_killed_between_a_checkpoint_and_its_best(tmp_path: Path) -> None:
    """The state that is resumed says which step was best; a best/ that is not there is made good."""
    how: dict[str, Any] = {"eval_every": 2, "keep_best": True, "patience": 9}
    pretrain.run(config(tmp_path, "straight", **how), Events())

    class Kill(BaseException):
        pass

    class At:
        def write(self, event: ev.Event) -> None:
            if isinstance(event, ev.Evaluated) and event.step == 6:
                raise Kill

        def close(self) -> None:
            pass

    with pytest.raises(Kill):
        pretrain.run(config(tmp_path, **how), Events(At()))
    latest = max((tmp_path / "run" / "steps").iterdir())
    assert int(latest.name) == checkpoint.load(tmp_path / "run" / "best").manifest["step"] == 4
    files = {p: p.read_bytes() for p in (tmp_path / "run" / "best").iterdir()}
    for file in files:
        file.unlink()
    (tmp_path / "run" / "best").rmdir()
    pretrain.run(config(tmp_path, **how, resume=True), Events(At4(files)))
    for folder in ("final", "best", "steps/000008"):
        for name in ("model.safetensors", "state.json", "optimizer.safetensors"):
            one, two = (tmp_path / run / folder / name for run in ("straight", "run"))
            assert one.exists() == two.exists() and (not one.exists() or one.read_bytes() == two.read_bytes())
    assert "watch" in json.loads((tmp_path / "run" / "steps" / "000008" / "state.json").read_text())


class At4:
    """Sees at the first step that best/ is there again, as it was."""

    def __init__(self, files: dict[Path, bytes]) -> None:
        self.files = files

    def write(self, event: ev.Event) -> None:
        if isinstance(event, ev.TrainStep) and event.step == 5:
            weights = next(p for p in self.files if p.name == "model.safetensors")
            assert weights.read_bytes() == self.files[weights]

    def close(self) -> None:
        pass


def test_other_batches_are_another_loss(tmp_path: Path, memory: MemorySink) -> None:
    how: dict[str, Any] = {"steps": 4, "eval_every": 1, "keep_best": True, "max_minutes": 1e-9}
    pretrain.run(config(tmp_path, **how, eval_batches=1), Events())
    pretrain.run(config(tmp_path, **how, eval_batches=2, resume=True), Events(memory))
    assert any("looked for anew" in e.text for e in memory.of(ev.Note))


def test_samples_suites_speed_and_memory_are_told(tmp_path: Path, memory: MemorySink) -> None:
    how: dict[str, Any] = {
        "steps": 4,
        "sample_every": 2,
        "sample_tokens": 5,
        "eval_tasks": "sort-6",
        "eval_limit": 3,
    }
    result = pretrain.run(config(tmp_path, **how), Events(memory))
    samples = memory.of(ev.Sampled)
    assert [e.step for e in samples] == [2, 4] and all(e.prompt == "The " and e.text for e in samples)
    scored = [e for e in memory.of(ev.Evaluated) if e.name == "sort_6"]
    assert [e.step for e in scored] == [4] and scored[0].metrics == {"sort-6.exact_match": 0.0}
    assert "sort-6.exact_match" in result.metrics
    started = memory.of(ev.RunStarted)[0].facts
    model = checkpoint.load(tmp_path / "run" / "final").config
    told = memory.of(ev.TrainStep)[-1]
    wanted = told.tok_s * count.flops_per_token(model, 16) / (started["gflops"] * 1e9)
    assert told.mfu == pytest.approx(wanted, rel=0.02, abs=1e-4)
    assert 0.5 < started["memory_bytes"] / told.mem_bytes < 2
    plain = MemorySink()
    pretrain.run(config(tmp_path, "plain", steps=4), Events(plain))
    assert [e.loss for e in plain.of(ev.TrainStep)] == [e.loss for e in memory.of(ev.TrainStep)]


def test_a_run_keeps_rows_of_its_suites_by_step(tmp_path: Path) -> None:
    """Also one that was ended after a suite, before a checkpoint: what it does again is not there twice."""
    how: dict[str, Any] = {
        "steps": 6,
        "save_every": 3,
        "eval_every": 2,
        "eval_tasks": "sort-6",
        "eval_limit": 3,
    }
    pretrain.run(config(tmp_path, **how), Events())
    path = tmp_path / "run" / "eval-rows.jsonl"
    whole, records = read_rows(path)[0], beside(path).read_text()
    assert [row.model_step for row in whole] == [2, 4, 6] and len(records.splitlines()) == 9
    assert {json.loads(line)["run_id"] for line in records.splitlines()} == {row.run_id for row in whole}
    shutil.rmtree(tmp_path / "run" / "final")
    shutil.rmtree(tmp_path / "run" / "steps" / "000006")
    with beside(path).open("a") as torn:
        torn.write('{"run_id": "')
    pretrain.run(config(tmp_path, **how, resume=True), Events())
    again = read_rows(path)[0]
    assert [row.model_step for row in again] == [2, 4, 6] and again[0] == whole[0]
    assert len(beside(path).read_text().splitlines()) == 9


def test_an_adapter_needs_fewer_operations() -> None:
    model = nano.model()
    gflops, whole = _watch.tok_s_at_peak(model, 16, "float32")
    model.model.embed_tokens.freeze()
    _, part = _watch.tok_s_at_peak(model, 16, "float32")
    matrices, all_ = count.flops_per_token(model.config, 0), count.flops_per_token(model.config, 16)
    assert whole == pytest.approx(gflops * 1e9 / all_)
    assert part == pytest.approx(gflops * 1e9 / (all_ - matrices // 3))


def test_conversations_are_sampled_by_a_request(tmp_path: Path, memory: MemorySink) -> None:
    rows = [{"question": f"say {w}", "answer": w} for w in map(str, range(24))]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {
        "data": [str(tmp_path / "d.jsonl")], "out": str(tmp_path / "run"), "steps": 2, "batch": 2,
        "context": 64, "model": TINY, "compile": False, "sample_every": 2, "lock": False,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="needs a request to answer"):
        from_dict(sft.Config, given)
    sft.run(from_dict(sft.Config, {**given, "sample_prompt": "say 1", "sample_tokens": 3}), Events(memory))
    assert [e.prompt for e in memory.of(ev.Sampled)] == ["say 1 -> "]


def test_history_is_kept(tmp_path: Path) -> None:
    pretrain.run(config(tmp_path, save_every=2, save_history=True), Events())
    assert len(list((tmp_path / "run" / "steps").iterdir())) == 4


def test_manners_change_no_result(tmp_path: Path, memory: MemorySink) -> None:
    (tmp_path / "throttle").write_text("0.9")
    how: dict[str, Any] = {"steps": 3, "throttle_file": str(tmp_path / "throttle"), "max_step_rate": 1000.0}
    pretrain.run(config(tmp_path, steps=3), Events())
    pretrain.run(config(tmp_path, "slow", **how), Events(memory))
    assert any("throttle is now 0.9" in e.text for e in memory.of(ev.Note))
    one, two = (tmp_path / run / "final" / "model.safetensors" for run in ("run", "slow"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"throttle": 0.001}, "--throttle must be from 0.01 to 1"),
        ({"max_step_rate": -1.0}, "--max-step-rate must not be negative"),
        ({"patience": 2}, "--patience means nothing without --eval-every"),
        ({"keep_best": True}, "--keep-best means nothing without --eval-every"),
        ({"min_delta": 0.1}, "--min-delta means nothing without --patience"),
        ({"sample_prompt": "x"}, "--sample-prompt means nothing without --sample-every"),
        ({"sample_tokens": 0}, "--sample-tokens must be at least 1"),
        ({"save_history": True, "keep": 5}, "--save-history keeps every checkpoint"),
        ({"eval_tasks": "sort-6,sort_6"}, "names sort_6 twice"),
        ({"eval_options": {"sort-6": {"n": 2}}}, "options for 'sort_6', which is not run"),
    ],
)
def test_settings_that_say_nothing_are_refused(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_tasks": "sort_7"}, "sort_7"),
        ({"eval_tasks": "exact_match"}, "path"),
        (
            {"eval_tasks": "heldout_loss"},
            "the suite heldout_loss has no text.*eval_options.heldout_loss.paths",
        ),
        ({"sample_every": 1, "sample_prompt": "x" * 99}, "leaves no room"),
        ({"held_out": 0.0, "eval_every": 1, "patience": 1}, "--patience needs a held-out loss"),
        ({"held_out": 0.0, "eval_every": 1}, "--eval-every: nothing is held out"),
    ],
)
def test_what_cannot_be_looked_at_is_said_before_training(
    tmp_path: Path, changes: Any, message: str, memory: MemorySink
) -> None:
    with pytest.raises(ConfigError, match=message):
        pretrain.run(config(tmp_path, **changes), Events(memory))
    assert not memory.of(ev.TrainStep) and not (tmp_path / "run").exists(), (
        "the right command needs no --force"
    )


def test_a_machine_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watch.power, "too_hot", lambda: None)
    with pytest.raises(ConfigError, match="--pause-when-hot: this machine does not tell"):
        _watch.pace(config(tmp_path, pause_when_hot=True), Events())
    monkeypatch.setattr(_watch.power, "on_battery", lambda: True)
    made = _watch.pace(config(tmp_path, pause_on_battery=True), Events())
    assert made is not None and made.manners.reason is not None
    assert made.manners.reason() == "the machine runs on its battery"
    assert _watch.pace(config(tmp_path), Events()) is None


def test_much_of_the_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch, memory: MemorySink) -> None:
    monkeypatch.setattr(_memory, "step_bytes", lambda updater, batch: 1 << 40)
    found = _memory.expected(None, None, Events(memory))  # type: ignore[arg-type]
    assert found >= 1 << 39 and "this machine has" in memory.of(ev.Note)[0].text
    assert byte.load(None).vocab_size
