"""Score a model on GSM8K's word problems, or on problems of the same form.

Example:

    tinygpt eval-gsm8k runs/tutor/final --data gsm8k_test.jsonl --limit 200 --out rows.jsonl
    tinygpt eval-gsm8k llama3.2 --url http://127.0.0.1:11434/v1 --data gsm8k_test.jsonl
"""

from __future__ import annotations

from tinygpt.cli._suite import command

main = command("gsm8k")
