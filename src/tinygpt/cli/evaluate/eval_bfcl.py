"""Score a model on BFCL, the Berkeley function-calling leaderboard, with its official runner and scorer.

The harness is installed on first use, into an environment of its own.

Example:

    tinygpt eval-bfcl runs/caller/final --tasks single_turn,multi_turn_base --limit 50 --out rows.jsonl
    tinygpt eval-bfcl llama3.2 --url http://127.0.0.1:11434/v1 --mode prompt --out rows.jsonl
"""

from __future__ import annotations

import dataclasses

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.cli._rows import show
from tinygpt.cli._suite import ALSO
from tinygpt.runs._bfcl_known import CLASSES, EVERY, GROUPS
from tinygpt.runs._bfcl_settings import Config


def call(config: Config, out: Output) -> None:
    from tinygpt.runs.bfcl import run
    from tinygpt.runs.evaluate import refuse_errors

    rows = run(config, out.events())
    out.result([dataclasses.asdict(r) for r in rows], lambda: show(rows))
    refuse_errors(rows, config.max_errors)


main = from_config(
    Config, call, arguments=("model",), spares={"url": "model"}, also={**ALSO, "tasks": "categories"},
    omit=("tokenizer",), choices={"tasks": [*GROUPS, *EVERY], "classes": CLASSES},
)  # fmt: skip
