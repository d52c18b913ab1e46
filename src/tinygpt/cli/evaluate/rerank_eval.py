"""Score rerankers: a model that is asked for an order, or BM25 where none is.

Rows under --predictions are ordered here: by BM25, or by a reranker of rerank-train, of which is told by how
much it is ahead of BM25.

Example:

    tinygpt rerank-eval --predictions triples.jsonl --out rows.jsonl
    tinygpt rerank-eval --predictions triples.jsonl --reranker runs/reranker --out rows.jsonl
    tinygpt rerank-eval runs/tutor/final --data triples.jsonl --out rows.jsonl
"""

from __future__ import annotations

from tinygpt.cli._suite import command

main = command("rerank")
