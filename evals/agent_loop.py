"""The loop that closes: a specialist works, and what it did right makes the next specialist (docs/agent.md).

    python evals/agent_loop.py --out runs/loop [--seeds 0,1,2] [--n 4000]

1. base      a small model from nothing on requests of one step
2. parent    it learns a thousand trajectories: calls, their results, and a closing turn
3. traces    the parent works in the agent on tasks that nobody has shown it; each leaves an .atraj file
4. data      traces-to-data keeps what ended in the right state
5. child     the base learns that beside the thousand trajectories, for as many steps as the parent
6. control   the base learns the thousand for as many steps again as both have had, so that more steps alone
             are no explanation
7. verdict   executed state on the three held-out sets, and whether eval-gate lets the child ship in the
             parent's place

Stages that are done are not repeated: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
from pathlib import Path

from tinygpt.core import files
from tinygpt.data import rows
from tinygpt.data.world import file_ops as world
from tinygpt.project import demo

SHIPPED = Path(__file__).resolve().parents[1] / "specialists" / "file-ops-tiny"  # its tokenizer is used
STUDENT = dataclasses.replace(demo.RECIPE, layers=3, width=96)
N_BASE, N_SHOWN, N_HELD_OUT = 20_000, 1_000, 400
KINDS = ("parent", "child", "control")


def tinygpt(*words: object, may: tuple[int, ...] = (0,)) -> int:
    """One command of the toolkit and its exit code; the script ends at one that is not expected."""
    done = subprocess.run([sys.executable, "-m", "tinygpt", *map(str, words), "--quiet"])
    if done.returncode not in may:
        sys.exit(f"tinygpt {words[0]} ended with {done.returncode}")
    return done.returncode


def base(out: Path, steps: int) -> None:
    """Next-token prediction on requests of one step."""
    if (out / "base" / "final").exists():
        return
    tasks = world.splits(0, N_BASE, N_HELD_OUT)["train"]
    rows.write(out / "base.jsonl", ({"messages": world.to_messages(t)} for t in tasks if len(t.gold) <= 1))
    files.write_json(out / "base.json", {"model": STUDENT.fields()})
    tinygpt(
        "sft", "--data", out / "base.jsonl", "--out", out / "base", "--tokenizer", SHIPPED / "model",
        "--learn", "all", "--steps", steps, "--batch", STUDENT.batch, "--context", STUDENT.context,
        "--lr", STUDENT.lr, "--optimizer", STUDENT.optimizer.name, "--seed", 0, "--force", "--no-lock",
        "--config", out / "base.json",
    )  # fmt: skip


def learned(out: Path, name: str, seed: int, steps: int, *data: Path) -> Path:
    """A model that learned trajectories from the base."""
    run = out / f"{name}-{seed}"
    if not (run / "final").exists():
        given = [word for path in data for word in ("--data", path)]
        tinygpt(
            "sft", out / "base" / "final", *given, "--out", run, "--full", "--steps", steps, "--batch", 8,
            "--context", STUDENT.context, "--lr", "1e-3", "--seed", seed, "--force", "--no-lock",
        )  # fmt: skip
    return run / "final"


def traced(out: Path, parent: Path, seed: int, n: int) -> Path:
    """Rows of what the parent did right, from its traces."""
    folder, made = out / f"traces-{seed}", out / f"traces-{seed}.jsonl"
    if not made.exists():
        if len(list(folder.glob("*.atraj"))) < n:
            subprocess.run(["rm", "-rf", folder], check=True)
            tinygpt(
                "agent", parent, "--world", "file_ops", "--first", N_BASE + N_SHOWN, "--n", n,
                "--no-show-tools", "--temperature", 0.7, "--max-steps", 3, "--max-tokens", 120,
                "--seed", seed, "--trajectory-dir", folder,
            )  # fmt: skip
        tinygpt("traces-to-data", folder, "--success-only", "--out", made)
    return made


def measured(run: Path) -> dict[str, float]:
    """Executed-state accuracy on each held-out set."""
    made = run / "rows.jsonl"
    if not made.exists():
        tinygpt(
            "eval", run / "final", "--suite", "executed_state", "--out", made,
            "--set", f"options.executed_state.n={N_HELD_OUT}",
            "--set", "options.executed_state.max_tokens=160",
        )  # fmt: skip
    found = [json.loads(line) for line in made.read_text(encoding="utf-8").splitlines()]
    return {row["subtask"]: row["score"] for row in found if row["subtask"] in world.HELD_OUT_SETS}


def gated(out: Path, seed: int) -> int:
    """Whether the child may take the parent's place: the exit code of eval-gate."""
    told = out / f"gate-{seed}-result.json"
    if told.exists():
        return int(not json.loads(told.read_text(encoding="utf-8"))["passed"])
    spec = {
        "baseline": f"parent-{seed}/rows.jsonl",
        "model": f"child-{seed}/final",
        "budget": {"max_tokens": 160, "temperature": 0.0, "top_p": 1.0, "wall_seconds": 3600},
        "suites": [
            {
                "name": "file-ops", "task": "file_ops", "suite": "executed_state",
                "subtasks": list(world.HELD_OUT_SETS), "options": {"n": N_HELD_OUT, "max_tokens": 160},
            }
        ],
    }  # fmt: skip
    files.write_json(out / f"gate-{seed}.json", spec)
    return tinygpt("eval-gate", "--spec", out / f"gate-{seed}.json", "--out", told, may=(0, 1))


def main() -> None:
    """All stages, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--n", type=int, default=4000)
    parser.add_argument("--base-steps", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=500)
    asked = parser.parse_args()
    out, seeds = asked.out, [int(seed) for seed in asked.seeds.split(",")]
    out.mkdir(parents=True, exist_ok=True)
    base(out, asked.base_steps)
    gold = out / "gold.jsonl"
    if not gold.exists():
        tinygpt("gold-clone", "--world", "file_ops", "--first", N_BASE, "--n", N_SHOWN, "--out", gold)
    for seed in seeds:
        parent = learned(out, "parent", seed, asked.steps, gold)
        learned(out, "child", seed, asked.steps, gold, traced(out, parent, seed, asked.n))
        learned(out, "control", seed, 2 * asked.steps, gold)
        for kind in KINDS:
            print(f"{kind}-{seed}", measured(out / f"{kind}-{seed}"), flush=True)
        print(f"gate {seed}: exit {gated(out, seed)}", flush=True)
    print("| |", " | ".join(world.HELD_OUT_SETS), "|")
    print("|---" * (1 + len(world.HELD_OUT_SETS)) + "|")
    for kind in KINDS:
        scores = [measured(out / f"{kind}-{seed}") for seed in seeds]
        cells: list[str] = []
        for held_out in world.HELD_OUT_SETS:
            values = [100 * one[held_out] for one in scores]
            cells.append(f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})")
        print(f"| {kind} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
