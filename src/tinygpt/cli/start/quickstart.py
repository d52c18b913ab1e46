"""Build a specialist from scratch in minutes: the file-operations demo, or your own JSONL.

It makes a tokenizer, trains a small model on the answers, measures it against untrained (and, in the demo,
against hand-written rules) on held-out rows, and packages the result with its card and hashes.

Example:

    tinygpt quickstart --demo
    tinygpt quickstart --data my.jsonl --minutes 10
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tinygpt.cli._options import Json, Quiet
from tinygpt.cli._render import Output
from tinygpt.cli._specialist import show_demo, show_own
from tinygpt.core.errors import ConfigError


def main(
    demo: Annotated[bool, typer.Option("--demo", help="Build the file-operations demo.")] = False,
    data: Annotated[Path | None, typer.Option(help="Your JSONL rows.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of everything it makes. [runs/demo, runs/quickstart]")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Time to train for; data, measuring and packaging come on top. [9.6, own rows 7.5]",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(help="Exact number of steps instead of --minutes; 0: use the time.")
    ] = 0,
    n_train: Annotated[
        int | None, typer.Option(help="Training tasks that the demo writes. [40000]", show_default=False)
    ] = None,
    n_held_out: Annotated[
        int, typer.Option(help="Held-out rows, or tasks of each demo set; 0: 100 rows, 150 tasks.")
    ] = 0,
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
    if data is not None and n_train is not None:
        raise ConfigError("--n-train is the demo's: your own rows are all used", hint="leave it out")
    if demo and strict:
        raise ConfigError("--strict is for your own rows: the demo writes its own", hint="leave it out")
    if wait and not lock:
        raise ConfigError("--wait means nothing without --lock", hint="leave --wait or --no-lock out")
    output = Output(json=json_, quiet=quiet)
    # What is not given is the product's own default.
    given = {"out": out, "minutes": minutes, "n_train": n_train, "n_held_out": n_held_out or None}
    common: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    common |= {"steps": steps, "seed": seed, "force": force, "wait": wait, "lock": lock}
    if data is None:
        found = demos.run(demos.Config(**common), output.events())
        output.result(found, lambda: show_demo(found))
    else:
        found = quickstart.run(quickstart.Config(data=data, strict=strict, **common), output.events())
        output.result(found, lambda: show_own(found))
