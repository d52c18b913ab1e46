"""Score how short contexts may become: what is kept, whether the answer is in it, whether a model finds it.

Rows under --predictions are shortened here, where they bring no text of their own.

Example:

    tinygpt eval-scaledown --predictions questions.jsonl --keep-frac 0.3
    tinygpt eval-scaledown runs/tutor/final --data questions.jsonl --out rows.jsonl
"""

from __future__ import annotations

from tinygpt.cli._suite import command

main = command("scaledown")
