"""Compare the tensor names a config asks for with those in the file.

Example:

    tinygpt debug-names runs/first/final
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
    found = debug.names(fetched(path, out))

    def render() -> None:
        table(["what", "count"], [(k, v if isinstance(v, int) else len(v)) for k, v in found.items()])
        for kind in ("missing", "extra"):
            for name in found[kind]:
                print(f"{kind}: {name}")

    out.result(found, render)
