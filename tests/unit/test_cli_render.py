"""What people see: tables on stdout, progress lines on stderr."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tinygpt.cli import _exit, _render
from tinygpt.core import events as ev
from tinygpt.core.errors import ConfigError


def step(n: int, loss: float = 2.5) -> ev.TrainStep:
    return ev.TrainStep(
        step=n,
        loss=loss,
        lr=1e-3,
        grad_norm=1.0,
        tokens=64,
        tok_s=1234.5,
        mem_bytes=2_000_000,
        mfu=0.41,
        metrics={},
    )


def test_cells() -> None:
    shown = [_render.cell(v) for v in (None, True, False, 1234567, 0.123456, 1e-9, "text")]
    assert shown == ["-", "yes", "no", "1,234,567", "0.1235", "1e-09", "text"]
    assert [_render.size(n) for n in (0, 999, 1500, 2_500_000, 3e12)] == [
        "0 B", "999 B", "1.5 KB", "2.5 MB", "3000.0 GB",
    ]  # fmt: skip


def test_names_do_not_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[31m\x07\x9b2J"
    _render.table([name], [[name]], title=name)
    _render.line(f"note: {name}")
    assert _exit.run(lambda: _raise(ConfigError(name, hint=name))) == 2
    told = capsys.readouterr()
    assert (told.out + told.err).count(r"a\x1b[31m\x07\x9b2J") == 6
    _render.Output(json=True).result({"name": name})
    json_text = capsys.readouterr().out
    assert json.loads(json_text) == {"name": name}
    assert not {"\x1b", "\x07", "\x9b"} & set(told.out + told.err + json_text)


def _raise(error: Exception) -> int:
    raise error


def test_what_a_run_is_about_to_do_takes_two_lines() -> None:
    held_out = {"documents": 1, "tokens": 361, "rows": 12, "batches_per_epoch": 1}
    text = {"documents": 2, "tokens": 14482, "batches_per_epoch": 1500, "bad_files": 0, "bad_rows": 3}
    facts = {"parameters": 35104, **text, "packing_efficiency": 0.99, "held_out": held_out, "seed": 1234567}
    facts["memory_bytes"] = 1_200_000_000
    assert _render.started(ev.RunStarted(command="train", step=0, steps=2000, facts=facts)) == [
        "train: 35,104 parameters learn, 2,000 steps (1,500 an epoch), seed 1234567",
        "data: 14,482 tokens in 2 documents; held out: 361 tokens in 1 document; 3 bad rows",
        "memory: this run will take about 1.2 GB",
    ]
    rows = {"learned_parameters": 8, "documents": 57, "tokens": 1326, "learned_tokens": 129, "truncated": 4}
    assert _render.started(ev.RunStarted(command="sft", step=5, steps=9, facts=rows)) == [
        "sft from step 5: 8 parameters learn, 9 steps",
        "data: 1,326 tokens (129 learned) in 57 documents; 4 rows cut short",
    ]


def test_a_terminal_is_not_steered_by_a_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "a\x1b[2Jb\rc\x07\x7f\x9b\td\né"
    _render.say(text, end="")
    assert capsys.readouterr().out == text, "a pipe gets what the model wrote"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    _render.say(text)
    assert capsys.readouterr().out == "a\\x1b[2Jb\\rc\\x07\\x7f\\x9b\td\né\n"
    _render.ConsoleSink().write(ev.Note(text="row \x1b[31m"))
    assert capsys.readouterr().err == "row \\x1b[31m\n"


def test_a_table_in_a_pipe_is_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    _render.table(["name", "score"], [("[b]x[/b]", 0.5), ("y" * 90, 12)], title="T")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "T" and lines[1].split() == ["name", "score"]
    assert lines[2].startswith("[b]x[/b] ") and lines[2].endswith(" 0.5"), "no markup; numbers to the right"
    assert lines[3] == "y" * 90 + "     12"
    _render.table(["what", "value"], [("path", "/long" * 100), ("n", 3)])
    assert "/long" * 100 in capsys.readouterr().out


def test_results_are_json_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    _render.Output(json=True).result({"ü": 1}, lambda: print("text"))
    _render.Output().result({"a": 1}, lambda: print("text"))
    _render.Output().result({"a": 1})
    assert capsys.readouterr().out == '{"ü": 1}\ntext\n{\n  "a": 1\n}\n'
    assert _render.Output(quiet=True).events().sinks == []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A clock that the test moves."""

    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    found = Clock()
    monkeypatch.setattr(_render, "time", found)
    return found


