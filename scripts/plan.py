"""Count PLAN.md, and list rows still 'to do' though their files exist: give each a test, then call it shipped."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from house.ledger import Row, rows  # noqa: E402

found = [row for row in rows(ROOT) if isinstance(row, Row)]
ready = [r for r in found if r.status == "to do" and r.files and all((ROOT / f).exists() for f in r.files)]
print(", ".join(f"{n} {status}" for status, n in Counter(r.status for r in found).most_common()))
for row in ready:
    print(
        f"PLAN.md:{row.line}: {row.what}: {' '.join(row.files)} exists, test: {' '.join(row.tests) or 'none named'}"
    )
