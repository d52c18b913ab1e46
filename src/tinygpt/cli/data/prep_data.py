"""Prepare rows as a file says: sources with weights, stages, shuffle, split, output and card.

The file is TOML or JSON; its [[sources]] name a path, a dataset, a github repository, bfcl or tau_bench, with
weight, map, limit and licence; `tinygpt explain stage` lists its [[stages]] and their options. Flags go above
it.

Example:

    tinygpt prep-data --config mix.toml --dry-run
    tinygpt prep-data --config mix.toml --out mix.jsonl --held-out 0.05
"""

from __future__ import annotations

from typing import Any

from tinygpt.cli._data import stages
from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, table, visible
from tinygpt.data.review_rows import KINDS
from tinygpt.runs.prep_data import Config, run


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())
    out.result(found, lambda: _render(found))


def _render(found: dict[str, Any]) -> None:
    lines = [(visible(s["source"]), s["read"], s["kept"], s["taken"]) for s in found["sources"]]
    table(["source", "read", "kept", "taken"], lines)
    stages(found["stages"])
    print(f"{found['rows']:,} {found['format']} rows, {found['held_out']:,} held out")
    for what in ("out", "held_out_file", "card"):
        if what in found:
            print(f"wrote {found[what]}")


main = from_config(Config, call, omit=("sources", "stages"), choices={"kinds": KINDS})
