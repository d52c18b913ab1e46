"""Does the specialist's gate stop a model that learned from labels of which one in five is wrong?

    python scripts/gate_corrupted.py --out runs/corrupted [--steps 3000] [--seeds 0]

The shipped specialist learns on, with all weights, on tasks of its own training split: once with the right
answers, once with a fifth of the answers dealt out to other requests. Everything else is the same, so what
the gate says of the two is about the labels alone. Then `specialists/file-ops-tiny/eval-gate.json` judges
both.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from tinygpt.data import rows
from tinygpt.data.world import file_ops as world

SPECIALIST = Path(__file__).resolve().parents[1] / "specialists" / "file-ops-tiny"
N_TASKS, N_HELD_OUT, WRONG = 40_000, 400, 0.2


def corrupted(messages: list[list[dict[str, Any]]], seed: int) -> list[list[dict[str, Any]]]:
    """The same requests; a fifth of them has the answer to another one of that fifth."""
    draw = random.Random(seed)
    chosen = draw.sample(range(len(messages)), round(WRONG * len(messages)))
    found = list(messages)
    for i, other in zip(chosen, chosen[1:] + chosen[:1], strict=True):
        found[i] = [*messages[i][:-1], messages[other][-1]]
    return found


def trained(out: Path, labels: str, steps: int, seed: int) -> Path:
    """The model that learned on; made once."""
    run = out / f"{labels}-{seed}"
    if not (run / "final").exists():
        words = [
            "sft", SPECIALIST, "--data", out / f"{labels}-{seed}.jsonl", "--out", run, "--full",
            "--steps", steps, "--batch", 8, "--context", 256, "--lr", "3e-4", "--seed", seed, "--force",
            "--quiet",
        ]  # fmt: skip
        subprocess.run([sys.executable, "-m", "tinygpt", *map(str, words)], check=True)
    return run / "final"


def main() -> None:
    """One line for each model: the gate's exit code, and what it read of each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", default="0")
    asked = parser.parse_args()
    tasks = world.splits(0, N_TASKS, N_HELD_OUT)["train"]
    right = [world.to_messages(task) for task in tasks]
    asked.out.mkdir(parents=True, exist_ok=True)
    for seed in map(int, asked.seeds.split(",")):
        for labels, messages in (("right", right), ("corrupted", corrupted(right, seed))):
            rows.write(asked.out / f"{labels}-{seed}.jsonl", ({"messages": one} for one in messages))
            model, told = (
                trained(asked.out, labels, asked.steps, seed),
                asked.out / f"{labels}-{seed}-gate.json",
            )
            words = ["eval-gate", "--spec", SPECIALIST / "eval-gate.json", "--model", model, "--out", told]
            done = subprocess.run([sys.executable, "-m", "tinygpt", *map(str, words), "--quiet"])
            suites = json.loads(told.read_text(encoding="utf-8"))["suites"]
            print(
                labels,
                seed,
                "exit",
                done.returncode,
                [(s["task"], s["verdict"], s["deltaPP"]) for s in suites],
            )


if __name__ == "__main__":
    main()
