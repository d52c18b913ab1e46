"""Score how a model, or each method of a file of answers, chooses tools for requests.

Example:

    tinygpt eval-router runs/router/final --data requests.jsonl --out rows.jsonl
    tinygpt eval-router --predictions methods.jsonl --out rows.jsonl
"""

from __future__ import annotations

from tinygpt.cli._suite import command

main = command("router")
