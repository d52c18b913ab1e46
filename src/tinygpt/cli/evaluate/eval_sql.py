"""Score queries for SQLite by what they find: a model's, or those of a file.

Example:

    tinygpt eval-sql runs/sql/final --data questions.jsonl --db-dir databases --out rows.jsonl
    tinygpt eval-sql --predictions answers.jsonl --db-dir databases
"""

from __future__ import annotations

from tinygpt.cli._suite import command

main = command("sql")
