"""Score functions that a model writes, HumanEval's problems, in the kernel's sandbox.

EvalPlus' file has more inputs for the same problems. MBPP's problems: tinygpt eval-mbpp.

Example:

    tinygpt eval-humaneval runs/coder/final --data HumanEval.jsonl.gz --out rows.jsonl
    tinygpt eval-humaneval qwen --url http://127.0.0.1:8080/v1 --data HumanEval.jsonl.gz --n 20 --k 1,10 \
--temperature 0.8
"""

from __future__ import annotations

from tinygpt.cli._suite import command

main = command("humaneval")
