"""Where a command of data writes its rows: never over a file that is not its own, and with a card beside."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tinygpt.core import files
from tinygpt.core.errors import ConfigError
from tinygpt.data import card, table


def check(path: Path, *, force: bool = False, read: Iterable[Path] = ()) -> None:
    """ConfigError where rows must not be written to this path: a file is replaced only where the card beside
    it says that tinygpt made it, and `force` is given; one of those that are `read` never is."""
    if path.is_dir():
        raise ConfigError(f"--out: {path} is a directory", hint="name a file, such as rows.jsonl")
    kind = table.kind(path)
    if kind in (*table.TABLES, ".json", ".gz") or path.suffix in table.PACKED:
        raise ConfigError(f"--out {path}: JSON lines are written", hint="name it rows.jsonl")
    if path.exists() and any(one.exists() and path.samefile(one) for one in read):
        raise ConfigError(f"--out: {path} is one of the files that are read", hint="name another file")
    if not path.is_file() or not path.stat().st_size:
        return
    if not force:
        raise ConfigError(f"--out: {path} exists", hint="choose another --out, or pass --force to replace it")
    if not str(files.peek_json(card.beside(path)).get("made_by", "")).startswith("tinygpt "):
        raise ConfigError(
            f"--out: {path} has no card of tinygpt's beside it, so it is not replaced",
            hint="choose another --out, or remove it yourself",
        )
