"""A comparison as a page: Markdown, HTML with a plot, or JSON."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.errors import ConfigError
from tinygpt.core.files import write_json, write_text

KINDS = (".html", ".md", ".json")
Table = tuple[str, list[str], list[list[str]]]
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:right}"
    "td:first-child,th:first-child{text-align:left}pre{background:#f6f6f6;padding:.6em;white-space:pre-wrap}"
)


def check(path: Path) -> None:
    """Refuse a name that says no kind of page, or a directory."""
    if path.suffix not in KINDS:
        raise ConfigError(f"--out {path} ends in none of {', '.join(KINDS)}", hint="for example report.html")
    if path.is_dir():
        raise ConfigError(f"--out: {path} is a directory", hint="name a file")


def write(path: Path, found: Mapping[str, Any]) -> None:
    """The page, whole or not at all."""
    if path.suffix == ".json":
        write_json(path, found)
    else:
        write_text(path, _html(found) if path.suffix == ".html" else _markdown(found))


def tables(found: Mapping[str, Any]) -> list[Table]:
    """(title, headings, cells as text) of what was measured; a difference has its 95 % interval."""
    result: list[Table] = []
    models = found["models"]
    if "loss" in models[0]:
        head = ["model", "loss", "perplexity", "bits per byte", "loss minus base's [95 %]"]
        lines = [
            [m["name"], f"{m['loss']:.4f}", f"{m['perplexity']:.4g}", f"{m['bits_per_byte']:.4f}",
             _gap(m.get("difference"))]
            for m in models
        ]  # fmt: skip
        counts = found["corpus"]
        result.append((f"{counts['windows']} windows, {counts['tokens']:,} tokens", head, lines))
    if found["matrix"]:
        head = ["condition", "answer loss", "", "exact", "", "F1", ""]
        lines = [
            [m["condition"], *(
                text for key in ("answer_loss", "exact", "f1")
                for text in (f"{m[key]:.4f}", _gap(m.get(f"{key}_difference")))
            )]
            for m in found["matrix"]
        ]  # fmt: skip
        first = found["matrix"][0]
        left = f", {first['left_out']} more do not fit the context" if first["left_out"] else ""
        result.append((f"{first['rows']} questions{left}", head, lines))
    if "memorised" in models[0]:
        head = ["model", "rows", "word for word", "share", "tokens until the first other"]
        lines = [
            [m["name"], str(k["rows"]), str(k["verbatim"]), f"{k['share']:.1%}", f"{k['matched']:.1%}"]
            for m in models
            for k in (m["memorised"],)
        ]
        short = models[0]["memorised"]["short"]
        result.append((f"known by heart{f' ({short} rows are too short)' if short else ''}", head, lines))
    return result


def _gap(gap: Mapping[str, Any] | None) -> str:
    if gap is None:
        return ""
    return f"{gap['value']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]{'' if gap['clear'] else ' ?'}"


def _markdown(found: Mapping[str, Any]) -> str:
    parts = [f"# {found['base']} and adapters on it", ""]
    for title, head, lines in tables(found):
        rows = [head, ["---"] * len(head), *lines]
        cells = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
        parts += [f"## {title}", "", *(f"| {row} |" for row in cells), ""]
    parts += ["`?`: the interval holds 0, so this could be chance.", ""]
    for sample in found["samples"]:
        parts += [f"## {json.dumps(sample['prompt'], ensure_ascii=False)}", ""]
        for name, text in _answers(sample):
            fence = "`" * max(3, 1 + max((len(run) for run in _runs(text)), default=0))
            parts += [f"**{name}**", "", fence, text, fence, ""]
    return "\n".join(parts)


def _runs(text: str) -> list[str]:
    """The runs of backticks in a text: a fence around it must be longer."""
    import re

    return re.findall("`+", text)


def _html(found: Mapping[str, Any]) -> str:
    title = html.escape(f"{found['base']} and adapters on it")
    parts = [
        f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
    ]
    for heading, head, lines in tables(found):
        body = "".join(f"<tr>{_cells(line, 'td')}</tr>" for line in lines)
        parts.append(f"<h2>{html.escape(heading)}</h2><table><tr>{_cells(head, 'th')}</tr>{body}</table>")
    bars = [(m["name"], m["difference"]) for m in found["models"] if "difference" in m]
    bars = bars or [
        (m["condition"], m["answer_loss_difference"])
        for m in found["matrix"]
        if "answer_loss_difference" in m
    ]
    parts.append(plot(bars) if bars else "")
    for sample in found["samples"]:
        parts.append(f"<h2>{html.escape(sample['prompt'])}</h2>")
        parts += [f"<h3>{html.escape(n)}</h3><pre>{html.escape(text)}</pre>" for n, text in _answers(sample)]
    return "\n".join(filter(None, parts)) + "\n"


def _answers(sample: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, text) for name, text in sample.items() if name != "prompt"]


def _cells(values: Sequence[str], tag: str) -> str:
    return "".join(f"<{tag}>{html.escape(value)}</{tag}>" for value in values)


def plot(bars: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """Differences of the loss to the base's with their intervals, as SVG: left of the line is better."""
    low = min(0.0, *(gap["low"] for _, gap in bars))
    high = max(0.0, *(gap["high"] for _, gap in bars))
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return round(220 + 460 * (value - low) / span, 1)

    height = 30 * len(bars) + 30
    parts = [
        f'<svg role="img" viewBox="0 0 720 {height}" width="720" height="{height}" '
        'xmlns="http://www.w3.org/2000/svg"><title>loss minus the base\'s, with 95 % intervals</title>',
        f'<line x1="{x(0)}" x2="{x(0)}" y1="5" y2="{height - 20}" stroke="#999"/>',
        f'<text x="{x(0)}" y="{height - 5}" font-size="12" text-anchor="middle">0 = base</text>',
    ]
    for i, (name, gap) in enumerate(bars):
        y = 20 + 30 * i
        color = "#2a7" if gap["high"] < 0 else "#c43" if gap["low"] > 0 else "#777"
        parts += [
            f'<text x="210" y="{y + 4}" font-size="13" text-anchor="end">{html.escape(name)}</text>',
            f'<line x1="{x(gap["low"])}" x2="{x(gap["high"])}" y1="{y}" y2="{y}" stroke="{color}" '
            'stroke-width="3"/>',
            f'<circle cx="{x(gap["value"])}" cy="{y}" r="5" fill="{color}"/>',
        ]
    return "".join(parts) + "</svg>"
