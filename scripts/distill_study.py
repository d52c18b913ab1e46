"""What a teacher is worth: a deep teacher of Python's standard library, and tiny students taught by it.

    python scripts/distill_study.py --out runs/study [--seeds 0,1,2] [--only tokenizers,teacher,students]

A teacher of 12 layers learns the standard library's sources of this Python (no tests, no packages). Then
tiny students, two layers with a mixture of experts, learn the same text: from the text alone for a start,
and from there for equally many steps each from the text alone, by forward KL, by reverse KL, and on-policy
(a quarter of the steps on their own continuations, forward KL). The students of `same` have the teacher's
tokenizer, those of `other` a smaller one of their own. Stages that are done are not repeated. The table
gives held-out bits per byte, on the library's last files, and the bits per byte that the teacher finds in
what a student writes (256 texts at temperature 1), mean and range over the seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

LEAVE_OUT = "site-packages,test,tests,idlelib,lib2to3,pydoc_data,__pycache__,turtledemo"
TEACHER = ["--set", "model.num_hidden_layers=12", "--set", "model.hidden_size=128"]
STUDENT = ["--set", "model.num_hidden_layers=2", "--set", "model.hidden_size=64", "--moe-experts", "4"]
START = "start"
WAYS = {
    START: ["--alpha", "0"],
    "labels": ["--alpha", "0"],
    "forward KL": ["--alpha", "0.5", "--loss", "forward_kl"],
    "reverse KL": ["--alpha", "0.25", "--loss", "reverse_kl"],
    "on-policy": ["--alpha", "0.5", "--loss", "forward_kl", "--on-policy", "0.25"],
}
VOCABULARY = {"same": 2048, "other": 1024}
BEGINNINGS = ("def ", "class ", "import ", "    if ")


def tinygpt(*words: object) -> str:
    """What one command of the toolkit prints; the script ends where it does not succeed."""
    command = [sys.executable, "-m", "tinygpt", *map(str, words), "--quiet"]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode:
        sys.exit(f"tinygpt {words[0]} ended with {done.returncode}")
    return done.stdout


def text(out: Path) -> list[object]:
    """Flags that name the text: the sources of this Python's standard library, copied once."""
    folder = out / "library"
    if not folder.exists():
        root = Path(os.__file__).parent
        ignored = shutil.ignore_patterns(*LEAVE_OUT.split(","), "*.so", "*.pyc", "config-*")
        shutil.copytree(root, folder.with_suffix(".new"), ignore=ignored)
        folder.with_suffix(".new").rename(folder)
    return ["--corpus", folder, "--glob", "*.py"]


def students(out: Path, kind: str, way: str, seed: int, steps: int) -> Path:
    """One student: fresh for the start, else from the start of its seed."""
    run = out / f"{kind}-{way.replace(' ', '-')}-{seed}"
    if not (run / "final").exists():
        fresh = ["--tokenizer", out / f"tokenizer-{kind}", *STUDENT]
        begun = [out / f"{kind}-{START}-{seed}" / "final", "--full"]
        tinygpt(
            "distill", *(fresh if way == START else begun), "--teacher", out / "teacher", *text(out),
            "--out", run, "--steps", steps, "--batch", 8, "--context", 128, "--lr", "3e-3", "--seed", seed,
            "--no-lock", "--force", *WAYS[way],
        )  # fmt: skip
    return run


def written(run: Path) -> Path:
    """What a student writes when it is left alone: 64 texts after each beginning."""
    folder = run / "written"
    if not folder.exists():
        made = folder.with_suffix(".new")
        made.mkdir(exist_ok=True)
        for prompt in BEGINNINGS:
            words = ["--prompt", prompt, "--n", 64, "--tokens", 100, "--ignore-eos", "--temperature", 1]
            found = tinygpt("sample", run / "final", *words, "--seed", 0, "--json")
            for n, answer in enumerate(json.loads(found)["answers"]):
                (made / f"{prompt.strip()}-{n}.py").write_text(prompt + answer["text"], encoding="utf-8")
        made.rename(folder)
    return folder


def bits(model: Path, corpus: Path, rows: Path) -> float:
    """Bits per byte of a model on a folder of files, and its rows in a file."""
    if not rows.exists():
        tinygpt("eval", model, "--corpus", corpus, "--glob", "*.py", "--out", rows)
    found = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    return next(row["score"] for row in found if row["metric"] == "bits_per_byte")


def cell(found: list[float]) -> str:
    """Mean and range."""
    return f"{statistics.mean(found):.3f} ({min(found):.3f} to {max(found):.3f})"


def main() -> None:
    """All stages that are asked for, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default="tokenizers,teacher,students")
    parser.add_argument("--kinds", default="same,other")
    parser.add_argument("--teacher-steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=400)
    asked = parser.parse_args()
    out, stages, seeds = asked.out, asked.only.split(","), [int(s) for s in asked.seeds.split(",")]
    kinds = asked.kinds.split(",")
    out.mkdir(parents=True, exist_ok=True)
    corpus = text(out)
    aside = out / "held-out"
    if not aside.exists():  # the last files in sorted order, out of everyone's way
        files = sorted((out / "library").rglob("*.py"))
        aside.mkdir()
        for path in files[-20:]:
            path.rename(aside / f"{path.parent.name}-{path.name}")
    if "tokenizers" in stages:
        for kind in kinds:
            if not (out / f"tokenizer-{kind}").exists():
                where = out / f"tokenizer-{kind}"
                tinygpt("tokenize-train", *corpus, "--vocab-size", VOCABULARY[kind], "--out", where)
    if "teacher" in stages and not (out / "teacher" / "final").exists():
        tinygpt(
            "train", *corpus, "--tokenizer", out / "tokenizer-same", "--out", out / "teacher", *TEACHER,
            "--steps", asked.teacher_steps, "--batch", 8, "--context", 256, "--lr", "2e-3", "--seed", 0,
            "--no-lock", "--force",
        )  # fmt: skip
    if "students" in stages:
        teacher = out / "teacher"
        print("| student | bits per byte of held-out files | of what it writes, as the teacher reads it |")
        print("|---|---|---|")
        print(f"| the teacher | {bits(teacher, aside, teacher / 'rows.jsonl'):.3f} | - |", flush=True)
        for kind in kinds:
            for way in WAYS:
                runs = [students(out, kind, way, seed, asked.steps) for seed in seeds]
                reads = [bits(run, aside, run / "rows.jsonl") for run in runs]
                writes = [bits(teacher, written(run), run / "written.jsonl") for run in runs]
                print(f"| {kind}, {way} | {cell(reads)} | {cell(writes)} |", flush=True)


if __name__ == "__main__":
    main()
