"""Score short programs that a model writes, MBPP's problems, in the kernel's sandbox.

Example:

    tinygpt eval-mbpp runs/coder/final --data mbpp.jsonl --prompt completion --out rows.jsonl
"""

from __future__ import annotations

from tinygpt.cli._suite import command

main = command("mbpp")
