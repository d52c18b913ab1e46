"""Make {query, tool} pairs for a router from BFCL, tau-bench, tools, and conversations with calls.

A request that no tool serves has the tool "none"; one that needs several is left out, as is one that occurs
with two tools. The split is by the request's text, so that more data do not move a request to the other side.

Example:

    tinygpt extractor-data --data rows.jsonl --tools tools.json --out pairs.jsonl
    tinygpt extractor-data --tools tools.json --synth --synth-url http://127.0.0.1:8080/v1 --out pairs.jsonl
"""

from __future__ import annotations

from typing import Any

from tinygpt.cli._data import stages
from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, table, visible
from tinygpt.runs.extractor_data import Config, run

MOST = 40  # tools that are shown


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())
    out.result(found, lambda: _render(found))


def _render(found: dict[str, Any]) -> None:
    stages(found["stages"])
    most = sorted(found["tools"].items(), key=lambda one: (-one[1], one[0]))
    table(["tool", "requests"], [(visible(name), n) for name, n in most[:MOST]])
    if len(most) > MOST:
        print(f"and {len(most) - MOST:,} more tools")
    if "out" in found:
        print(f"{found['rows']:,} pairs in {found['out']}, {found['held_out']:,} held out")
        print(f"wrote {found['card']}")


main = from_config(Config, call)
