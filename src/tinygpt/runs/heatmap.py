"""Where the time of served requests went, from the files that `serve --trace-dir` leaves."""

from __future__ import annotations

import glob
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core import files
from tinygpt.core.errors import ConfigError, DataError

SHADES = " .:-=+*#%@"  # of a token in text, from the fastest to the slowest
PARTS = ("model_ms", "constraint_ms", "decode_ms")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of `infer-heatmap`."""

    traces: Annotated[tuple[str, ...], "Trace files, folders of them, or patterns like 'traces/*.json'."]
    summary: Annotated[bool, "Only figures over all requests."] = False
    html: Annotated[Path | None, "Write a page into this file."] = None

    def __post_init__(self) -> None:
        if not self.traces:
            raise ConfigError(
                "no trace was given", hint="a folder that `tinygpt serve --trace-dir` wrote into"
            )


def run(config: Config) -> dict[str, Any]:
    """{requests: [...], summary: {...}}; the page is written where one is wanted."""
    found = [read(path) for path in paths(config.traces)]
    result = {"summary": summary(found), "requests": [] if config.summary else found}
    if config.html is not None:
        files.write_text(config.html, page(found))
    return result


def paths(given: Sequence[str]) -> list[Path]:
    """The files that are meant, each once, by name; DataError where one is not there."""
    named: dict[Path, None] = {}
    for text in given:
        path = Path(text)
        if path.is_dir():
            some = sorted(path.glob("*.json"))
        else:
            some = [path] if path.is_file() else sorted(map(Path, glob.glob(text, recursive=True)))
        if not some:
            raise DataError(
                f"there is no trace at {text}", hint="`tinygpt serve --trace-dir FOLDER` writes them"
            )
        named |= dict.fromkeys(some)
    return list(named)


def read(path: Path) -> dict[str, Any]:
    """One trace; DataError where it is none. Files of the original, whose tokens name no answer, are read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        tokens = [{"answer": 0, **token} for token in data["tokens"]]
        for token in tokens:
            token["ms"] = sum(float(token.get(part) or 0.0) for part in PARTS)
        _ = float(data["total_ms"]), data["request_id"], data["route"], list(data["spans"])
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is no trace of a request: {error!r}", hint="see --trace-dir of serve"
        ) from error
    return {**data, "tokens": tokens, "file": str(path)}


def summary(traces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures over all requests; times in ms."""
    first = [t["ms"] for one in traces for t in one["tokens"] if t["index"] == 0]
    later = [t["ms"] for one in traces for t in one["tokens"] if t["index"]]
    tokens = [t for one in traces for t in one["tokens"]]
    spans: dict[str, float] = {}
    for span in (span for one in traces for span in one["spans"]):
        spans[span["name"]] = spans.get(span["name"], 0.0) + float(span.get("ms") or 0.0)
    whole = sum(t["ms"] for t in tokens) or 1.0
    hits = sum(bool((one.get("cache") or {}).get("hit")) for one in traces)
    return {
        "requests": len(traces),
        "prompt_tokens": sum(int(one.get("prompt_tokens") or 0) for one in traces),
        "generated_tokens": sum(int(one.get("generated_tokens") or 0) for one in traces),
        "cache_hits": hits,
        "total_ms": _spread([float(one["total_ms"]) for one in traces]),
        "first_token_ms": _spread(first),
        "token_ms": _spread(later),
        "share": {p.removesuffix("_ms"): sum(float(t.get(p) or 0) for t in tokens) / whole for p in PARTS},
        "span_ms": {name: round(ms, 3) for name, ms in spans.items()},
    }  # fmt: skip


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    """Quantiles by the nearest rank."""
    if not values:
        return None
    ordered = sorted(values)
    return {f"p{q}": ordered[max(0, -(-q * len(ordered) // 100) - 1)] for q in (50, 90, 99, 100)}


def bar(trace: dict[str, Any], answer: int) -> str:
    """A letter for each token of an answer after its first: the darker, the slower beside the slowest."""
    times = [t["ms"] for t in trace["tokens"] if t["answer"] == answer and t["index"]]
    most = max(times, default=0.0) or 1.0
    return "".join(SHADES[min(len(SHADES) - 1, int(ms / most * len(SHADES)))] for ms in times)


def answers(trace: dict[str, Any]) -> list[int]:
    """The numbers of a request's answers."""
    return sorted({t["answer"] for t in trace["tokens"]})


def page(traces: Sequence[dict[str, Any]]) -> str:
    """A page that shows each request's spans on a line, and its tokens as squares; it loads nothing."""
    parts = [_request(trace) for trace in traces]
    style = (
        "body{font:14px system-ui;margin:2em;max-width:70em}.b{position:relative;height:1.4em;background:#eee}"
        ".b i{position:absolute;height:100%;font-size:11px;overflow:hidden;white-space:nowrap}"
        ".t b{display:inline-block;width:11px;height:11px;margin:1px}h2{font-size:1em;margin:1.5em 0 .3em}"
    )
    figures = html.escape(json.dumps(summary(traces), indent=2))
    return (
        f"<!doctype html><meta charset=utf-8><title>Requests</title><style>{style}</style>"
        f"<h1>{len(traces)} requests</h1><details><summary>Figures</summary><pre>{figures}</pre></details>"
        + "".join(parts)
    )


def _request(trace: dict[str, Any]) -> str:
    total = float(trace["total_ms"]) or 1.0
    title = f"{trace['route']} · {trace.get('model') or '-'} · {total:.1f} ms · {trace['request_id']}"
    bars = "".join(_span(span, i, total) for i, span in enumerate(trace["spans"]))
    rows = "".join(f"<div class=t>{_squares(trace, answer)}</div>" for answer in answers(trace))
    return f"<h2>{html.escape(title)}</h2><div class=b>{bars}</div>{rows}"


def _span(span: dict[str, Any], i: int, total: float) -> str:
    left, width = 100 * float(span.get("start_ms") or 0) / total, 100 * float(span.get("ms") or 0) / total
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
