"""What every house check reads: the files of a tree, parsed once, and how a place in them is written."""

from __future__ import annotations

import ast
import functools
import gc
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {
    ".git",
    ".venv",
    "__pycache__",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
    "dist",
    "build",
    "runs",
}


def sources(root: Path, *folders: str) -> list[Path]:
    """Python files below the named folders, sorted."""
    return sorted(
        p
        for folder in folders
        for p in (root / folder).rglob("*.py")
        if "__pycache__" not in p.parts and not p.name.startswith(".")
    )


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return _parse(path.read_text(encoding="utf-8"))


# By content: the planted copies of the house share the trees of all files but one.
@functools.cache
def _parse(text: str) -> ast.Module:
    on = gc.isenabled()
    gc.disable()  # a tree is nothing but new objects, none of them garbage
    try:
        return ast.parse(text)
    finally:
        if on:
            gc.enable()


def walk(root: Path, *folders: str, word: str) -> Iterator[tuple[str, ast.AST]]:
    """(file relative to root, node) for every node of every file that has a word; others need no parsing."""
    for path in sources(root, *folders):
        text = path.read_text(encoding="utf-8")
        if word in text:
            name = str(path.relative_to(root))
            for node in ast.walk(_parse(text)):
                yield name, node


def blocks(node: ast.AST) -> Iterator[ast.AST]:
    """What stands in the blocks of a node: statements, handlers and cases. Expressions, which are most of a
    tree, are left out."""
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        found = getattr(node, field, None)
        if isinstance(found, list):
            yield from found


def statements(root: Path, *folders: str, word: str) -> Iterator[tuple[str, ast.AST]]:
    """As `walk`, without expressions."""
    for path in sources(root, *folders):
        text = path.read_text(encoding="utf-8")
        if word in text:
            name, waiting = str(path.relative_to(root)), list(blocks(_parse(text)))
            while waiting:
                node = waiting.pop()
                yield name, node
                waiting += blocks(node)


def first_line(path: Path) -> str:
    """Line 1 of a file's docstring, or ""."""
    text = path.read_text(encoding="utf-8")
    # Nearly every file begins with it: no need to parse all of them.
    plain = re.match(r'"""([^"\\\s][^"\\\n]*)("""$|\n)', text, re.MULTILINE)
    return plain.group(1) if plain else (ast.get_docstring(_parse(text)) or "").partition("\n")[0]


def text_files(root: Path) -> list[Path]:
    """Files that are, or would be, tracked: git's list in a repository, else everything but caches."""
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = [root / name for name in listed.split("\0") if name]
    else:
        found = [p for p in root.rglob("*") if not SKIPPED.intersection(p.relative_to(root).parts)]
    return sorted(p for p in found if p.is_file())
