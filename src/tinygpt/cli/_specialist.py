"""How a finished quickstart looks: its scores, some answers, and what to type next."""

from __future__ import annotations

import json
from typing import Any

from tinygpt.cli._render import cell, say, table
from tinygpt.project._build import duration


def show_demo(found: dict[str, Any]) -> None:
    names = [k for k in found["scores"][0] if k not in ("set", "n")]
    lines = [(s["set"], s["n"], *(_percent(s[name]) for name in names)) for s in found["scores"]]
    table(
        ["held-out set", "tasks", *names],
        lines,
        title="State right after executing the answer (95 % interval)",
    )
    for one in found["live"]:
        print(f"\n> {one['request']}")
        for call in one["calls"]:
            print(f"  {call['name']} {' '.join(f'{k}={v!r}' for k, v in call['arguments'].items())}")
        if one["text"]:
            say(f"  {one['text']}")
        say("  " + one["after"].replace("\n", "\n  "))
        print("  right" if one["correct"] else f"  wrong: {one['why']}")
    next_steps(found)
    print("      tinygpt quickstart --data your.jsonl")


def show_own(found: dict[str, Any]) -> None:
    show_scores(found)
    next_steps(found)
    data = found["data"]
    minutes = max(30, round(4 * found["facts"]["training_seconds"] / 60))
    print(f"      tinygpt quickstart --data {data} --minutes {minutes} --out runs/longer")
    print(f"      tinygpt sft BASE --data {data} --out runs/tuned")


def show_plan(found: dict[str, Any]) -> None:
    base, plan = found["base"], found["plan"]
    print(f"base: {base['path']} ({base['why']})")
    lines = [(name, cell(plan[name])) for name in plan if name not in ("reasons", "memory_bytes", "seconds")]
    table(["setting", "value"], lines, title="Plan")
    for reason in plan["reasons"]:
        print(f"  {reason}")
    print(f"about {plan['memory_bytes'] / 1e9:.1f} GB and {plan['seconds'] / 60:.1f} minutes of training")
    say(json.dumps(found["project"], indent=2))


def show_tuned(found: dict[str, Any]) -> None:
    show_scores(found)
    base, adapter = found["base"]["path"], found["adapter"]
    print(f"\nthe adapter is in {adapter}; everything together took {duration(found['seconds'])}\n")
    print(f"next: tinygpt chat {base} --adapter {adapter}")


def show_scores(found: dict[str, Any]) -> None:
    """Scores on the rows kept apart, some answers, and what the numbers mean."""
    table(["model", "metric", "score", "n"], found["rows"], title="On rows kept apart")
    for one in found["samples"]:
        say(f"\nasked:  {one['asked']}\nwanted: {one['wanted']}\nsaid:   {one['said']}")
    print()
    for line in found["verdict"]:
        print(line)


def next_steps(found: dict[str, Any]) -> None:
    facts, package = found["facts"], found["package"]
    print(
        f"\n{cell(facts['parameters'])} parameters, {cell(facts['steps'])} steps in "
        f"{duration(facts['training_seconds'])} "
        f"({cell(facts['tokens_per_second'])} tokens/s on {facts['device']}); everything together took "
        f"{duration(found['seconds'])}"
    )
    print(f"packaged in {package}\n")
    print(f"next: tinygpt chat {package}")
    print(f"      tinygpt inspect {package}")


def _percent(score: dict[str, Any]) -> str:
    low, high = score["interval"]
    return f"{score['score']:.0%} [{low:.0%}, {high:.0%}]"
