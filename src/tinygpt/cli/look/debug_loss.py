"""Measure the loss on a fixed excerpt (a sonnet), or on your own text.

Example:

    tinygpt debug-loss runs/first/final
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinygpt.cli._options import Json, fetched
from tinygpt.cli._render import Output, table


def main(
    path: Annotated[Path, typer.Argument(help="A model or run directory.")],
    text: Annotated[str | None, typer.Option(help="Text to measure instead of the sonnet.")] = None,
    json_: Json = False,
) -> None:
    from tinygpt.runs import debug

    out = Output(json=json_)
    found = debug.loss(fetched(path, out), text)

    def render() -> None:
        table(["what", "value"], list(found.items()))

    out.result(found, render)
