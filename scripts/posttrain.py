"""Tuning and preferences on the file-operations world, measured on tasks that no stage has seen.

    python scripts/posttrain.py --out runs/posttrain [--seeds 0,1,2] [--only base,sft,pairs,dpo,table]

1. base   a tiny model from nothing, on requests of one step, every token learned (next-token prediction)
2. sft    from that base on requests of one to three steps, answers only: LoRA, DoRA and all weights
3. pairs  each tuned model answers requests of several steps that no stage was trained on, four times each;
          where it is right and wrong, the shortest right answer is chosen over each wrong one
4. dpo    from each tuned model on its own pairs: adapters learn on, a model tuned in all weights gets a LoRA
5. table  executed-state accuracy of all of them on the three held-out sets, mean and range over seeds

Stages that are done are not repeated: the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tinygpt.core import files
from tinygpt.data import bpe, rows
from tinygpt.data.template import chatml
from tinygpt.data.template._spans import join
from tinygpt.data.world import file_ops as world
from tinygpt.eval.suites import executed_state as suite
from tinygpt.infer.config import SampleConfig
from tinygpt.project import demo
from tinygpt.runs.evaluate import LocalEndpoint

HOW = {
    "lora": ["--adapter", "lora", "--rank", "16", "--targets", "all-linear", "--lr", "4e-3"],
    "dora": ["--adapter", "dora", "--rank", "16", "--targets", "all-linear", "--lr", "4e-3"],
    "full": ["--full", "--lr", "1e-3"],
}
# Requests that pairs are made of: a better model gets fewer of them wrong.
N_PAIRS = {"lora": 2_000, "dora": 2_000, "full": 6_000}
N_TASKS, N_HELD_OUT, SAMPLES = 40_000, 400, 4


def tinygpt(*words: object) -> None:
    """One command of the toolkit; the script ends where it does not succeed."""
    done = subprocess.run([sys.executable, "-m", "tinygpt", *map(str, words), "--quiet"])
    if done.returncode:
        sys.exit(f"tinygpt {words[0]} ended with {done.returncode}")


def data(out: Path) -> None:
    """Rows of each stage, disjoint, and a tokenizer."""
    tasks = world.splits(0, N_TASKS, N_HELD_OUT)["train"]
    single = [t for t in tasks[: N_TASKS // 2] if len(t.gold) <= 1]
    parts = {"base": single, "sft": tasks[N_TASKS // 2 :]}
    for name, chosen in parts.items():
        rows.write(out / f"{name}.jsonl", ({"messages": world.to_messages(t)} for t in chosen))
    texts = [join(chatml.render(world.to_messages(t))) for t in tasks[:8000]]
    bpe.train_bpe(texts, bpe.Config(vocab_size=demo.RECIPE.vocab_size, pattern="copy")).save(
        out / "tokenizer"
    )


def base(out: Path, steps: int) -> None:
    """Next-token prediction on requests of one step."""
    recipe = demo.RECIPE
    (out / "base.json").write_text(json.dumps({"model": recipe.fields()}))
    tinygpt(
        "sft", "--data", out / "base.jsonl", "--out", out / "base", "--tokenizer", out / "tokenizer",
        "--learn", "all", "--steps", steps, "--batch", recipe.batch, "--context", recipe.context,
        "--lr", recipe.lr, "--optimizer", recipe.optimizer.name, "--seed", 0, "--force",
        "--config", out / "base.json",
    )  # fmt: skip


def sft(out: Path, how: str, seed: int, steps: int) -> None:
    """One tuned model."""
    tinygpt(
        "sft", out / "base" / "final", "--data", out / "sft.jsonl", "--out", out / f"sft-{how}-{seed}",
        "--steps", steps, "--batch", 8, "--context", demo.RECIPE.context, "--seed", seed, "--force",
        *HOW[how],
    )  # fmt: skip


def opened(out: Path, name: str) -> LocalEndpoint:
    """A tuned model, on its base where it is an adapter."""
    path = out / name / "final"
    if not (path / "adapter_config.json").exists():
        return LocalEndpoint.open(path)
    base = name.replace("dpo", "sft") if name.startswith("dpo-full") else "base"
    return LocalEndpoint.open(out / base / "final", path)


def pairs(out: Path, how: str, seed: int) -> None:
    """Preference rows: a right and a wrong answer to one request, both written by the model itself."""
    unseen = world.splits(0, N_TASKS, N_HELD_OUT)["train"][: N_TASKS // 2]
    tasks = [t for t in unseen if len(t.gold) > 1][: N_PAIRS[how]]
    engine = opened(out, f"sft-{how}-{seed}").engine
    asked = [engine.encode_chat(world.to_messages(t)[:-1]) for t in tasks for _ in range(SAMPLES)]
    config = SampleConfig(temperature=1.0, max_tokens=160, seed=seed)
    replies = [chatml.parse(answer.text) for answer in engine.generate_batch(asked, config)]
    found, n_right = [], 0
    for i, task in enumerate(tasks):
        written = replies[i * SAMPLES : (i + 1) * SAMPLES]
        right = [reply for reply in written if world.check(task, reply).correct]
        wrong = {json.dumps(reply, sort_keys=True): reply for reply in written if reply not in right}
        n_right += len(right)
        prompt = world.to_messages(task)[:-1]
        best = sorted(right, key=lambda reply: len(json.dumps(reply)))[:1]
        found += [{"prompt": prompt, "chosen": best, "rejected": [one]} for one in wrong.values() if best]
    print(f"{how} {seed}: {len(found)} pairs, {n_right / len(asked):.0%} of answers right", flush=True)
    rows.write(out / f"pairs-{how}-{seed}.jsonl", found)


def dpo(out: Path, how: str, seed: int) -> None:
    """From a tuned model on what it got wrong; the reference is where it starts."""
    tuned = out / f"sft-{how}-{seed}" / "final"
    new = ["--adapter", "lora", "--rank", "16", "--targets", "all-linear"]
    start = [tuned, *new] if how == "full" else [out / "base" / "final", "--start-adapter", tuned]
    tinygpt(
        "dpo", *start, "--data", out / f"pairs-{how}-{seed}.jsonl", "--out", out / f"dpo-{how}-{seed}",
        "--steps", 150, "--batch", 8, "--context", demo.RECIPE.context, "--seed", seed, "--force",
        "--lr", "1e-4", "--set", "loss_type.alpha=1",
    )  # fmt: skip


def measure(out: Path, name: str) -> None:
    """Executed-state accuracy on each held-out set, beside the model."""
    tasks = world.splits(0, 100, N_HELD_OUT)
    held_out = {name: tasks[name] for name in world.HELD_OUT_SETS}
    settings = suite.Config(n=N_HELD_OUT, max_tokens=160)
    scored = suite.score(opened(out, name), suite.examples_of(world, held_out), settings)
    scores = {r.subtask: r.score for r in scored.rows if r.subtask in world.HELD_OUT_SETS}
    files.write_text(out / name / "scores.json", json.dumps(scores))
    print(name, json.dumps(scores), flush=True)


def table(out: Path, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Mean and range over seeds."""
    print("| model | names | phrases | compositions |\n|---|---|---|---|")
    for name in names:
        scores = [out / (f"{name}-{s}" if name != "base" else name) / "scores.json" for s in seeds]
        found = [json.loads(f.read_text()) for f in scores if f.exists()]
        if found:
            cells = []
            for key in world.HELD_OUT_SETS:
                values = [100 * one[key] for one in found]
                cells.append(f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})")
            print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2", help="seeds of the tuned models")
    parser.add_argument("--base-steps", type=int, default=2000)
    parser.add_argument("--sft-steps", type=int, default=800)
    parser.add_argument("--how", default=",".join(HOW), help="ways to tune")
    parser.add_argument("--only", default="base,sft,pairs,dpo,table", help="stages to run")
    given = parser.parse_args()
    out, stages, ways = given.out, given.only.split(","), given.how.split(",")
    seeds = [int(seed) for seed in given.seeds.split(",")]
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "tokenizer").exists():
        data(out)
    if "base" in stages and not (out / "base" / "scores.json").exists():
        base(out, given.base_steps)
        measure(out, "base")
    for seed in seeds:
        for how in ways:
            name = f"sft-{how}-{seed}"
            if "sft" in stages and not (out / name / "scores.json").exists():
                sft(out, how, seed, given.sft_steps)
                measure(out, name)
            if "pairs" in stages and not (out / f"pairs-{how}-{seed}.jsonl").exists():
                pairs(out, how, seed)
            name = f"dpo-{how}-{seed}"
            if "dpo" in stages and not (out / name / "scores.json").exists():
                dpo(out, how, seed)
                measure(out, name)
    if "table" in stages:
        table(out, ["base", *(f"{stage}-{how}" for stage in ("sft", "dpo") for how in ways)], seeds)


if __name__ == "__main__":
    main()
