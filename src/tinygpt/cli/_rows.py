"""How eval rows look in a terminal and in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinygpt.cli._render import line, table

if TYPE_CHECKING:
    from tinygpt.core.rows import EvalRow
    from tinygpt.eval.compare import Table


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
    from tinygpt.runs._rows_page import grid

    head, body = grid(found)
    table(head, body, title=found.title)
    for note in found.notes:
        line(f"note: {note}")


def markdown(found: Table) -> str:
    """The same as a Markdown table."""
    from tinygpt.runs._rows_page import grid

    head, body = grid(found)
    lines = [f"### {found.title}", ""] if found.title else []
    cells = [
        [" ".join(cell.split()).replace("|", "\\|") for cell in row]
        for row in (head, ["---"] * len(head), *body)
    ]
    lines += [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([*lines, *(f"\nnote: {note}" for note in found.notes)]) + "\n"
