"""Show statistics of every loaded tensor, and its difference from the file.

Example:

    tinygpt debug-load runs/first/final
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinygpt.cli._options import Json, fetched
from tinygpt.cli._render import Output, table


def main(
    path: Annotated[Path, typer.Argument(help="A model or run directory.")],
    json_: Json = False,
) -> None:
    from tinygpt.runs import debug

    out = Output(json=json_)
    found = debug.load(fetched(path, out))

    def render() -> None:
        table(["tensor", "mean", "std", "min", "max", "difference"], [tuple(r.values()) for r in found])

    out.result(found, render)
