"""Kill a training run at random moments, resume it each time, and compare the end with a run that was left alone.

    python scripts/kill_test.py --kills 100

Each attempt is the same `tinygpt train ... --resume` and gets SIGKILL after a random delay, so that kills land at
start-up, between steps and during saves. After every kill all checkpoints must be valid; at the end weights, optimizer
and run state must equal the straight run's byte for byte, and events.jsonl must hold every step once, with the
same losses. How far an attempt may get follows from how much is left, so that all kills fall into one run;
should it end early all the same, another one takes the rest.
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

WORDS = "the quick brown fox jumps over a lazy dog while seven small boats sail home before night".split()


class Run:
    """One run directory and the command that makes it."""

    def __init__(self, out: Path, options: argparse.Namespace, resume: bool) -> None:
        self.out, self.steps = out, options.steps
        self.command = [
            sys.executable, "-m", "tinygpt", "train", "--corpus", str(out.parent / "corpus.txt"), "--out", str(out),
            "--steps", str(options.steps), "--save-every", str(options.save_every), "--batch", str(options.batch),
            "--context", "64", "--set", "model.hidden_size=64", "--seed", "7", "--quiet", *(["--resume"] if resume else []),
        ]  # fmt: skip
        self.env = {**os.environ, "TINYGPT_CACHE": str(out.parent / "cache"), "OPENBLAS_NUM_THREADS": "1"}

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def finish(self) -> None:
        """Run to the end without a kill."""
        process = self.start()
        errors = process.communicate()[1]
        if process.returncode != 0:
            raise SystemExit(f"the run ended with {process.returncode}:\n{errors}")

    def events(self) -> list[dict[str, Any]]:
        path = self.out / "events.jsonl"
        return events.read(path) if path.exists() else []

    def trained(self) -> list[tuple[int, float, float]]:
        """(step, loss, learning rate) of every step told."""
        return [(e["step"], e["loss"], e["lr"]) for e in self.events() if e["kind"] == "train.step"]

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
        return {
            str(p.relative_to(self.out)): p.read_bytes()
            for p in (*names, self.out / "final" / "model.safetensors")
        }

    def hidden(self) -> list[str]:
        """Temporary files that somebody left."""
        return [str(p.relative_to(self.out)) for p in self.out.rglob(".*")]


def measure(straight: Run) -> tuple[float, float]:
    """Run it; (seconds until the first step, seconds between two saves)."""
    began = time.time()
    straight.finish()
    told = straight.events()
    first = next(e["t"] for e in told if e["kind"] == "train.step")
    saves = [e["t"] for e in told if e["kind"] == "checkpoint.saved"]
    return first - began, (saves[-1] - saves[0]) / max(1, len(saves) - 1)


def attempt(run: Run, delay: float) -> str | None:
    """Start, kill after `delay`, and say where that was; None when the run ended before."""
    before = len(run.events())
    process = run.start()
    try:
        errors = process.communicate(timeout=delay)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        if any(run.out.rglob(f".*.tmp-{process.pid}")):
            return "while writing"
        # A start rewinds events.jsonl to the checkpoint and adds one line; more of them are steps.
        told = run.events()
        mine = [e for e in told[::-1] if e["kind"] == "run.started"][:1]
        stepped = len(told) != before and told[-1:] != mine
        return "between steps" if stepped else "at start-up"
    if process.returncode != 0:
        raise SystemExit(f"the resumed run ended with {process.returncode}:\n{errors}")
    return None


def compare(run: Run, straight: Run) -> None:
    """Everything that must be equal is."""
    ours, theirs = run.files(), straight.files()
    different = [name for name in theirs if ours[name] != theirs[name]]
    if different:
        raise SystemExit(f"not equal to the run that was left alone: {', '.join(different)}")
    told = run.trained()
    if [step for step, *_ in told] != list(range(1, run.steps + 1)) or told != straight.trained():
        raise SystemExit("events.jsonl does not hold every step once, with the straight run's losses")
    if run.hidden():
        raise SystemExit(f"left behind: {', '.join(run.hidden())}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save-every", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    draw, began = random.Random(options.seed), time.time()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        text = random.Random(1)
        lines = (" ".join(text.choices(WORDS, k=9)) for _ in range(600))
        (root / "corpus.txt").write_text("\n".join(lines), encoding="utf-8")
        straight = Run(root / "straight", options, resume=False)
        startup, interval = measure(straight)
        where: Counter[str] = Counter()
        runs = [Run(root / "killed-1", options, resume=True)]
        while where.total() < options.kills:
            left = (options.steps - runs[-1].saved()) / options.save_every
            chance = min(0.9, max(0.02, left / (options.kills - where.total())))  # of reaching one more save
            window = startup + (chance * startup + interval) / (1 - chance)
            place = attempt(runs[-1], draw.uniform(0, window))
            if place is None:
                compare(runs[-1], straight)
                runs.append(Run(root / f"killed-{len(runs) + 1}", options, resume=True))
            else:
                where[place] += 1
        runs[-1].saved()
        runs[-1].finish()
        compare(runs[-1], straight)
    places = ", ".join(f"{n} {place}" for place, n in sorted(where.items()))
    print(
        f"{where.total()} kills of a {options.steps}-step run ({places}), {len(runs)} run(s), {time.time() - began:.0f} s: "
        "every checkpoint valid, weights, optimizer and state byte-equal, every step told once"
    )


if __name__ == "__main__":
    main()
