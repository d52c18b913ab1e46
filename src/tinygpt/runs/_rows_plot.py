"""A picture of eval rows: one panel for each task and metric, points with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from tinygpt.core.errors import ConfigError
from tinygpt.eval.compare import Table
from tinygpt.runs._bench_plot import KINDS, plotter, write
from tinygpt.runs._rows_page import panels

ACROSS = 3


def check(path: Path) -> None:
    """Refuse what cannot be drawn, before anything is measured."""
    if path.suffix not in KINDS or path.is_dir():
        raise ConfigError(f"--plot {path} ends in none of {', '.join(KINDS)}", hint="for example rows.png")
    plotter()


def draw(path: Path, tables: Sequence[Table], by: str) -> None:
    """Write the picture; over steps a line, which shows when an ability appeared."""
    pyplot = plotter()
    shown = [(*panel, table.kind) for table in tables for panel in panels(table)]
    rows = math.ceil(len(shown) / ACROSS)
    across = min(ACROSS, len(shown))
    figure, axes = pyplot.subplots(
        rows, across, figsize=(5 * across, 3.6 * rows), layout="constrained", squeeze=False
    )
    for axis, (title, cells, kind) in zip(axes.flat, shown):
        scores = [cell.score for _, cell in cells]
        below = [0.0 if cell.low is None else max(0.0, cell.score - cell.low) for _, cell in cells]
        above = [0.0 if cell.high is None else max(0.0, cell.high - cell.score) for _, cell in cells]
        steps = by == "step"
        x = [int(label) for label, _ in cells] if steps else list(range(len(cells)))
        axis.errorbar(x, scores, yerr=[below, above], marker="o", capsize=3, linestyle="-" if steps else "")
        if steps:
            axis.set_xlabel("step")
        else:
            axis.set_xticks(x, [label for label, _ in cells], rotation=20, ha="right")
            axis.set_xlim(-0.5, len(cells) - 0.5)
        if kind == "differences":
            axis.axhline(0.0, color="#999", linewidth=1)
            title = f"{title}: {tables[-1].title}"
        axis.set_title(title, fontsize=10)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    write(pyplot, figure, path)
