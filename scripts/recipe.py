"""The recipe of docs/recipe.md, whole: what a student of the file-operations world learns from, compared.

    python scripts/recipe.py --out runs/recipe [--seeds 0,1,2] [--only base,data,students,table]

1. base      a small student from nothing on requests of one step, every token learned
2. data      of the tasks after those: `labels`, their gold answers, and `gold`, the same as trajectories, for
             the first few, as if labels were dear; `teacher`, what the larger specialist answers to all of
             them and executing finds right
3. students  from the base, for equally many steps: on labels, on gold, on the teacher's right answers, on
             these with the teacher's distributions beside them (`soft`), and on the right answers of the
             `labels` student itself (`rest`)
4. table     executed-state accuracy on the three held-out sets, mean and range over seeds

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

TEACHER = Path(__file__).resolve().parents[1] / "specialists" / "file-ops-tiny"
STUDENT = dataclasses.replace(demo.RECIPE, layers=3, width=96)
N_BASE, N_LABELS, N_ALL, N_HELD_OUT = 20_000, 1_000, 8_000, 400
KINDS = ("labels", "gold", "teacher", "soft", "rest")


def tinygpt(*words: object) -> None:
    """One command of the toolkit; the script ends where it does not succeed."""
    done = subprocess.run([sys.executable, "-m", "tinygpt", *map(str, words), "--quiet"])
    if done.returncode:
        sys.exit(f"tinygpt {words[0]} ended with {done.returncode}")


def base(out: Path, steps: int) -> None:
    """Next-token prediction on requests of one step, with the teacher's tokenizer."""
    tasks = world.splits(0, N_BASE, N_HELD_OUT)["train"]
    rows.write(out / "base.jsonl", ({"messages": world.to_messages(t)} for t in tasks if len(t.gold) <= 1))
    files.write_json(out / "base.json", {"model": STUDENT.fields()})
    tinygpt(
        "sft", "--data", out / "base.jsonl", "--out", out / "base", "--tokenizer", TEACHER / "model",
        "--learn", "all", "--steps", steps, "--batch", STUDENT.batch, "--context", STUDENT.context,
        "--lr", STUDENT.lr, "--optimizer", STUDENT.optimizer.name, "--seed", 0, "--force", "--no-lock",
        "--config", out / "base.json",
    )  # fmt: skip


def data(out: Path) -> None:
    """Labels for a few tasks, the teacher's right answers for all of them."""
    few = ["--world", "file_ops", "--first", N_BASE, "--n", N_LABELS]
    every = ["--world", "file_ops", "--first", N_BASE, "--n", N_ALL]
    tinygpt("gold-clone", *few, "--no-trajectory", "--out", out / "labels.jsonl")
    tinygpt("gold-clone", *few, "--out", out / "gold.jsonl")
    tinygpt("reject", TEACHER, *every, "--samples", 2, "--max-tokens", 160, "--out", out / "teacher.jsonl")


def student(out: Path, kind: str, seed: int, steps: int) -> None:
    """One student."""
    run, taught = out / f"{kind}-{seed}", out / f"{kind}.jsonl"
    if kind == "rest":
        taught = out / f"rest-{seed}.jsonl"
        tinygpt(
            "reject", out / f"labels-{seed}" / "final", "--world", "file_ops", "--first", N_BASE,
            "--n", N_ALL, "--samples", 2, "--max-tokens", 160, "--seed", seed, "--out", taught,
        )  # fmt: skip
    words = ["sft"]
    if kind == "soft":
        words, taught = ["distill", "--teacher", str(TEACHER)], out / "teacher.jsonl"
    tinygpt(
        *words, out / "base" / "final", "--data", taught, "--out", run, "--full", "--steps", steps,
        "--batch", 8, "--context", STUDENT.context, "--lr", "1e-3", "--seed", seed, "--force", "--no-lock",
    )  # fmt: skip


def measure(run: Path) -> None:
    """Executed-state accuracy on each held-out set, beside the model."""
    made = run / "rows.jsonl"
    tinygpt(
        "eval", run / "final", "--suite", "executed_state", "--set", f"options.executed_state.n={N_HELD_OUT}",
        "--set", "options.executed_state.max_tokens=160", "--out", made,
    )  # fmt: skip
    found = [json.loads(line) for line in made.read_text(encoding="utf-8").splitlines()]
    scores = {row["subtask"]: row["score"] for row in found if row["subtask"] in world.HELD_OUT_SETS}
    files.write_json(run / "scores.json", scores)


def line(out: Path, name: str, runs: list[str]) -> str:
    """Mean and range over the seeds of each set."""
    scores = [json.loads((out / run / "scores.json").read_text()) for run in runs]
    cells: list[str] = []
    for held_out in world.HELD_OUT_SETS:
        values = [100 * one[held_out] for one in scores]
        cells.append(f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})")
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    """All stages that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default="base,data,students,table")
    parser.add_argument("--base-steps", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=500)
    asked = parser.parse_args()
    out, stages, seeds = asked.out, asked.only.split(","), [int(s) for s in asked.seeds.split(",")]
    out.mkdir(parents=True, exist_ok=True)
    if "base" in stages and not (out / "base" / "final").exists():
        base(out, asked.base_steps)
    if "data" in stages and not (out / "teacher.jsonl").exists():
        data(out)
    if "students" in stages:
        for seed in seeds:
            for kind in KINDS:
                run = out / f"{kind}-{seed}"
                if not (run / "final").exists():
                    student(out, kind, seed, asked.steps)
                if not (run / "scores.json").exists():
                    measure(run)
                    print(run.name, (run / "scores.json").read_text(), flush=True)
    if "table" in stages:
        if not (out / "base" / "scores.json").exists():
            measure(out / "base")
        print("| learned from |", " | ".join(world.HELD_OUT_SETS), "|")
        print("|---" * (1 + len(world.HELD_OUT_SETS)) + "|")
        print(line(out, "base", ["base"]))
        for kind in KINDS:
            print(line(out, kind, [f"{kind}-{seed}" for seed in seeds]))


if __name__ == "__main__":
    main()
