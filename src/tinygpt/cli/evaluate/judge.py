"""Have a model compare pairs of answers in both orders, or rate answers by a rubric.

Example:

    tinygpt judge models/judge --data pairs.jsonl --judged tutor --out rows.jsonl
    tinygpt judge qwen3:8b --url http://127.0.0.1:11434/v1 --data pairs.jsonl --reason
    tinygpt judge models/judge --data answers.jsonl --mode rate --rubric rubric.txt --high 5
"""

from __future__ import annotations

from tinygpt.cli._suite import command

main = command("judge")
