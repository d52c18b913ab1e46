"""Rank models by a task's score beside their speed and memory, as a table, Markdown or HTML.

Scores come from any eval command's --out, speed and memory from `tinygpt bench --out`, under one model name.

Example:

    tinygpt leaderboard rows.jsonl --task gsm8k --metric strict_match --out docs/leaderboard.md
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinygpt.cli._options import Json
from tinygpt.cli._render import Output, table


def main(
    files: Annotated[list[Path], typer.Argument(help="JSONL files of eval rows.")],
    task: Annotated[str, typer.Option(help="Which task ranks; not given: the only one.")] = "",
    metric: Annotated[str, typer.Option(help="Which of its metrics; not given: the only one.")] = "",
    out: Annotated[
        list[Path] | None, typer.Option(help="Page to write, .md or .html; may be repeated.")
    ] = None,
    json_: Json = False,
) -> None:
    import dataclasses

    from tinygpt.runs.leaderboard import HEAD, cells, run, title

    found = run(files, task=task, metric=metric, out=tuple(out or ()))
    told = [dataclasses.asdict(entry) | {"composite": entry.composite} for entry in found.entries]
    facts = {"task": found.task, "metric": found.metric, "data_version": found.data_version}
    Output(json=json_).result(
        {**facts, "entries": told}, lambda: table(HEAD, list(map(cells, found.entries)), title=title(found))
    )
