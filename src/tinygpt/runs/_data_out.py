"""Where a command of data writes its rows: never over a file that is not its own, and with a card beside."""

from __future__ import annotations

from pathlib import Path

from tinygpt.core import files
from tinygpt.core.errors import ConfigError
from tinygpt.data import card, table

HELD_OUT = ".held_out.jsonl"


def held_out(out: Path) -> Path:
    """Where the rows lie that are held out of a file: rows.held_out.jsonl for rows.jsonl."""
    return out.with_name(out.stem + HELD_OUT)


def check(path: Path, *, force: bool = False) -> None:
    """ConfigError where rows must not be written to this path: a file is replaced only where the card beside
    it says that tinygpt made it, and `force` is given."""
    if path.is_dir():
        raise ConfigError(f"--out: {path} is a directory", hint="name a file, such as rows.jsonl")
    kind = table.kind(path)
    if kind in (*table.TABLES, ".json", ".gz") or path.suffix in table.PACKED:
        raise ConfigError(f"--out {path}: JSON lines are written", hint="name it rows.jsonl")
    if not path.is_file() or not path.stat().st_size:
        return
    if not force:
        raise ConfigError(f"--out: {path} exists", hint="choose another --out, or pass --force to replace it")
    if not str(files.peek_json(card.beside(path)).get("made_by", "")).startswith("tinygpt "):
        raise ConfigError(
            f"{path} has no card of tinygpt's beside it, so --force does not replace it",
            hint="choose another --out, or remove it yourself",
        )
