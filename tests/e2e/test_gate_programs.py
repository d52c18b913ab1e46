"""Programs of a gate: they end with it however it ends, and measure their own suite alone."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from e2e.shell import tinygpt
from gates import measured, write

# Holds a lock while it lives, in a child of its own too; "told" says that it heard SIGTERM.
HOLD = "import fcntl, signal\nf = open('lock', 'w')\nfcntl.flock(f, fcntl.LOCK_EX)\n"
CHILD = HOLD + "print('held', flush=True)\nsignal.alarm(120)\nsignal.pause()"
PROGRAM = f"""
import signal, subprocess, sys
def heard(*_):
    open("told", "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, heard)
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE)
child.stdout.readline()
with open("begun", "w") as file:
    file.write("x")
child.wait()
"""


def spec(folder: Path, **suites: list[str]) -> Path:
    """A gate of programs by their suites' names."""
    write(folder / "old.jsonl", [measured()])
    made: dict[str, Any] = {"baseline": "old.jsonl"}
    made["suites"] = [{"name": name, "command": command} for name, command in suites.items()]
    (folder / "gate.json").write_text(json.dumps(made), encoding="utf-8")
    return folder / "gate.json"


def _heeding() -> None:
    """Tests that nohup, or a shell in the background, started pass on that these are ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_nothing_goes_on_after_a_signal(name: str, tmp_path: Path) -> None:
    """The lock that a child of the suite's program holds can be taken, and no folder is left."""
    number, scratch = getattr(signal, name), tmp_path / "tmp"
    scratch.mkdir()
    os.mkfifo(tmp_path / "begun")  # reading it waits until the suite runs
    made = spec(tmp_path, t=[sys.executable, "-c", PROGRAM])
    words = ["eval-gate", "--spec", made, "--out", "result.json"]
    gate = subprocess.Popen(
        [sys.executable, "-m", "tinygpt", *map(str, words)], cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(scratch)},
        preexec_fn=_heeding,
    )  # fmt: skip
    try:
        assert (tmp_path / "begun").read_text() == "x"
        gate.send_signal(number)
        _, err = gate.communicate(timeout=60)
    finally:
        gate.kill()
        gate.wait()
    with (tmp_path / "lock").open("w") as file:
        taken = threading.Thread(target=lambda: fcntl.flock(file, fcntl.LOCK_EX), daemon=True)
        taken.start()
        taken.join(timeout=30)
        assert not taken.is_alive(), "a child of the suite goes on"
    if name == "SIGKILL":
        return
    assert gate.returncode == 130 and err.splitlines()[-1] == "tinygpt: interrupted; nothing more was saved"
    assert (tmp_path / "told").exists(), "the program could end by itself"
    assert not list(scratch.iterdir())
    assert not json.loads((tmp_path / "result.json").read_text())["passed"]


def test_a_program_measures_its_own_suite_alone(tmp_path: Path) -> None:
    """Rows of another suite's task are the fault of the program that wrote them, and do not count there."""
    write(tmp_path / "t.jsonl", [measured()])
    write(tmp_path / "u.jsonl", [measured(task="u")])
    both = "import os, sys; out = open(os.environ['TINYGPT_EVAL_OUT'], 'w')\n"
    both += "for name in sys.argv[1:]: out.write(open(name).read())"
    copy = [sys.executable, "-c", both]
    gate = spec(tmp_path, t=[*copy, "t.jsonl", "u.jsonl"], u=[*copy, "u.jsonl"])
    done = tinygpt("eval-gate", "--spec", gate, "--update-baseline", "--out", tmp_path / "result.json")
    assert done.code == 2
    assert "t: it wrote rows of the task 'u', which is of the suite 'u'" in done.out
    gate = spec(tmp_path, t=[*copy, "t.jsonl"], u=[*copy, "u.jsonl"])
    done = tinygpt("eval-gate", "--spec", gate, "--update-baseline", "--out", tmp_path / "result.json")
    assert done.code == 0, done.out
