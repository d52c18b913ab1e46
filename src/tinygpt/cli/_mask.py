"""What `--show-mask` prints: rows with the learned tokens in colour, or in brackets where there is none."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tinygpt.cli._render import Output, visible

if TYPE_CHECKING:
    from tinygpt.runs._mask import MaskedRow

OPEN, CLOSE = "[[", "]]"


def show(rows: list[MaskedRow], out: Output) -> int:
    """Render the rows; 0."""
    counted = [{"ids": row.ids, "tokens": row.tokens, "learned": row.learned} for row in rows]
    out.result(counted, lambda: _show(rows))
    return 0


def _show(rows: list[MaskedRow]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    colours = sys.stdout.isatty()
    for i, row in enumerate(rows):
        if i:
            print()
        head = f"row {i + 1}: {sum(row.learned)} of {len(row.ids)} tokens are learned"
        if not colours:
            print(head)
            print("".join(f"{OPEN}{text}{CLOSE}" if learned else text for text, learned in row.runs()))
            continue
        console.print(Text(head, style="bold"))
        shown = Text()
        for text, learned in row.runs():
            shown.append(visible(text), style="bold green" if learned else "dim")
        console.print(shown)
