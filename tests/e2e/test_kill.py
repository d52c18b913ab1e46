"""A run that is killed or interrupted anywhere goes on as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.shell import NANO, good, process, refused
from tinygpt.core import events
from tinygpt.model import checkpoint

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "kill_test.py"


def test_four_kills() -> None:
    """The same script with 100 kills of 200 steps is in docs/log.md."""
    sizes = ["--kills", "4", "--steps", "40", "--save-every", "5", "--batch", "4"]
    done = subprocess.run([sys.executable, str(SCRIPT), *sizes], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 kills of a 40-step run (") and "byte-equal" in done.stdout


def test_the_script_notices_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("kill_test", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    line = '{"v": 1, "t": 1, "kind": "train.step", "step": 1, "loss": 2.5}\n'
    for name, told, last in (
        ("a", line, b"x"),
        ("b", line, b"y"),
        ("c", line + line, b"x"),
        ("d", line, b"x"),
    ):
        for folder in ("steps/000001", "final"):
            (tmp_path / name / folder).mkdir(parents=True)
            for file in ("model.safetensors", "optimizer.safetensors", "state.json"):
                (tmp_path / name / folder / file).write_bytes(last)
        (tmp_path / name / "events.jsonl").write_text(told)
    (tmp_path / "d" / ".run.json.tmp-1").touch()
    options = type("Options", (), {"steps": 1, "save_every": 1, "batch": 1})
    a, b, c, d = (script.Run(tmp_path / name, options) for name in "abcd")
    script.compare(a, a)
    for other, message in ((b, "not equal"), (c, "every step once"), (d, "left behind")):
        with pytest.raises(SystemExit, match=message):
            script.compare(other, a)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_run_saves_and_goes_on(number: int, trained: Path, tmp_path: Path) -> None:
    def command(out: str, steps: int = 100_000) -> list[str]:
        words = (
            "train",
            "--corpus",
            trained / "corpus.txt",
            "--out",
            tmp_path / out,
            "--steps",
            steps,
            "--seed",
            1,
        )
        return [str(w) for w in (*words, "--schedule", "constant", "--set", "schedule.warmup=0", *NANO)]

    run = subprocess.Popen(
        [sys.executable, "-m", "tinygpt", *command("run")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ),
    )  # fmt: skip
    try:
        assert run.stderr is not None and run.stderr.readline().startswith("train: "), "it took the lock"
        if number == signal.SIGINT:
            second = process(*command("second"))
            refused(
                second, rf"another run holds the machine: 'train' \(process {run.pid}, since 2", hint="--wait"
            )
            assert not (tmp_path / "second").exists()
        run.send_signal(number)
        out, err = run.communicate(timeout=60)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 130, err
    assert out.startswith("interrupted at step ") and "--resume" in out
    step = int(out.split()[3].rstrip(":").replace(",", ""))
    saved = tmp_path / "run" / "steps" / f"{step:06d}"
    checkpoint.validate(saved)
    assert checkpoint.read_json(saved / "state.json")["step"] == step
    assert not (tmp_path / "run" / "final").exists(), "it is not finished"
    # Going on for two steps more than it had made equals a run that was never interrupted.
    more = (*command("run", step + 2), "--resume")
    refused(process(*more), r"cannot resume .*steps 100000 -> ")
    record = tmp_path / "run" / "run.json"
    record.write_text(record.read_text().replace('"steps": 100000', f'"steps": {step + 2}'))
    good(*more)
    good(*command("straight", step + 2))
    files = [tmp_path / name / "final" / "model.safetensors" for name in ("run", "straight")]
    assert files[0].read_bytes() == files[1].read_bytes()
    told = events.read(tmp_path / "run" / "events.jsonl")
    assert [e["step"] for e in told if e["kind"] == "train.step"] == list(range(1, step + 3))
