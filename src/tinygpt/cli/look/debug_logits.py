"""Show the most likely next tokens after a prompt.

Example:

    tinygpt debug-logits runs/first/final --prompt "def "
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinygpt.cli._options import Json, fetched
from tinygpt.cli._render import Output, table


def main(
    path: Annotated[Path, typer.Argument(help="A model or run directory.")],
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "The ",
    top: Annotated[int, typer.Option(help="How many tokens to show.")] = 10,
    json_: Json = False,
) -> None:
    from tinygpt.runs import debug

    out = Output(json=json_)
    found = debug.logits(fetched(path, out), prompt, top)

    def render() -> None:
        table(
            ["id", "token", "logit", "probability"],
            [(r["id"], repr(r["text"]), r["logit"], r["probability"]) for r in found],
        )

    out.result(found, render)
