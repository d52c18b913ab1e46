"""Every command is a file in a known heading, with a help text, an example and its section in docs/cli.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from house.tree import parse

CLI = "src/tinygpt/cli"
PAGE = "docs/cli.md"


def headings(root: Path) -> dict[str, str]:
    """HEADINGS of cli/_root.py, read without importing."""
    for node in parse(root / CLI / "_root.py").body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "HEADINGS":
            return ast.literal_eval(node.value)
    return {}


def files(root: Path) -> list[Path]:
    """Every command file below cli/, listed or not."""
    return sorted(p for p in (root / CLI).glob("*/*.py") if not p.name.startswith("_"))


def check(root: Path) -> list[str]:
    """One line for each command that people could not find or understand."""
    return [*_folders(root), *(line for path in files(root) for line in _command(root, path)), *_page(root)]


def _folders(root: Path) -> Iterator[str]:
    known = headings(root)
    found = {p.parent.name for p in files(root)}
    for name in sorted(found - set(known)):
        yield f"{CLI}/{name}: not in HEADINGS of cli/_root.py, so its commands are not listed"
    for name in sorted(set(known)):
        if not (root / CLI / name / "__init__.py").is_file():
            yield f"{CLI}/_root.py: the heading '{name}' has no folder"


def _command(root: Path, path: Path) -> Iterator[str]:
    name, place = path.stem.replace("_", "-"), path.relative_to(root)
    text = ast.get_docstring(parse(path)) or ""
    if not text:
        yield f"{place}:1: no docstring: it is the command's help"
    elif not re.search(rf"^Examples?:\n\n    .*tinygpt {name}\b", text, re.MULTILINE):
        yield f"{place}:1: no example: 'Example:', an empty line, '    tinygpt {name} ...'"
    defined = {n.name for n in parse(path).body if isinstance(n, ast.FunctionDef)}
    for node in (n for n in parse(path).body if isinstance(n, ast.Assign)):
        defined |= {ast.unparse(t) for t in node.targets}
    if "main" not in defined:
        yield f"{place}:1: a command is its function `main`"


def _page(root: Path) -> Iterator[str]:
    page = root / PAGE
    listed = (
        re.findall(r"^### tinygpt (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        if page.exists()
        else []
    )
    names = [p.stem.replace("_", "-") for p in files(root)]
    for name in sorted(set(names) - set(listed)):
        yield f"{PAGE}: does not list the command {name}: run `make docs`"
    for name in sorted(set(listed) - set(names)):
        yield f"{PAGE}: lists {name}, which is not a command: run `make docs`"
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield f"{CLI}: two files are called {name}"
