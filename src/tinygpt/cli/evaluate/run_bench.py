"""Run the small fixed tasks (sort-6, reverse-16) and perplexity, and write eval rows.

Example:

    tinygpt run-bench runs/sorter/final --tasks sort-6 --tasks reverse-16 --out rows.jsonl
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinygpt.cli._options import Json, Quiet
from tinygpt.cli._render import Output
from tinygpt.cli._rows import show


def main(
    model: Annotated[Path, typer.Argument(help="A model or run directory.")],
    tasks: Annotated[
        list[str] | None, typer.Option(help="sort-6, reverse-16; may be repeated. [both]")
    ] = None,
    perplexity: Annotated[
        Path | None, typer.Option(help="Text file: also measure loss and perplexity on it.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Trials of each task.")] = 200,
    model_name: Annotated[str, typer.Option(help="Model name in the rows.")] = "",
    out: Annotated[Path | None, typer.Option(help="JSONL file to append the rows to.")] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    import dataclasses

    from tinygpt.runs.evaluate import Config, run

    names = [
        t.strip().replace("-", "_") for given in tasks or ["sort-6,reverse-16"] for t in given.split(",")
    ]
    config = Config(
        model=model, suite=tuple(names), corpus=(perplexity,) if perplexity else (), name=model_name, out=out,
        options={name: {"n": limit} for name in names},
    )  # fmt: skip
    output = Output(json=json_, quiet=quiet)
    rows = run(config, output.events())
    output.result([dataclasses.asdict(r) for r in rows], lambda: show(rows))
