"""Write an adapter in the format of another program: peft, mlx-lm, or the original TinyGPT.

Every format is read. mlx-lm and the original know LoRA and DoRA alone: VeRA, AdaLoRA and PiSSA are written as
the plain LoRA that they are equal to; IA3 adds nothing, so it has no such form.

Example:

    tinygpt adapter-convert runs/tuned/final --format mlx --out adapters
    tinygpt adapter-convert old.lora --base book.tinygpt --out tuned
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinygpt.cli._options import Json, Quiet
from tinygpt.cli._render import Output
from tinygpt.core.errors import unknown

FORMATS = ["peft", "mlx", "tgla"]


def main(
    adapter: Annotated[Path, typer.Argument(help="An adapter: a directory, a run, or a .lora file.")],
    out: Annotated[Path, typer.Option(help="Where to write it; it must not exist.")],
    format: Annotated[
        str,
        typer.Option(metavar="|".join(FORMATS), autocompletion=lambda: FORMATS, help="Which program's."),
    ] = "peft",
    base: Annotated[
        Path | None, typer.Option(help="Its base model; not given: the one that it names.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also where it was trained on other weights.")
    ] = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    from tinygpt.runs.convert_adapter import run

    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    output = Output(json=json_, quiet=quiet)
    found = run(adapter, out=out, format=format, base=base, force=force, events=output.events())
    text = f"{found['technique']} on {found['layers']} layers, written to {found['out']} for {format}"
    output.result(found, lambda: print(text))
