"""Where the time of served requests went, from the files that `serve --trace-times` leaves."""

from __future__ import annotations

import glob
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core import files
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.runs._heatmap_page import PARTS, page


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of `infer-heatmap`."""

    traces: Annotated[tuple[str, ...], "Trace files, folders of them, or patterns like 'traces/*.json'."]
    summary: Annotated[bool, "Only figures over all requests."] = False
    html: Annotated[Path | None, "Write a page into this file."] = None

    def __post_init__(self) -> None:
        if not self.traces:
            raise ConfigError(
                "no trace was given", hint="a folder that `tinygpt serve --trace-times` wrote into"
            )


def run(config: Config) -> dict[str, Any]:
    """{requests: [...], summary: {...}}; the page is written where one is wanted."""
    found = [read(path) for path in paths(config.traces)]
    figures = summary(found)
    if config.html is not None:
        files.write_text(config.html, page(found, figures))
    return {"summary": figures, "requests": [] if config.summary else found}


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
                f"there is no trace at {text}", hint="`tinygpt serve --trace-times FOLDER` writes them"
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
            f"{path} is no trace of a request: {error!r}", hint="see --trace-times of serve"
        ) from error
    return {**data, "tokens": tokens, "file": str(path)}


def summary(traces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures over all requests; times in ms. first_token_ms: from a request's arrival to the first token of
    each answer; first_token_work_ms: what the token's own parts say, without what came before its answer was
    queued."""
    first = [
        float(s["start_ms"]) + float(s["ms"])
        for one in traces
        for s in one["spans"]
        if s["name"] == "prefill"
    ]
    work = [t["ms"] for one in traces for t in one["tokens"] if t["index"] == 0]
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
        "first_token_work_ms": _spread(work),
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
