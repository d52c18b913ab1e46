"""Build a specialist from scratch in minutes: the file-operations demo, or your own JSONL.

It makes a tokenizer, trains a small model on the answers, measures it against untrained (and, in the demo, against
hand-written rules) on held-out rows, and packages the result with its card and hashes.

Example:

    tinygpt quickstart --demo
    tinygpt quickstart --data my.jsonl --minutes 10
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tinygpt.cli._options import Json, Quiet
from tinygpt.cli._render import Output, cell, table
from tinygpt.core.errors import ConfigError


def main(
    demo: Annotated[bool, typer.Option("--demo", help="Build the file-operations demo.")] = False,
    data: Annotated[Path | None, typer.Option(help="Your JSONL rows.")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of everything it makes. [runs/demo, runs/quickstart]")] = None,
    minutes: Annotated[float, typer.Option(help="Time to train for; data, measuring and packaging come on top.")] = 6.0,
    steps: Annotated[int, typer.Option(help="Exact number of steps instead of --minutes; 0: use the time.")] = 0,
    n_train: Annotated[int, typer.Option(help="Training tasks that the demo writes.")] = 24000,
    n_held_out: Annotated[int, typer.Option(help="Held-out rows, or tasks of each demo set; 0: 100 rows, 150 tasks.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse a file with a bad row.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of data, weights and order.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing --out.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another run to free the machine.")] = False,
    lock: Annotated[bool, typer.Option("--lock/--no-lock", help="Take the machine's lock.")] = True,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    from tinygpt.project import demo as demos
    from tinygpt.project import quickstart

    if demo == (data is not None):
        raise ConfigError("say what to build", hint="either --demo or --data FILE")
    output = Output(json=json_, quiet=quiet)
    common: dict[str, Any] = {
        "minutes": minutes, "steps": steps, "seed": seed, "force": force, "wait": wait, "lock": lock,
        **({"out": out} if out else {}), **({"n_held_out": n_held_out} if n_held_out else {}),
    }  # fmt: skip
    if data is None:
        found = demos.run(demos.Config(n_train=n_train, **common), output.events())
        output.result(found, lambda: show_demo(found))
    else:
        found = quickstart.run(quickstart.Config(data=data, strict=strict, **common), output.events())
        output.result(found, lambda: show_own(found))


def show_demo(found: dict[str, Any]) -> None:
    names = [k for k in found["scores"][0] if k not in ("set", "n")]
    lines = [(s["set"], s["n"], *(_percent(s[name]) for name in names)) for s in found["scores"]]
    table(["held-out set", "tasks", *names], lines, title="State right after executing the answer (95 % interval)")
    for one in found["live"]:
        print(f'\n> {one["request"]}')
        for call in one["calls"]:
            print(f"  {call['name']} {' '.join(f'{k}={v!r}' for k, v in call['arguments'].items())}")
        if one["text"]:
            print(f"  {one['text']}")
        print("  " + one["after"].replace("\n", "\n  "))
        print("  right" if one["correct"] else f"  wrong: {one['why']}")
    next_steps(found)


def show_own(found: dict[str, Any]) -> None:
    table(["model", "metric", "score", "n"], found["rows"], title="On rows kept apart")
    for one in found["samples"]:
        print(f"\nasked:  {one['asked']}\nwanted: {one['wanted']}\nsaid:   {one['said']}")
    print()
    for line in found["verdict"]:
        print(line)
    next_steps(found)


def next_steps(found: dict[str, Any]) -> None:
    facts, package = found["facts"], found["package"]
    print(
        f"\n{cell(facts['parameters'])} parameters, {cell(facts['steps'])} steps in {facts['training_minutes']} minutes "
        f"({cell(facts['tokens_per_second'])} tokens/s on {facts['device']}); everything together took "
        f"{found['seconds'] / 60:.1f} minutes"
    )
    print(f"packaged in {package}\n")
    print(f"next: tinygpt chat {package}\n      tinygpt inspect {package}\n      tinygpt quickstart --data your.jsonl")


def _percent(score: dict[str, Any]) -> str:
    low, high = score["interval"]
    return f"{score['score']:.0%} [{low:.0%}, {high:.0%}]"
