"""Score how many planted issues a reviewer of code finds, and how many it makes up.

Example:

    tinygpt eval-review runs/coder/final --data planted.jsonl --out rows.jsonl
    tinygpt eval-review --predictions reviews.jsonl --lines 0
"""

from __future__ import annotations

from tinygpt.cli._suite import command

main = command("review")
