"""Make rows that teach a model to answer what it gets right, and to hand over what a larger one would.

Rows say who was right: {instruction | prompt, response, local_correct, cloud_correct?, reason?}.

Example:

    tinygpt build-escalate-data judged.jsonl --out escalate.jsonl
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinygpt.cli._options import Json, Quiet
from tinygpt.cli._render import Output
from tinygpt.data.escalating import REASON
from tinygpt.runs.escalate_data import build


def main(
    source: Annotated[Path, typer.Argument(help="Rows that say who was right.", metavar="ROWS")],
    *,
    out: Annotated[Path, typer.Option(help="JSONL file of {instruction, response}, which sft reads.")],
    reason: Annotated[
        str, typer.Option(help="Why a question is handed over, where its row does not say.")
    ] = REASON,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    shown = Output(json=json_, quiet=quiet)
    found = build(source, out, shown.events(), reason=reason)

    def render() -> None:
        print(f"{found['kept']} rows to answer, {found['deferred']} to hand over: {found['out']}")
        for why, n in found["dropped"].items():
            print(f"  {n} left out: {why}")
        print(f"card: {found['card']}")

    shown.result(found, render)
