"""How long a file may be (technique 300 lines, command 80, run 150, any other 400), and its name."""

from __future__ import annotations

from pathlib import Path

from house.tree import sources
from tinygpt.runs._families import KINDS

# Raised on purpose: file -> (limit, reason). An entry that is no longer needed fails too.
ALLOWED: dict[str, tuple[int, str]] = {}
VAGUE = {"utils", "util", "helpers", "common", "misc"}


def check(root: Path, allowed: dict[str, tuple[int, str]] | None = None) -> list[str]:
    """One line for each file over its budget, with a vague name, or allowed more than it needs."""
    allowed = ALLOWED if allowed is None else allowed
    found = []
    lengths = {str(p.relative_to(root)): count(p) for p in sources(root, "src", "tests", "scripts")}
    for name, lines in lengths.items():
        kind, limit = budget(name)
        most = allowed.get(name, (limit, ""))[0]
        if lines > most:
            found.append(
                f"{name}:{most + 1}: {lines} lines, a {kind} has at most {most}: split it by what it does"
            )
        if name in allowed and lines <= limit:
            found.append(
                f"{name}: fits into {limit} lines again: remove it from ALLOWED in tests/house/budgets.py"
            )
        if VAGUE.intersection(Path(name).with_suffix("").parts):
            found.append(f"{name}: a name that says nothing: call it after what it holds")
    found += [f"{name}: is in ALLOWED, but does not exist" for name in allowed if name not in lengths]
    found += [f"{name}: is in ALLOWED without a reason" for name, (_, why) in allowed.items() if not why]
    return found


def count(path: Path) -> int:
    """Lines of a file."""
    return path.read_text(encoding="utf-8").count("\n")


def budget(name: str) -> tuple[str, int]:
    """(kind, most lines) of a file."""
    folder, _, file = name.rpartition("/")
    parts = folder.split("/")
    if folder in {f"src/{k.package.replace('.', '/')}" for k in KINDS} and not file.startswith("_"):
        return "technique", 300
    if parts[:3] == ["src", "tinygpt", "cli"] and len(parts) == 4:
        return "command", 80
    if folder == "src/tinygpt/runs" and not file.startswith("_"):
        return "run", 150
    return "file", 400


def totals(root: Path) -> dict[str, int]:
    """Lines by folder, the packages of tinygpt each for itself."""
    found: dict[str, int] = {}
    for path in sources(root, "src/tinygpt", "tests", "scripts"):
        parts = path.relative_to(root).parts
        key = "/".join(parts[2:3] if parts[0] == "src" and len(parts) > 3 else parts[:1])
        found[key] = found.get(key, 0) + count(path)
    return found
