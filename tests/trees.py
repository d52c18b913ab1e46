"""File systems of the file-operations world for its tests: made from paths, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Iterator

from tinygpt.data.world.file_ops import FileSystem
from tinygpt.data.world.file_ops.file_system import parent_of


def state(*paths: str, cwd: str = "/") -> FileSystem:
    """A file system from paths; a trailing slash makes a directory, a file holds its own path."""
    return FileSystem({p.rstrip("/"): None if p.endswith("/") else p + "\n" for p in paths}, cwd)


def problems(fs: FileSystem) -> Iterator[str]:
    """What is wrong with the tree; nothing, unless there is a bug in the simulator."""
    if not fs.is_dir("/"):
        yield "the root is not a directory"
    if not fs.is_dir(fs.cwd):
        yield f"the current directory {fs.cwd} is not a directory"
    for path in fs.nodes:
        if path != "/" and not fs.is_dir(parent_of(path)):
            yield f"{path} is not in a directory"
        if path != "/" and (not path.startswith("/") or path.endswith("/") or "//" in path):
            yield f"{path!r} is not a plain absolute path"
