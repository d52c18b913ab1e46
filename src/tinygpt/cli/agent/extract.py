"""Ask a router which tool serves a request, with probabilities.

Example:

    tinygpt extract runs/router --query "what is in this folder?" --json
    tinygpt extract runs/router --data held_out.jsonl --batch 64 --predictions methods.jsonl
    tinygpt eval-router --predictions methods.jsonl
"""

from __future__ import annotations

import sys
from typing import Any

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, line
from tinygpt.runs.extract import Config, run


def call(config: Config, out: Output) -> None:
    for found in run(config, sys.stdin, out.events()):
        out.result(found, lambda found=found: _render(found, named=not config.query))


def _render(found: dict[str, Any], *, named: bool) -> None:
    if named:
        line(found["query"])
    for one in found["predictions"]:
        line(f"  {one['prob']:.4f}  {one['tool']}")
    if not found["predictions"]:
        print("  none is probable enough")


main = from_config(Config, call, arguments=("router",))
