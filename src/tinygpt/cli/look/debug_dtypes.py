"""Count tensors, values and bytes of each dtype in a checkpoint.

Example:

    tinygpt debug-dtypes runs/first/final
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
    found = debug.dtypes(fetched(path, out))

    def render() -> None:
        table(["dtype", "tensors", "values", "bytes"], [(k, *v.values()) for k, v in found.items()])

    out.result(found, render)
