"""Score exam questions with options, as MILU has them, by language and in the mean of all languages.

Example:

    tinygpt eval-milu runs/tutor/final --data milu.jsonl --out rows.jsonl
    tinygpt eval-milu --predictions answers.jsonl
"""

from __future__ import annotations

from tinygpt.cli._suite import command

main = command("milu")