def test_plain_progress_is_a_line_now_and_then(clock: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sink = _render.ConsoleSink()
    sink.write(ev.RunStarted(command="train", step=0, steps=200, facts={"seed": 1}))
    for n in range(1, 200):
        clock.now += 0.125
        sink.write(step(n))
    sink.write(ev.Evaluated(step=200, name="held_out", metrics={"loss": 2.25}))
    sink.write(ev.Note(text="3 rows were left out", level="warning"))
    sink.write(ev.Note(text="1/5 writing"))
    sink.write(ev.Saved(step=200, path="x", bytes=1))
    sink.write(ev.RunEnded(status="done", step=200, seconds=20.2, metrics={}))
    seen = capsys.readouterr()
    assert not seen.out, "stdout is for results"
    lines = seen.err.splitlines()
    assert lines[0] == "train: 200 steps, seed 1"
    assert (
        lines[1]
        == "step 40/200 · loss 2.5000 · lr 1.00e-03 · norm 1.00 · 1,234 tok/s · MFU 41% · 2.0 MB · 0:20 left"
    )
    assert [line.split()[1] for line in lines[1:5]] == ["40/200", "80/200", "120/200", "160/200"]
    assert lines[5:] == [
        "step 200 · held_out: loss 2.25", "warning: 3 rows were left out", "1/5 writing",
    ], "how it ended is the command's result"  # fmt: skip


def test_a_spike_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    sink, none = _render.ConsoleSink(), float("inf")
    sink.write(
        ev.Spike(
            step=9, loss=float("nan"), grad_norm=2.0, loss_limit=none, grad_norm_limit=none, applied=False
        )
    )
    sink.write(ev.Spike(step=10, loss=9.0, grad_norm=2.0, loss_limit=3.5, grad_norm_limit=4.0, applied=True))
    sink.write(ev.RolledBack(step=11, to=5, lr_scale=1.0))
    sink.write(ev.RolledBack(step=20, to=5, lr_scale=0.5))
    assert capsys.readouterr().err.splitlines() == [
        "warning: step 9 · spike: loss nan, gradient norm 2: not applied, the batch is skipped",
        "warning: step 10 · spike: loss 9 (limit 3.5), gradient norm 2 (limit 4)",
        "warning: step 11 · back to the state after step 5",
        "warning: step 20 · back to the state after step 5, learning rate x 0.5",
    ]


def test_short_tasks_say_nothing(clock: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sink = _render.ConsoleSink()
    for done in (1, 2):
        sink.write(ev.Progress(task="tokenise", done=done, total=2, unit="bytes"))
    assert not capsys.readouterr().err
    clock.now += 6
    sink.write(ev.Progress(task="long", done=1000, total=3000, unit="bytes"))
    sink.write(ev.Progress(task="long", done=3000, total=3000, unit="bytes"))
    clock.now += 6
    sink.write(ev.Progress(task="endless", done=5, total=0))
    assert capsys.readouterr().err.splitlines() == [
        "long: 1,000 of 3,000 bytes", "long: 3,000 of 3,000 bytes", "endless: 5",
    ]  # fmt: skip


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    sink = _render.ConsoleSink()
    sink.write(ev.RunStarted(command="train", step=0, steps=3, facts={}))
    sink.write(step(1))
    assert sink.bar is not None and list(sink.tasks) == ["train"]
    sink.write(ev.Note(text="beside the bar"))
    sink.write(step(3))
    assert sink.bar is None and not sink.tasks
    sink.write(ev.RunEnded(status="done", step=3, seconds=1, metrics={}))
    assert "beside the bar" in capsys.readouterr().err


def test_clock() -> None:
    assert [_render.clock(s) for s in (0.4, 61, 3671)] == ["0:00", "1:01", "1:01:11"]
