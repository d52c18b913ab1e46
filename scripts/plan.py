"""Count PLAN.md, and list the rows still 'to do' though their files exist."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from house.ledger import Row, rows  # noqa: E402

found = [row for row in rows(ROOT) if isinstance(row, Row)]
print(", ".join(f"{n} {status}" for status, n in Counter(r.status for r in found).most_common()))
for row in found:
    if row.status == "to do" and row.files and all((ROOT / f).exists() for f in row.files):
        print(f"PLAN.md:{row.line}: {row.what}: {row.files[0]}, test: {' '.join(row.tests) or 'none'}")
