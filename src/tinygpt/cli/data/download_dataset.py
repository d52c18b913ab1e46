"""Fetch a data set of the hub and write its rows as sft, dpo or train read them, with a card.

JSON, JSON lines, Parquet, CSV and Arrow are read; files are checked by the hub's hashes, and a fetch that was
cut goes on where it stopped. The licence is read from the data set's own card.

Example:

    tinygpt download-dataset yahma/alpaca-cleaned --inspect
    tinygpt download-dataset hf://datasets/org/name --map response=solution --out rows.jsonl
"""

from __future__ import annotations

from typing import Any

from tinygpt.cli._data import rows
from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output, size, table, visible
from tinygpt.runs.download_dataset import Config, run


def call(config: Config, out: Output) -> None:
    found = run(config, out.events())
    out.result(found, lambda: _render(found))


def _render(found: dict[str, Any]) -> None:
    told = ("dataset", "commit", "licence", "gated", "page", "config_name", "split", "format", "confidence")
    lines = [(key.replace("_", " "), visible(str(found[key]))) for key in told if found.get(key)]
    lines.append(("files", f"{found['files']}, {size(found['bytes'])}"))
    lines += [("columns", visible(found["shape"]))] if "shape" in found else []
    if isinstance(found.get("rows"), int):
        lines.append(("rows", f"{found['rows']:,} written, {found['left_out']:,} left out"))
        lines += [("  left out", f"{n:,}: {visible(why)}") for why, n in found["reasons"].items()]
        lines += [("written", found["out"]), ("card", found["card"])]
    table(["what", "value"], lines)
    if isinstance(found.get("rows"), list):
        rows(found["rows"])


main = from_config(Config, call, arguments=("dataset",))
