"""Train a reranker: it puts documents that answer a query before those that do not.

It learns from triples, from judged sentences, and from questions with a context and an answer: `compress
--kind head` chooses sentences by such a one. The report is made on queries kept back, beside BM25 and chance.

Example:

    tinygpt rerank-train --triples triples.jsonl --out runs/reranker
    tinygpt rerank-train --triples questions.jsonl --kind cross-encoder --out runs/head
    tinygpt rerank-eval --predictions triples.jsonl --reranker runs/reranker
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tinygpt.cli._exit import INTERRUPTED
from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, cell, clock, line, table
from tinygpt.cli._train import HOW, KNOBS
from tinygpt.model.checkpoint import read_json
from tinygpt.runs._rerank_settings import IDLE, Config
from tinygpt.runs.rerank_train import run


def call(config: Config, out: Output) -> int:
    result = run(config, out.events())
    stopped = result.status == "interrupted"
    where = config.out / ("steps" if stopped else "final")
    report = {} if stopped else read_json(where / "report.json")

    def render() -> None:
        print(f"{HOW.get(result.status, result.status)} at step {result.step} after {clock(result.seconds)}")
        if report:
            _reported(report)
        line(f"saved in {where}")
        print("continue with the same command and --resume" if stopped else f"try: tinygpt validate {where}")

    out.result({**dataclasses.asdict(result), "path": str(where), "report": report}, render)
    return INTERRUPTED if stopped else 0


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
