"""Score whether a planner refuses, asks back and has things confirmed where it should.

Example:

    tinygpt eval-judgement runs/planner/final --data evals/judgement --out rows.jsonl
    tinygpt eval-judgement qwen3:4b --url http://127.0.0.1:11434/v1 --data evals/judgement
"""

from __future__ import annotations

from tinygpt.cli._suite import command

main = command("judgement")
