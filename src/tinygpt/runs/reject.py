"""Rejection sampling: several answers to each piece of work, of which those that are right become rows.

Source: Yuan et al. 2023, arXiv:2308.01825 (rejection sampling fine-tuning: distinct right answers are kept).
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.config import to_dict
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events, Progress
from tinygpt.data import card, rows
from tinygpt.eval.endpoint import Reply, Sampling
from tinygpt.runs import _accept, _data_out
from tinygpt.runs._accept import Work, Works
from tinygpt.runs._asked import Answering

CHUNK = 128  # pieces of work whose answers are drawn together


@dataclass(frozen=True, kw_only=True)
class Config(Works, Answering):
    """Settings of rejection sampling."""

    out: Annotated[Path, "JSONL file for the rows, which sft reads; its card lies beside it."]
    samples: Annotated[int, "Answers drawn for each piece of work."] = 4
    keep: Annotated[int, "Right answers of one piece of work that are kept, all different."] = 1
    temperature: Annotated[float, "How freely answers are drawn."] = 1.0
    top_p: Annotated[float, "Draw among the likeliest tokens whose probability reaches p; 1: all."] = 1.0
    max_tokens: Annotated[int, "Longest answer in tokens."] = 256
    seed: Annotated[int, "Seed of the answers."] = 0

    def __post_init__(self) -> None:
        Works.__post_init__(self)
        Answering.__post_init__(self)
        if self.samples < 1 or self.keep < 1 or self.max_tokens < 1:
            raise ConfigError("--samples, --keep and --max-tokens must be at least 1")
        if self.keep > self.samples:
            raise ConfigError(f"--keep {self.keep} of {self.samples} answers", hint="raise --samples")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ConfigError("--temperature must not be negative, --top-p above 0 and at most 1")
        if self.temperature == 0 and self.samples > 1:
            raise ConfigError("--temperature 0 gives the same answer each time", hint="raise it")
        _data_out.check(self.out, force=True, read=self.data)


@dataclass
class Tally:
    """What became of the works of a kind."""

    n: int = 0
    n_answers: int = 0
    n_right: int = 0
    n_solved: int = 0

    def told(self) -> dict[str, Any]:
        """Counts, and the two rates: of answers, and of works with a right one."""
        rate, solved = self.n_right / max(1, self.n_answers), self.n_solved / max(1, self.n)
        return {**vars(self), "rate": round(rate, 4), "solved": round(solved, 4)}


def run(config: Config, events: Events) -> dict[str, Any]:
    """Ask, keep what is right in --out, and tell the rates by kind of work. DataError where nothing is."""
    bad: list[str] = []
    works = list(config.works(bad))
    for sentence in bad:
        events.note(sentence, "warning")
    endpoint = config.endpoint(events)
    found: list[dict[str, Any]] = []
    tallies = {group: Tally() for group in _accept.groups(works)}
    why: Counter[str] = Counter()
    for begin in range(0, len(works), CHUNK):
        part = works[begin : begin + CHUNK]
        sampling = Sampling(
            temperature=config.temperature, top_p=config.top_p, seed=config.seed + begin * config.samples
        )
        replies = endpoint.complete(
            [work.messages for work in part for _ in range(config.samples)],
            max_tokens=config.max_tokens, sampling=sampling,
        )  # fmt: skip
        for i, work in enumerate(part):
            mine = replies[i * config.samples : (i + 1) * config.samples]
            found += _right(work, mine, config.keep, tallies[work.group], why)
        events.emit(Progress(task="reject", done=begin + len(part), total=len(works), unit="works"))
    total = Tally(*(sum(getattr(t, name) for t in tallies.values()) for name in vars(Tally())))
    if not found:
        raise DataError(
            f"none of {total.n_answers} answers is right: {', '.join(w for w, _ in why.most_common(2))}",
            hint="draw more (--samples), ask a better model, or look at what is asked",
        )
    rows.write(config.out, found)
    asked = {k: v for k, v in to_dict(config).items() if k not in ("out", "batch", "seconds", "tries")}
    stage = card.Stage(
        name="reject", n_in=total.n, n_out=len(found), dropped={"no right answer": total.n - total.n_solved},
        notes={"answers": total.n_answers, "right": total.n_right},
    )  # fmt: skip
    sources = tuple(card.of_file(path) for path in config.data)
    sources += (card.Source(name=f"{config.world} tasks", n_rows=total.n),) if config.world else ()
    sources += (card.Source(name=endpoint.name, revision=endpoint.model_hash or ""),)
    made = card.Card(made_by="tinygpt reject", settings=asked, sources=sources, stages=(stage,))
    return {
        "out": str(config.out), "card": str(card.write(config.out, made)), "rows": len(found),
        **total.told(), "groups": {group: tally.told() for group, tally in tallies.items()},
        "why": dict(why.most_common(10)),
    }  # fmt: skip


def _right(
    work: Work, replies: list[Reply], keep: int, tally: Tally, why: Counter[str]
) -> list[dict[str, Any]]:
    """Rows of the first right answers that differ; the others are counted."""
    kept: dict[str, dict[str, Any]] = {}
    tally.n += 1
    for reply in replies:
        tally.n_answers += 1
        broken = reply.error or ("cut off at --max-tokens" if reply.finish_reason == "length" else "")
        if reason := broken or work.accept(reply):
            why[reason.partition(":")[0]] += 1
            continue
        tally.n_right += 1
        kept.setdefault(json.dumps(reply.message, sort_keys=True), reply.message)
    tally.n_solved += bool(kept)
    return [_accept.kept(work, message) for message in list(kept.values())[:keep]]
