"""Show what a checkpoint is: kind, config, numbers and tensors.

Example:

    tinygpt inspect runs/first/final
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinygpt.cli._options import Json, fetched
from tinygpt.cli._render import Output, size, table


def main(
    path: Annotated[Path, typer.Argument(help="A model, adapter or run directory.")],
    tensors: Annotated[
        bool, typer.Option("--tensors", help="List every tensor; --json always does.")
    ] = False,
    json_: Json = False,
) -> None:
    from tinygpt.runs.inspect import inspect

    out = Output(json=json_)
    facts = inspect(fetched(path, out))

    def render() -> None:
        shown = {k: v for k, v in facts.items() if k not in ("tensors", "config", "bytes")}
        config = facts.get("config", {})
        sizes = [(k, v) for k, v in config.items() if isinstance(v, int | float)]
        slots = [(k, _slot(v)) for k, v in config.items() if isinstance(v, dict) and "name" in v]
        table(["what", "value"], [*shown.items(), ("size on disk", size(facts["bytes"])), *slots, *sizes])
        if tensors:
            rows = [
                (t["name"], "x".join(map(str, t["shape"])), t["dtype"], t["bytes"]) for t in facts["tensors"]
            ]
            table(["tensor", "shape", "dtype", "bytes"], rows)

    out.result(facts, render)


def _slot(filled: dict[str, object]) -> str:
    """What fills a slot, with its knobs: "gqa, key_shift True"."""
    return ", ".join([str(filled["name"]), *(f"{k} {v}" for k, v in filled.items() if k != "name")])
