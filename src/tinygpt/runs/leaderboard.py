"""The leaderboard of rows, and its pages: Markdown and HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from tinygpt.core.errors import ConfigError
from tinygpt.core.files import write_text
from tinygpt.eval.leaderboard import GB, TOK_S, Board, Entry, board
from tinygpt.runs._compare_page import STYLE
from tinygpt.runs._eval_rows import read

HEAD = ["model", "score", "95 %", "n", "decode tok/s", "memory GB", "composite"]
WORDS = f"composite = score x (tok/s / {TOK_S:g}) x ({GB:g} / GB); speed of one stream, memory at its peak"
KINDS = (".md", ".html")


def run(files: Sequence[Path], *, task: str = "", metric: str = "", out: Sequence[Path] = ()) -> Board:
    """The board; a page is written to each of `out`. Lines that are no rows are refused."""
    if odd := next((path for path in out if path.suffix not in KINDS), None):
        raise ConfigError(f"--out {odd} is no page", hint=f"name it {' or '.join(KINDS)}")
    found = board(read(files, strict=True)[0], task, metric)
    for path in out:
        write_text(path, _html(found) if path.suffix == ".html" else markdown(found))
    return found


def cells(entry: Entry) -> list[str]:
    """A line as text, in the order of HEAD."""
    interval = "-" if entry.low is None or entry.high is None else f"{entry.low:.3f} to {entry.high:.3f}"
    return [
        entry.model + (" (baseline)" if entry.baseline else ""), f"{entry.score:.3f}", interval, str(entry.n),
        "-" if entry.tok_s is None else f"{entry.tok_s:.1f}",
        "-" if entry.memory_gb is None else f"{entry.memory_gb:.2f}",
        "-" if entry.composite is None else f"{entry.composite:.3f}",
    ]  # fmt: skip


def title(found: Board) -> str:
    """What it ranks."""
    return f"Leaderboard: {found.task}, {found.metric} (data {found.data_version or 'of unknown version'})"


def markdown(found: Board) -> str:
    """As a Markdown page."""
    lines = [HEAD, ["---"] * len(HEAD), *(map(_cell, cells(entry)) for entry in found.entries)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"# {title(found)}\n\n{table}\n\n{WORDS}.\n"


def _cell(text: str) -> str:
    """A name is one cell of one line, whatever a server calls its model."""
    return " ".join(text.split()).replace("|", "\\|")


def _html(found: Board) -> str:
    def row(values: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(value)}</{tag}>" for value in values) + "</tr>"

    name = html.escape(title(found))
    body = "\n".join([row(HEAD, "th"), *(row(cells(entry), "td") for entry in found.entries)])
    return (
        f"<!doctype html><meta charset=utf-8><title>{name}</title><style>{STYLE}</style>"
        f"<h1>{name}</h1>\n<table>\n{body}\n</table>\n<p>{html.escape(WORDS)}.</p>\n"
    )
