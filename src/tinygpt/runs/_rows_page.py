"""Tables of eval rows as text, and as a page: each task with its intervals side by side."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from tinygpt.core.files import write_text
from tinygpt.eval.compare import Cell, Table
from tinygpt.runs._compare_page import STYLE

LEFT, WIDTH, HIGH = 240, 720, 24


def grid(found: Table) -> tuple[list[str], list[list[str]]]:
    """Headings and cells as text."""
    metrics = any(line.metric for line in found.lines)
    head = [found.first, *(["metric"] if metrics else []), *found.columns]
    body: list[list[str]] = []
    for line in found.lines:
        metric = [line.metric + (" (lower is better)" if line.lower_is_better else "")] if metrics else []
        cells = [_cell(cell, i == line.best, found.kind) for i, cell in enumerate(line.cells)]
        body.append([line.label, *metric, *cells])
    return head, body


def _cell(cell: Cell | None, best: bool, kind: str) -> str:
    if cell is None:
        return "-"
    sign = "+" if kind == "differences" else ""
    known = cell.low is not None and cell.high is not None
    half = f" [{cell.low:{sign}.3f}, {cell.high:{sign}.3f}]" if known else ""
    p = "" if cell.p is None else f" p={cell.p:.2g}"
    reruns = f", {cell.n_rows} runs" if cell.n_rows > 1 else ""
    return f"{cell.score:{sign}.4f}{half}{p} (n={cell.n}{reruns}){' *' if best else ''}"


def panels(found: Table) -> list[tuple[str, list[tuple[str, Cell]]]]:
    """What can be drawn on one axis: (title, [(label, cell)]), one task and metric in each."""
    if found.columns and found.first == "task":
        pairs = [
            (f"{line.label} {line.metric}", list(zip(found.columns, line.cells))) for line in found.lines
        ]
    else:
        labels = [line.label for line in found.lines]
        cells = [[line.cells[i] for line in found.lines] for i in range(len(found.columns))]
        title = f"{found.title} " if found.title else ""
        pairs = [(title + name, list(zip(labels, column))) for name, column in zip(found.columns, cells)]
    drawn = [(title, [(label, cell) for label, cell in pair if cell is not None]) for title, pair in pairs]
    return [panel for panel in drawn if panel[1]]


def write(path: Path, tables: Sequence[Table]) -> None:
    """The page, whole or not at all."""
    parts = [f"<!doctype html><meta charset=utf-8><title>eval rows</title><style>{STYLE}</style>"]
    for found in tables:
        head, body = grid(found)
        lines = [f"<tr>{_cells(head, 'th')}</tr>", *(f"<tr>{_cells(line, 'td')}</tr>" for line in body)]
        title = f"<h2>{escape(found.title)}</h2>" if found.title else ""
        parts += [title, f"<table>{''.join(lines)}</table>"]
        parts += [f"<p>{escape(note)}</p>" for note in found.notes]
        parts += [_svg(name, cells, found.kind) for name, cells in panels(found)]
    write_text(path, "\n".join(filter(None, parts)) + "\n")


def _cells(values: Sequence[str], tag: str) -> str:
    return "".join(f"<{tag}>{escape(value)}</{tag}>" for value in values)


def _svg(title: str, cells: Sequence[tuple[str, Cell]], kind: str) -> str:
    """Scores as points with their intervals, one under the other."""
    ends = [v for _, c in cells for v in (c.score, c.low, c.high) if v is not None]
    ends += [0.0] if kind == "differences" else []
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 20) * (value - low) / span, 1)

    height = HIGH * len(cells) + 46
    parts = [
        f'<svg role="img" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{escape(title)}</title>',
        f'<text x="{LEFT}" y="16" font-size="14">{escape(title)}</text>',
    ]
    if kind == "differences":
        parts.append(f'<line x1="{x(0)}" x2="{x(0)}" y1="22" y2="{height - 20}" stroke="#999"/>')
    for i, (label, cell) in enumerate(cells):
        y = 36 + HIGH * i
        parts.append(
            f'<text x="{LEFT - 10}" y="{y + 4}" font-size="13" text-anchor="end">{escape(label)}</text>'
        )
        if cell.low is not None and cell.high is not None:
            ends_at = f'x1="{x(cell.low)}" x2="{x(cell.high)}" y1="{y}" y2="{y}"'
            parts.append(f'<line {ends_at} stroke="#1f5fa8" stroke-width="3"/>')
        parts.append(f'<circle cx="{x(cell.score)}" cy="{y}" r="4" fill="#1f5fa8"/>')
    for value, anchor in ((low, "start"), (high, "end")):
        parts.append(
            f'<text x="{x(value)}" y="{height - 4}" font-size="12" text-anchor="{anchor}">{value:.3g}</text>'
        )
    return "".join(parts) + "</svg>"
