"""List known data sets of the hub by purpose and format, with their rows, licence and gating.

Example:

    tinygpt list-datasets --specialist tool-calling
    tinygpt list-datasets --info meta-math/MetaMathQA
"""

from __future__ import annotations

from typing import Annotated

import typer

from tinygpt.cli._options import Json
from tinygpt.cli._render import Output, table
from tinygpt.data.catalogue import ENTRIES, FORMATS, KINDS


def main(
    specialist: Annotated[
        str,
        typer.Option(
            metavar="tool-calling|debugger|code|math|reasoning|...",
            help="Only those for this kind of specialist.",
            autocompletion=lambda: list(KINDS),
        ),
    ] = "",
    format: Annotated[
        str,
        typer.Option(
            metavar="|".join(FORMATS), help="Only those for this use.", autocompletion=lambda: list(FORMATS)
        ),
    ] = "",
    info: Annotated[
        str,
        typer.Option(
            metavar="<id>",
            help="All about one: its id, or the last part of it.",
            autocompletion=lambda: [e.id for e in ENTRIES],
        ),
    ] = "",
    json_: Json = False,
) -> None:
    import dataclasses

    from tinygpt.core.errors import ConfigError
    from tinygpt.data import catalogue

    out = Output(json=json_)
    if info and (specialist or format):
        raise ConfigError("--info tells of one, --specialist and --format choose some", hint="leave one out")
    if info:
        entry = catalogue.find(info)
        told = dataclasses.asdict(entry) | {"page": entry.page}
        out.result(told, lambda: table(["what", "value"], [(k, _cell(v)) for k, v in told.items() if v]))
        return
    found = catalogue.listed(specialist, format)
    lines = [
        (e.id, ", ".join(e.kinds), e.format, e.size, e.licence, e.gated and "gated", e.note) for e in found
    ]
    head = ["id", "for", "format", "size", "licence", "", "note"]
    out.result([dataclasses.asdict(e) | {"page": e.page} for e in found], lambda: table(head, lines))


def _cell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
