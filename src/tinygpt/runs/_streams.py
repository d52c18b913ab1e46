"""What streams of tokens took: their times, put together as people compare them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinygpt.core.events import Events, Progress

RANKS = (50, 90, 99)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One answer, times in seconds on one clock. times: when its tokens came; `tokens` are more where several
    come at once, as a server sends them."""

    began: float
    times: list[float]
    tokens: int
    prompt_tokens: int


def measured(runs: Sequence[Sequence[Stream]]) -> dict[str, float]:
    """Figures of runs of streams that went on together. ttft_ms: to the first token; itl_ms: between two;
    each with its percentiles over all streams. prefill_tok_s: prompts, until the last stream had its first
    token; decode_tok_s: tokens after that; tok_s: all tokens over all the time."""
    import numpy as np

    streams = [stream for run in runs for stream in run if stream.times]
    firsts = [1000 * (stream.times[0] - stream.began) for stream in streams]
    gaps = [1000 * gap for stream in streams for gap in np.diff(stream.times)]
    found = {
        f"{name}_ms_p{rank}": float(np.percentile(values, rank))
        for name, values in (("ttft", firsts), ("itl", gaps))
        for rank in RANKS
        if values
    }
    each = [one_run(run) for run in runs if any(stream.times for stream in run)]
    return found | {
        name: float(np.median([r[name] for r in each if name in r]))
        for name in ("prefill_tok_s", "decode_tok_s", "tok_s")
        if any(name in r for r in each)
    }


def one_run(run: Sequence[Stream]) -> dict[str, float]:
    """The rates of one run."""
    run = [stream for stream in run if stream.times]
    began, ended = _span(run)
    last_first = max(s.times[0] for s in run)
    found = {
        "prefill_tok_s": sum(s.prompt_tokens for s in run) / (last_first - began),
        "tok_s": together(run),
    }
    per_time = [s.tokens / len(s.times) for s in run]
    after = sum(n * sum(t > last_first for t in s.times) for n, s in zip(per_time, run, strict=True))
    return found | ({"decode_tok_s": after / (ended - last_first)} if after else {})


def together(streams: Sequence[Stream]) -> float:
    """Tokens of all streams a second, from the first one's beginning to the last one's end."""
    heard = [stream for stream in streams if stream.times]
    began, ended = _span(heard)
    return sum(s.tokens for s in heard) / (ended - began)


def _span(streams: Sequence[Stream]) -> tuple[float, float]:
    return min(s.began for s in streams), max(s.times[-1] for s in streams)


def listed(runs: Sequence[Sequence[Stream]]) -> list[dict[str, Any]]:
    """Each run by itself."""
    return [
        {"streams": len(run), "tokens": sum(s.tokens for s in run), **one_run(run)}
        for run in runs
        if any(stream.times for stream in run)
    ]


class Told:
    """Progress over runs of all settings."""

    def __init__(self, events: Events, each: int, *settings: tuple[int, ...]) -> None:
        self.events, self.done, self.total = events, 0, each
        for one in settings:
            self.total *= len(one)

    def one_more(self) -> None:
        self.done += 1
        self.events.emit(Progress(task="runs", done=self.done, total=self.total, unit="runs"))
