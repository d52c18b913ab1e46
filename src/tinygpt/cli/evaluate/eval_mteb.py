"""Score a model's embeddings as MTEB does: passages that are found, likeness that people see.

Data are files of this machine (--data), or tasks of the package mteb (--tasks, the extra `mteb`), which takes
theirs from the Hugging Face hub or its cache.

Example:

    tinygpt eval-mteb runs/book/final --data scifact --data sts.jsonl --limit 500 --out rows.jsonl
    tinygpt eval-mteb runs/book/final --tasks SciFact,STSBenchmark --limit 500 --out rows.jsonl
    tinygpt eval-mteb nomic-embed-text --url http://127.0.0.1:11434/v1 --data scifact
"""

from __future__ import annotations

from tinygpt.cli._suite import command

main = command("mteb")
