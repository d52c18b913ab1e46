"""Check that a checkpoint is whole: hashes, tensors, and a rewrite that must come out the same.

Exit 0 when it is, 1 when a rewrite differs, 2 when it is damaged (the defect is named).

Example:

    tinygpt validate runs/first/final
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinygpt.cli._options import Json, fetched
from tinygpt.cli._render import Output


def main(
    path: Annotated[Path, typer.Argument(help="A model, adapter or run directory.")], json_: Json = False
) -> None:
    from tinygpt.runs.inspect import validate

    out = Output(json=json_)
    facts = validate(fetched(path, out))
    out.result(facts, lambda: print(f"{facts['verdict']}: {facts['path']} ({facts['files']} files)"))
