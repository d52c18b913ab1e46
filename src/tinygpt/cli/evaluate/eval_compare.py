"""Compare eval rows: tasks against models, steps against tasks, or a ranking per task.

Unlike metrics are never averaged. Where the records beside the rows tell of the same examples, models are
compared example by example. Lines that are not rows are counted and shown; --strict refuses them.

Example:

    tinygpt eval-compare base.jsonl tuned.jsonl --html report.html
    tinygpt eval-compare rows.jsonl --by step --plot steps.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinygpt.cli._options import Json
from tinygpt.cli._render import Output, line
from tinygpt.cli._rows import compared, markdown
from tinygpt.core.errors import ConfigError

WAYS = ["model", "step", "task"]


def main(
    files: Annotated[list[Path], typer.Argument(help="JSONL files of eval rows.")],
    by: Annotated[
        str, typer.Option(metavar="|".join(WAYS), autocompletion=lambda: WAYS, help="What to compare.")
    ] = "model",
    sort: Annotated[bool, typer.Option("--sort", help="Order models by name.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page of it.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw it: .png, .svg or .pdf; over steps it shows what came when.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse files with lines that are not eval rows.")
    ] = False,
    json_: Json = False,
) -> None:
    import dataclasses
    import sys

    from tinygpt.runs.compare import run

    if json_ and as_markdown:
        raise ConfigError("--json and --markdown are two forms of one answer", hint="leave one out")
    tables, invalid = run(files, by=by, sort=sort, strict=strict, html=html, plot=plot)
    for bad in invalid:
        line(f"warning: {bad}", sys.stderr)

    def render() -> None:
        for found in tables:
            line(markdown(found)) if as_markdown else compared(found)

    Output(json=json_).result([dataclasses.asdict(t) for t in tables], render)
