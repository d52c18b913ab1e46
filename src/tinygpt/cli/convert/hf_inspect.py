"""Say what a model or a data set is, here or on the hub, without loading its weights.

Of hf://org/name the small files are fetched, and of the weights their headers alone; of a data set its card,
and one file.

Example:

    tinygpt hf-inspect hf://org/name
    tinygpt hf-inspect hf://datasets/org/name
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tinygpt.cli._data import show as show_data
from tinygpt.cli._options import Json, Quiet
from tinygpt.cli._render import Output, size, table


def main(
    model: Annotated[
        Path, typer.Argument(help="A model or folder of rows, hf://org/name or hf://datasets/...")
    ],
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    from tinygpt.runs.hf_inspect import inspect

    out = Output(json=json_, quiet=quiet)
    facts = inspect(model, out.events())
    render = show_data if facts.get("kind") == "data set" else _render
    out.result(facts, lambda: render(facts))


def _render(facts: dict[str, Any]) -> None:
    plain = {k: v for k, v in facts.items() if isinstance(v, str | int | float) and "bytes" not in k}
    tables = {
        k: facts.get(k) for k in ("rope", "quantisation", "tokenizer", "chat_template", "card", "dtypes")
    }
    said = [(k, _line(v)) for k, v in tables.items()]
    cache = facts.get("cache_bytes_per_token")
    more = [("on disk", f"{facts['files']} files, {size(facts['bytes'])}")]
    more += [("cache of 1,000 tokens", size(1000 * cache))] if cache else []
    table(["what", "value"], [*((k, v) for k, v in plain.items() if k != "files"), *said, *more])
    table(["weights in", "memory"], [(k, size(v)) for k, v in facts["memory"].items()])
    groups = [
        (g["group"], g["parameters"], size(g["bytes"]), ", ".join(g["dtypes"])) for g in facts["groups"]
    ]
    table(["tensors", "parameters", "on disk", "dtype"], groups)
    if facts["suspicious"]:
        table(
            ["suspicious", "why (never opened here)"], [(s["file"], s["what"]) for s in facts["suspicious"]]
        )


def _line(value: dict[str, Any] | None) -> str:
    return "none" if not value else ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
