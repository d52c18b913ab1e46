"""Traces of requests as text and as a page."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any

SHADES = " .:-=+*#%@"  # of a token in text, from the fastest to the slowest
PARTS = ("model_ms", "constraint_ms", "decode_ms")


def bar(trace: dict[str, Any], answer: int) -> str:
    """A letter for each token of an answer after its first: the darker, the slower beside the slowest."""
    times = [t["ms"] for t in trace["tokens"] if t["answer"] == answer and t["index"]]
    most = max(times, default=0.0) or 1.0
    return "".join(SHADES[min(len(SHADES) - 1, int(ms / most * len(SHADES)))] for ms in times)


def answers(trace: dict[str, Any]) -> list[int]:
    """The numbers of a request's answers."""
    return sorted({t["answer"] for t in trace["tokens"]})


def page(traces: Sequence[dict[str, Any]], figures: dict[str, Any]) -> str:
    """A page that shows each request's spans on a line, and its tokens as squares; it loads nothing."""
    parts = [_request(trace) for trace in traces]
    style = (
        "body{font:14px system-ui;margin:2em;max-width:70em}"
        ".b{position:relative;height:1.4em;background:#eee}"
        ".b i{position:absolute;height:100%;font-size:11px;overflow:hidden;white-space:nowrap}"
        ".t b{display:inline-block;width:11px;height:11px;margin:1px}h2{font-size:1em;margin:1.5em 0 .3em}"
    )
    said = html.escape(json.dumps(figures, indent=2))
    return (
        f"<!doctype html><meta charset=utf-8><title>Requests</title><style>{style}</style>"
        f"<h1>{len(traces)} requests</h1><details><summary>Figures</summary><pre>{said}</pre></details>"
        + "".join(parts)
    )


def _request(trace: dict[str, Any]) -> str:
    total = float(trace["total_ms"]) or 1.0
    what = f"{trace['route']} · {trace.get('model') or '-'}"
    title = f"{what} · {total:.1f} ms · {trace['request_id']}"
    bars = "".join(_span(span, i, total) for i, span in enumerate(trace["spans"]))
    rows = "".join(f"<div class=t>{_squares(trace, answer)}</div>" for answer in answers(trace))
    return f"<h2>{html.escape(title)}</h2><div class=b>{bars}</div>{rows}"


def _span(span: dict[str, Any], i: int, total: float) -> str:
    left, width = (100 * float(span.get(key) or 0) / total for key in ("start_ms", "ms"))
    name = html.escape(f"{span['name']} {float(span.get('ms') or 0):.1f} ms", quote=True)
    style = f"left:{left:.2f}%;width:{width:.2f}%;background:hsl({(i * 67) % 360},60%,75%)"
    return f'<i title="{name}" style="{style}">{name}</i>'


def _squares(trace: dict[str, Any], answer: int) -> str:
    tokens = [t for t in trace["tokens"] if t["answer"] == answer]
    most = max((t["ms"] for t in tokens if t["index"]), default=0.0) or 1.0
    found: list[str] = []
    for t in tokens:
        light = 92 - 55 * min(1.0, t["ms"] / most)
        said = ", ".join(f"{p.removesuffix('_ms')} {float(t.get(p) or 0):.2f}" for p in PARTS)
        found.append(f'<b title="{t["index"]}: {said} ms" style="background:hsl(15,80%,{light:.0f}%)"></b>')
    return "".join(found)
