"""Kill a training run at random moments, resume it each time, compare its end with a run left alone.

    python scripts/kill_test.py --kills 100

Each attempt is the same `tinygpt train ... --resume` and gets SIGKILL after a random delay, so that kills
land at start-up, between steps and during saves. After every kill all checkpoints must be valid; at the end
weights, optimizer and run state must equal the straight run's byte for byte, and events.jsonl must hold every
step once, with the same losses. How far an attempt may get follows from how much is left, so that all kills
fall into one run; should it end early all the same, another one takes the rest.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tinygpt.core import events
from tinygpt.model import checkpoint

GUARD = (events.Spike.kind, events.RolledBack.kind)
TEXT = "the quick brown fox jumps over a lazy dog while seven small boats sail home before night"


class Run:
    """One run directory and the command that makes it."""

    def __init__(self, out: Path, options: argparse.Namespace, *more: str) -> None:
        self.out, self.steps = out, options.steps
        self.command = [
            sys.executable, "-m", "tinygpt", "train", "--corpus", str(out.parent / "corpus.txt"),
            "--out", str(out), "--steps", str(options.steps), "--save-every", str(options.save_every),
            "--batch", str(options.batch), "--context", "32", "--set", "model.hidden_size=32",
            "--set", "model.num_hidden_layers=2", "--seed", "7", "--quiet", *more,
        ]  # fmt: skip
        self.env = {**os.environ, "TINYGPT_CACHE": str(out.parent / "cache"), "OPENBLAS_NUM_THREADS": "1"}

    def go(self, seconds: float | None = None) -> int | None:
        """Run to the end, or kill it after so many seconds: then the process id."""
        pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        process = subprocess.Popen(self.command, env=self.env, text=True, **pipes)
        try:
            errors = process.communicate(timeout=seconds)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return process.pid
        if process.returncode != 0:
            raise SystemExit(f"the run ended with {process.returncode}:\n{errors}")
        return None

    def events(self, since: float = 0.0) -> list[dict[str, Any]]:
        path = self.out / "events.jsonl"
        return [e for e in events.read(path) if e["t"] >= since] if path.exists() else []

    def saved(self) -> int:
        """Validate every checkpoint; the step of the newest."""
        found = sorted((self.out / "steps").glob("[0-9]*"))
        for path in found:
            checkpoint.validate(path)
        return int(found[-1].name) if found else 0

    def files(self) -> dict[str, bytes]:
        """What must come out the same."""
        last = self.out / "steps" / f"{self.steps:06d}"
        names = [last / n for n in ("model.safetensors", "optimizer.safetensors", "state.json")]
        names.append(self.out / "final" / "model.safetensors")
        return {str(p.relative_to(self.out)): p.read_bytes() for p in names}


class Pace:
    """How long a start and the steps between two saves take here, and the delays that follow."""

    def __init__(self) -> None:
        self.startup, self.interval = 0.0, 0.0

    def learn(self, began: float, killed: float, told: list[dict[str, Any]]) -> None:
        steps = [e["t"] - began for e in told if e["kind"] == "train.step"]
        seen = steps[0] if steps else max(self.startup, killed - began)
        self.startup = (self.startup + seen) / 2 if self.startup else seen

    def delay(self, draw: random.Random, saves: float) -> float:
        """Such that attempts make `saves` saves in the mean: where that is few, most end before the first."""
        if draw.random() >= saves:
            return draw.uniform(0, self.startup + 0.9 * self.interval)
        return self.startup + self.interval * max(1.0, 0.8 * saves) * draw.uniform(1, 1.5)


def compare(run: Run, straight: Run) -> None:
    """Everything that must be equal is."""
    ours, theirs = run.files(), straight.files()
    different = [name for name in theirs if ours[name] != theirs[name]]
    if different:
        raise SystemExit(f"not equal to the run that was left alone: {', '.join(different)}")
    told, wanted = (
        [(e["step"], e["loss"]) for e in r.events() if e["kind"] == "train.step"] for r in (run, straight)
    )
    judged, known = (
        [(e["kind"], e["step"]) for e in r.events() if e["kind"] in GUARD] for r in (run, straight)
    )
    if judged != known:
        raise SystemExit("events.jsonl does not hold the straight run's spikes and returns")
    if told != wanted or [step for step, _ in told] != list(range(1, run.steps + 1)):
        raise SystemExit("events.jsonl does not hold every step once, with the straight run's losses")
    if hidden := [str(p) for p in run.out.rglob(".*")]:
        raise SystemExit(f"left behind: {', '.join(hidden)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, value in {"kills": 100, "steps": 200, "save-every": 10, "batch": 16, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"[{value}]")
    parser.add_argument("more", nargs="*", help="further options of the command, after --")
    options = parser.parse_args()
    draw, pace, where, began = random.Random(options.seed), Pace(), Counter[str](), time.time()
    with tempfile.TemporaryDirectory() as folder:
        root, text = Path(folder), random.Random(1)
        lines = (" ".join(text.choices(TEXT.split(), k=9)) for _ in range(600))
        (root / "corpus.txt").write_text("\n".join(lines), encoding="utf-8")
        straight = Run(root / "straight", options, *options.more)
        straight.go()
        kinds = Counter(e["kind"] for e in straight.events())
        pace.learn(began, began, straight.events())
        saves = [e["t"] for e in straight.events() if e["kind"] == "checkpoint.saved"]
        pace.interval = (saves[-1] - saves[0]) / (len(saves) - 1)
        runs = [Run(root / "killed-1", options, *options.more, "--resume")]
        while where.total() < options.kills:
            run = runs[-1]
            left = (options.steps - run.saved()) / options.save_every
            started, kills = time.time(), options.kills - (where.total() if len(runs) == 1 else 0)
            pid = run.go(pace.delay(draw, (left - 1) / kills))
            if pid is None:  # it ended first: starting takes less than was thought
                pace.learn(started, time.time(), run.events(started))
                compare(run, straight)
                runs.append(Run(root / f"killed-{len(runs) + 1}", options, *options.more, "--resume"))
                continue
            told = run.events(started)
            pace.learn(started, time.time(), told)
            stepped = any(e["kind"] == "train.step" for e in told)
            writing = any(run.out.rglob(f".*.tmp-{pid}"))
            where["while writing" if writing else "between steps" if stepped else "at start-up"] += 1
        runs[-1].saved()
        runs[-1].go()
        compare(runs[-1], straight)
    if any(kinds[kind] for kind in GUARD):
        print(", ".join(f"{kinds[kind]} {kind}" for kind in GUARD))
    places = ", ".join(f"{n} {place}" for place, n in sorted(where.items()))
    spent = f"{len(runs)} run(s), {time.time() - began:.0f} s"
    print(f"{where.total()} kills of a {options.steps}-step run ({places}), {spent}: every checkpoint")
    print("valid; weights, optimizer and state byte-equal to the straight run's; every step told once")


if __name__ == "__main__":
    main()
