"""Where a command of data writes its rows: never over a file that is not its own, and with a card beside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from tinygpt.core.errors import ConfigError
from tinygpt.data import card, table

HELD_OUT = ".held_out.jsonl"


def held_out(out: Path) -> Path:
    """Where the rows lie that are held out of a file: rows.held_out.jsonl for rows.jsonl."""
    return out.with_name(card.stem(out) + HELD_OUT)


def refuse(written: Mapping[str, Path | None], read: Iterable[Path], *, force: bool) -> None:
    """ConfigError where a file that is written (flag -> path) would take the place of one that is read, of
    another one that is written, or, without `force`, of one that is there."""
    taken = {path.resolve(): "one of the files that are read" for path in read}
    for flag, path in written.items():
        if path is None:
            continue
        if what := taken.get(path.resolve()):
            raise ConfigError(f"{flag} {path} is {what}", hint="choose another")
        if path.is_dir():
            raise ConfigError(f"{flag} {path} is a folder", hint="name a file, such as rows.jsonl")
        if table.kind(path) in (*table.TABLES, ".json") or path.suffix.lower() in table.PACKED:
            raise ConfigError(
                f"{flag} {path}: JSON lines or plain text are written", hint="call it .jsonl or .txt"
            )
        if path.is_file() and path.stat().st_size and not force:
            raise ConfigError(
                f"{flag} {path} exists", hint=f"choose another {flag}, or pass --force to replace it"
            )
        taken[path.resolve()] = f"{flag} as well"


def check(path: Path, *, force: bool = False, read: Iterable[Path] = ()) -> None:
    """The same for --out alone; it is replaced only where the card beside it says that tinygpt made it."""
    refuse({"--out": path}, read, force=force)
    ours = str(card.read(path).get("made_by", "")).startswith("tinygpt ")
    if path.is_file() and path.stat().st_size and not ours:
        raise ConfigError(
            f"--out: {path} has no card of tinygpt's beside it, so it is not replaced",
            hint="choose another --out, or remove it yourself",
        )
