"""How eval rows look in a terminal and in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinygpt.cli._render import table

if TYPE_CHECKING:
    from tinygpt.core.rows import EvalRow
    from tinygpt.eval.compare import Cell, Table


def show(rows: list[EvalRow]) -> None:
    """One line a row, with its interval where it has one."""
    lines = []
    for r in rows:
        interval = f"{r.interval[0]:.3f} to {r.interval[1]:.3f}" if r.interval else ""
        trouble = ", ".join(
            f"{n} {what}" for n, what in ((r.n_failed, "failed"), (r.n_truncated, "cut off")) if n
        )
        task = f"{r.task}/{r.subtask}" if r.subtask else r.task
        lines.append((task, r.metric, f"{r.score:.4f}", interval, r.n_examples, trouble))
    table(["task", "metric", "score", "95 % interval", "n", ""], lines)


def compared(found: Table) -> None:
    """A comparison on stdout; * marks the best of a line."""
    head, body = grid(found)
    table(head, body, title=found.title)
    for note in found.notes:
        print(f"note: {note}")


def markdown(found: Table) -> str:
    """The same as a Markdown table."""
    head, body = grid(found)
    lines = [f"### {found.title}", ""] if found.title else []
    lines += [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]
    return "\n".join([*lines, *(f"\nnote: {note}" for note in found.notes)]) + "\n"


def grid(found: Table) -> tuple[list[str], list[list[str]]]:
    """Headings and cells as text."""
    metrics = any(line.metric for line in found.lines)
    head = [found.first, *(["metric"] if metrics else []), *found.columns]
    body = []
    for line in found.lines:
        metric = [line.metric + (" (lower is better)" if line.lower_is_better else "")] if metrics else []
        cells = [_cell(cell, i == line.best) for i, cell in enumerate(line.cells)]
        body.append([line.label, *metric, *cells])
    return head, body


def _cell(cell: Cell | None, best: bool) -> str:
    if cell is None:
        return "-"
    half = "" if cell.low is None or cell.high is None else f" [{cell.low:.3f}, {cell.high:.3f}]"
    reruns = f", {cell.n_rows} runs" if cell.n_rows > 1 else ""
    return f"{cell.score:.4f}{half} (n={cell.n}{reruns}){' *' if best else ''}"
