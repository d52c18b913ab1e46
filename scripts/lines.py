"""Print lines of Python by folder, and the change since a git revision (default: the last commit)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from house.budgets import totals  # noqa: E402


def since(revision: str) -> str:
    """What git says has changed, or why it cannot say."""
    command = ["git", "-C", str(ROOT), "diff", "--shortstat", revision, "--", "*.py"]
    found = subprocess.run(command, capture_output=True, text=True)
    return found.stdout.strip() or ("no change" if found.returncode == 0 else "unknown here")


found = totals(ROOT)
print("lines: " + ", ".join(f"{folder} {n:,}" for folder, n in sorted(found.items(), key=lambda p: -p[1])))
revision = sys.argv[1] if len(sys.argv) > 1 else "HEAD"
print(f"total: {sum(found.values()):,}; since {revision}: {since(revision)}")
