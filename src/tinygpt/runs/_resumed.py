"""Before a command that may be gone on with: nothing that is there is lost or written over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tinygpt.core.errors import ConfigError
from tinygpt.runs._journal import holds_work


def check(out: Path, *, resume: bool, beside: Sequence[Path] = ()) -> None:
    """ConfigError where `out` or a file beside it is there, or where its journal (see _journal) does not fit
    what is wanted: it holds answers and --resume was not given, or there is none to go on with."""
    part = out.with_name(f".{out.name}.tinygpt.part")
    for path in (out, *beside):
        if path.exists():
            raise ConfigError(f"{path} is there already", hint="choose another --out, or remove it")
    if not resume and part.is_file() and holds_work(part):
        raise ConfigError(
            f"{part} holds answers of an interrupted command",
            hint="add --resume to go on with them, or remove the file to begin anew",
        )
    if resume and not part.is_file():
        raise ConfigError(
            f"--resume: there is nothing to go on with, {part} is not there",
            hint="leave --resume out to begin",
        )
