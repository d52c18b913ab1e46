"""Train a reranker: it puts documents that answer a query before those that do not.

It learns from triples, from judged sentences, and from questions with a context and an answer: `compress
--kind head` chooses sentences by such a one. The report is made on queries kept back, beside BM25 and chance.

Example:

    tinygpt rerank-train --triples triples.jsonl --out runs/reranker
    tinygpt rerank-train --triples questions.jsonl --kind cross-encoder --out runs/head
    tinygpt rerank-eval --predictions triples.jsonl --reranker runs/reranker
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, cell, table
from tinygpt.cli._train import KNOBS, finish
from tinygpt.runs._rerank_settings import IDLE, Config
from tinygpt.runs.rerank_train import run


def call(config: Config, out: Output) -> int:
    return finish(run(config, out.events()), config.out, out, use=_use, shown=_reported)


def _use(where: Path) -> str:
    return shlex.join(["tinygpt", "validate", str(where)])


def _reported(report: dict[str, Any]) -> None:
    def shown(one: Any) -> str:
        return f"{cell(one['value'])} [{cell(one['low'])}, {cell(one['high'])}]"

    names = list(report["metrics"])
    lines = [(report["kind"], *(shown(report["metrics"][name]) for name in names))]
    for other, found in report["baselines"].items():
        lines.append((other, *(shown(found[name]) for name in names)))
        lines.append((f"  ahead of {other} by", *(shown(found[name]["lead"]) for name in names)))
    table(["on queries kept back", *names], lines)
    per = report["documents"]
    print(f"{report['queries']:,} queries with {per['least']} to {per['most']} documents")


main = from_config(Config, call, knobs=KNOBS, omit=IDLE, rename={"data": "triples"}, also={"data": "data"})
