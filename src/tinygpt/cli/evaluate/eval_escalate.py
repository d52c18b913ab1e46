"""Score whether a model hands over the questions that it would get wrong, and only those.

Example:

    tinygpt eval-escalate runs/tutor/final --data questions.jsonl --out rows.jsonl
    tinygpt eval-escalate --predictions decisions.jsonl
"""

from __future__ import annotations

from tinygpt.cli._suite import command

main = command("escalate")
