"""Check that a checkpoint is whole: hashes, tensors, and a rewrite that must come out the same.

Exit 0 when it is, 1 when a rewrite differs, 2 when it is damaged (the defect is named).

Example:

    tinygpt validate runs/first/final
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinygpt.cli._options import Json
from tinygpt.cli._render import Output


def main(
    path: Annotated[Path, typer.Argument(help="A model, adapter or run directory.")], json_: Json = False
) -> None:
    from tinygpt.runs.inspect import validate

    facts = validate(path)
    Output(json=json_).result(
        facts, lambda: print(f"{facts['verdict']}: {facts['path']} ({facts['files']} files)")
    )
