"""Train a router: from {query, tool} rows it learns which tool serves a request, or that none does.

It leaves a report made on requests kept back: accuracy, macro-F1 and calibration error with their intervals,
every class, and how far it is ahead of the commonest tool and of BM25.

Example:

    tinygpt train-extractor pairs.jsonl --tools tools.json --vocab-size 2000 --out runs/router
    tinygpt extract runs/router --query "what is in this folder?"
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, cell, table, visible
from tinygpt.cli._train import KNOBS, finish
from tinygpt.runs._router_settings import IDLE, Config
from tinygpt.runs.train_extractor import plan, run

MOST = 30  # classes that are shown


def call(config: Config, out: Output) -> int:
    if config.dry_run:
        found = plan(config, out.events())
        out.result(found, lambda: _planned(found))
        return 0
    return finish(run(config, out.events()), config.out, out, use=_use, shown=_reported)


def _use(where: Path) -> str:
    return f"{shlex.join(['tinygpt', 'extract', str(where)])} ..."


def _planned(found: dict[str, Any]) -> None:
    parts = found["requests"]
    table(["tool", *parts], [(visible(t), *n.values()) for t, n in list(found["tools"].items())[:MOST]])
    told = ", ".join(f"{name} {n:,}" for name, n in parts.items())
    print(f"{found['classes']} classes; requests: {told}")


def _reported(report: dict[str, Any]) -> None:
    def shown(one: Any) -> str:
        return f"{cell(one['value'])} [{cell(one['low'])}, {cell(one['high'])}]"

    lines = [("router", shown(report["accuracy"]), shown(report["macro_f1"]), "")]
    for name, one in report.get("baselines", {}).items():
        lines.append((name, shown(one["accuracy"]), shown(one["macro_f1"]), shown(one["lead"])))
    table(["on requests kept back", "accuracy", "macro-F1", "the router's lead"], lines)
    classes = sorted(report["classes"].items(), key=lambda one: -one[1]["rows"])
    each = [(n, c["rows"], shown(c["precision"]), shown(c["recall"]), c["f1"]) for n, c in classes[:MOST]]
    table(["tool", "requests", "precision", "recall", "f1"], each)
    print(f"{report['rows']:,} requests, calibration error {shown(report['ece'])}")


main = from_config(
    Config, call, arguments=("data",), knobs=KNOBS, omit=IDLE, also={"eval_every": "val_every"},
)  # fmt: skip
