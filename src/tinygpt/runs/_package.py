"""The lock of a packaged specialist: the size and SHA-256 of every file in its directory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tinygpt.core import files
from tinygpt.core.errors import CheckpointError

LOCK = files.LOCK
SCHEMA = "tinygpt.specialist.lock.v2"


def listing(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file under a folder but its lock, by path with "/"."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": files.sha256(folder / name)}
        for name in _names(folder)
    }


def verify(folder: Path) -> dict[str, Any]:
    """The lock of a specialist that holds exactly the files its lock lists, as they were locked.

    A CheckpointError names the first file that is missing, changed or not listed.
    """
    path = folder / LOCK

    def refused(what: str) -> CheckpointError:
        return CheckpointError(what, hint="restore it, or package again")

    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no {LOCK}, so it is no packaged specialist or not a whole one",
            hint="restore it, or package again; or give the model inside it",
        )
    try:
        lock = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise refused(f"{path} cannot be read: {error}") from error
    try:
        listed = {name: (facts["bytes"], facts["sha256"]) for name, facts in lock["files"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise refused(f"{path} does not list files with their sizes and hashes") from error
    for name, (size, digest) in listed.items():
        file = folder / name
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise refused(f"{path} lists {name}, which lies outside {folder}")
        if not file.is_file():
            raise refused(f"{folder} lacks {name}, which its lock lists")
        if file.stat().st_size != size or files.sha256(file) != digest:
            raise refused(f"{file} is not the file that was locked")
    if extra := [name for name in _names(folder) if name not in listed]:
        raise CheckpointError(
            f"{folder} holds {extra[0]}, which its lock does not list", hint="remove it, or package again"
        )
    return lock


def relock(paths: Sequence[Path]) -> None:
    """After files of a package were made anew (its gate and baseline): its lock lists them as they are. Files
    that lie in no package are left alone."""
    for path in paths:
        lock = files.peek_json(path.parent / LOCK)
        if isinstance(lock.get("files"), dict):
            facts = {"bytes": path.stat().st_size, "sha256": files.sha256(path)}
            lock["files"] = dict(sorted({**lock["files"], path.name: facts}.items()))
            files.write_json(path.parent / LOCK, lock)


def turns(folder: Path) -> int:
    """The most requests that a conversation may hold for a packaged specialist; 0: no bound is known."""
    bound = files.peek_json(folder / LOCK).get("turns", 0)  # `tinygpt validate` reports a broken package
    return bound if isinstance(bound, int) else 0


def _names(folder: Path) -> list[str]:
    paths = (p for p in folder.rglob("*") if p.is_file() or p.is_symlink())
    return sorted(name for p in paths if (name := p.relative_to(folder).as_posix()) != LOCK)
