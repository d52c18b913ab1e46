"""Measure a model: held-out loss and bits per byte on text, or suites by name.

A suite's own settings have no flag of their own: --set options.SUITE.KEY=VALUE reaches them, and `tinygpt
explain SUITE` lists them.

Example:

    tinygpt eval runs/book/final --corpus other.txt
    tinygpt eval specialists/file-ops-tiny --suite executed_state --out rows.jsonl
    tinygpt eval specialists/file-ops-tiny --suite executed_state --set options.executed_state.n=20
    tinygpt eval runs/book/final --suite exact_match --set options.exact_match.path=questions.jsonl
"""

from __future__ import annotations

import dataclasses

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.cli._rows import show
from tinygpt.cli._suite import ALSO
from tinygpt.runs.evaluate import SUITES, Config, refuse_errors, run


def call(config: Config, out: Output) -> None:
    rows = run(config, out.events())
    out.result([dataclasses.asdict(r) for r in rows], lambda: show(rows))
    refuse_errors(rows, config.max_errors)


main = from_config(
    Config, call, arguments=("model",), needs={"glob": "corpus"}, also=ALSO | {"model_name": "name"},
    spares={"url": "model"}, choices={"suite": SUITES.names()},
)  # fmt: skip
