"""Compare the eval rows of several files, and the records of examples beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.rows import beside
from tinygpt.eval.compare import Table, compare, differences, with_intervals
from tinygpt.runs import _rows_page, _rows_plot
from tinygpt.runs._eval_rows import read
from tinygpt.runs._gate_files import read_records


def run(
    files: Sequence[Path],
    *,
    by: str = "model",
    sort: bool = False,
    strict: bool = False,
    html: Path | None = None,
    plot: Path | None = None,
) -> tuple[list[Table], list[str]]:
    """Tables, and a sentence for each line that is not a row or a record. `html` and `plot` are files that
    are written. DataError when no line is a row."""
    _check(html, plot)
    rows, invalid = read(files)
    records: list[dict[str, Any]] = []
    for path in files:
        told, unread = read_records(beside(path))
        records, invalid = records + told, invalid + unread
    if strict and invalid:
        raise DataError(f"{len(invalid)} lines are not eval rows; first: {invalid[0]}")
    rows = with_intervals(rows, records)
    tables = compare(rows, by, sort=sort)
    if by == "model":
        tables += differences(rows, records, sort=sort)
    if html is not None:
        _rows_page.write(html, tables)
    if plot is not None:
        _rows_plot.draw(plot, tables, by)
    return tables, invalid


def _check(html: Path | None, plot: Path | None) -> None:
    """Before anything is read: what would be written can be."""
    if html is not None and (html.suffix != ".html" or html.is_dir()):
        raise ConfigError(f"--html {html} is no name of a page", hint="for example report.html")
    if plot is not None:
        _rows_plot.check(plot)
