"""A classifier head against a language model whose answers are constrained, on the same pairs.

    python scripts/router_bakeoff.py --out /tmp/bakeoff --train 3000 --test 400

Pairs are those of the world of file operations: a request and the tool of its first call, "none" where it is
refused or asked back; the held-out sets are the world's own (new names, new phrases, new compositions). Three
methods answer the same requests:

    router      train-extractor on the training pairs
    tiny-lm     a language model of like size, tuned on the same pairs; its answer can be a tool's name alone
    specialist  the packaged specialist, which also reads the directory's listing, learned to write whole
                calls and from far more tasks; its first call counts

Their rows go through `eval-router`, so the lead of the best over the second has a paired interval. Every step
is a command that can be typed; what is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tinygpt.data.requests import NOTHING
from tinygpt.data.world import file_ops
from tinygpt.data.world.file_ops import HELD_OUT_SETS, Task
from tinygpt.runs import _pieces

SPECIALIST = Path(__file__).resolve().parents[1] / "specialists" / "file-ops-tiny"


def tool(task: Task) -> str:
    return task.gold[0]["name"] if task.gold else NOTHING


def write(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tinygpt(*words: object, silent: bool = False) -> None:
    line = [sys.executable, "-m", "tinygpt", *map(str, words)]
    print("$ tinygpt", *map(str, words), flush=True)
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL if silent else None)


def asked(tasks: Iterable[Task]) -> list[Any]:
    return [{"messages": [{"role": "user", "content": task.request}]} for task in tasks]


def by_router(out: Path, name: str) -> list[str]:
    rows = out / f"{name}.router.jsonl"
    tinygpt("extract", out / "router", "--data", out / f"{name}.jsonl", "--batch", 64, "--top-k", 1,
            "--predictions", rows, "--force", "--quiet", silent=True)  # fmt: skip
    return [row["predicted_tool"] for row in read(rows)]


def by_lm(out: Path, name: str, tasks: list[Task], tools: list[str]) -> list[str]:
    answers = out / f"{name}.lm.jsonl"
    write(out / f"{name}.asked.jsonl", asked(tasks))
    tinygpt("generate", out / "lm", "--data", out / f"{name}.asked.jsonl", "--choices", ",".join(tools),
            "--max-tokens", 16, "--out", answers)  # fmt: skip
    return [row["output"].strip() for row in read(answers)]


def by_specialist(out: Path, name: str, tasks: list[Task]) -> list[str]:
    answers = out / f"{name}.specialist.jsonl"
    rows = [{"messages": file_ops.prompt(t.request, t.initial)} for t in tasks]  # it knows its tools
    write(out / f"{name}.tasks.jsonl", rows)
    tinygpt("generate", SPECIALIST, "--data", out / f"{name}.tasks.jsonl", "--out", answers)
    _, tokenizer = _pieces.open_model(SPECIALIST)
    template = _pieces.template_of(tokenizer)
    found: list[str] = []
    for row in read(answers):
        calls = template.parse(row["output"]).get("tool_calls") or []
        found.append(calls[0]["name"] if calls else NOTHING)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=3000, help="tasks to learn from")
    parser.add_argument("--test", type=int, default=400, help="tasks of each held-out set")
    parser.add_argument("--router-steps", type=int, default=600)
    parser.add_argument("--lm-steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", default="router,tiny-lm,specialist")
    given = parser.parse_args()
    out, methods = given.out, given.methods.split(",")
    out.mkdir(parents=True, exist_ok=True)

    made = file_ops.splits(given.seed, given.train, given.test)
    for name, tasks in made.items():
        write(out / f"{name}.jsonl", ({"query": t.request, "tool": tool(t)} for t in tasks))
    (out / "tools.json").write_text(json.dumps(file_ops.TOOLS), encoding="utf-8")
    tools = sorted({tool(t) for t in made["train"]})
    tests = [word for name in HELD_OUT_SETS for word in ("--test", out / f"{name}.jsonl")]
    common = ("--seed", given.seed, "--resume", "--batch", 32)
    if "router" in methods:
        size = ("--set", "model.hidden_size=128", "--set", "model.num_hidden_layers=2", "--vocab-size", 1000)
        tinygpt("train-extractor", out / "train.jsonl", "--out", out / "router",
                "--tools", out / "tools.json", *tests, *size, "--steps", given.router_steps,
                "--lr", 2e-3, "--token-drop", 0.2, *common)  # fmt: skip
    if "tiny-lm" in methods:
        said = (a["messages"] + [{"role": "assistant", "content": tool(t)}]
                for a, t in zip(asked(made["train"]), made["train"], strict=True))  # fmt: skip
        write(out / "train.chat.jsonl", ({"messages": messages} for messages in said))
        tinygpt("tokenize-train", "--corpus", out / "train.jsonl", "--field", "query", "--vocab-size", 1000,
                "--held-out", 0, "--out", out / "tokenizer", "--force")  # fmt: skip
        tinygpt("sft", "--data", out / "train.chat.jsonl", "--out", out / "lm", "--tokenizer",
                out / "tokenizer", "--preset", "tiny", "--set", "model.num_hidden_layers=2",
                "--context", 128, "--steps", given.lm_steps, "--lr", 2e-3, *common)  # fmt: skip
    rows: list[dict[str, Any]] = []
    for name in HELD_OUT_SETS:
        tasks, answers = made[name], dict[str, list[str]]()
        if "router" in methods:
            answers["router"] = by_router(out, name)
        if "tiny-lm" in methods:
            answers["tiny-lm"] = by_lm(out, name, tasks, tools)
        if "specialist" in methods:
            answers["specialist"] = by_specialist(out, name, tasks)
        for method, predicted in answers.items():
            rows += [
                {"method": method, "query": t.request, "gold_tool": tool(t), "predicted_tool": p}
                for t, p in zip(tasks, predicted, strict=True)
            ]
            right = sum(p == tool(t) for t, p in zip(tasks, predicted, strict=True))
            print(f"{name}: {method} {right / len(tasks):.4f}", flush=True)
    write(out / "methods.jsonl", rows)
    tinygpt("eval-router", "--predictions", out / "methods.jsonl", "--out", out / "rows.jsonl")


if __name__ == "__main__":
    main()
