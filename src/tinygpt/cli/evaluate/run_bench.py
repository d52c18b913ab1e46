"""Run the small fixed tasks (sort-6, reverse-16), perplexity and a probe of memorisation; write eval rows.

Example:

    tinygpt run-bench runs/sorter/final --tasks sort-6 --tasks reverse-16 --out rows.jsonl
    tinygpt run-bench runs/book/final --memorise book.txt --control other.txt --out rows.jsonl
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinygpt.cli._options import Json, Quiet
from tinygpt.cli._render import Output
from tinygpt.cli._rows import show
from tinygpt.core.errors import ConfigError

TASKS = ["sort-6", "reverse-16"]


def main(
    model: Annotated[Path, typer.Argument(help="A model or run directory.")],
    tasks: Annotated[
        list[str] | None,
        typer.Option(metavar="|".join(TASKS), autocompletion=lambda: TASKS, help="May be repeated. [both]"),
    ] = None,
    adapter: Annotated[
        list[Path] | None, typer.Option("--adapter", "--lora", help="Adapter to put on it; may be repeated.")
    ] = None,
    perplexity: Annotated[
        Path | None, typer.Option(help="Text file: also measure loss and perplexity on it.")
    ] = None,
    context: Annotated[
        int, typer.Option("--context", "--ctx", min=0, help="--perplexity's longest window; 0: the model's.")
    ] = 0,
    memorise: Annotated[
        list[Path] | None, typer.Option(help="Training text: also count what is continued word for word.")
    ] = None,
    control: Annotated[
        list[Path] | None, typer.Option(help="With --memorise: the same of text it was not trained on.")
    ] = None,
    prefix: Annotated[int | None, typer.Option(min=1, help="Tokens that --memorise gives. [50]")] = None,
    go_on: Annotated[int | None, typer.Option(min=1, help="Tokens that --memorise asks for. [50]")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Trials of each task.")] = 200,
    seed: Annotated[
        int | None, typer.Option(help="Other trials than the fixed ones; not comparable with those.")
    ] = None,
    model_name: Annotated[str, typer.Option(help="Model name in the rows.")] = "",
    out: Annotated[Path | None, typer.Option(help="JSONL file to append the rows to.")] = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    import dataclasses

    from tinygpt.runs.evaluate import Config, refuse_errors, run

    if context and perplexity is None:
        raise ConfigError("--context means nothing without --perplexity", hint="add it, or leave it out")
    asked = {name: v for name, v in {"control": control, "prefix": prefix, "go_on": go_on}.items() if v}
    if asked and not memorise:
        named = f"--{next(iter(asked))}".replace("_", "-")
        raise ConfigError(f"{named} means nothing without --memorise", hint="add it, or leave it out")
    names = [t.strip().replace("-", "_") for given in tasks or TASKS for t in given.split(",")]
    trials = {"n": limit} | ({"seed": seed} if seed is not None else {})
    more = {"heldout_loss": {"context": context}} if perplexity else {}
    more |= {"memorisation": {"paths": memorise, **asked, **trials}} if memorise else {}
    config = Config(
        model=model, adapter=tuple(adapter or ()), model_name=model_name, out=out,
        suite=(*names, *(["memorisation"] if memorise else [])), corpus=(perplexity,) if perplexity else (),
        options={name: trials for name in names} | more,
    )  # fmt: skip
    output = Output(json=json_, quiet=quiet)
    rows = run(config, output.events())
    output.result([dataclasses.asdict(r) for r in rows], lambda: show(rows))
    refuse_errors(rows, config.max_errors)
