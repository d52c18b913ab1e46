"""Predict: answer every row of a file, in this process or by a server, and go on where it was left."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tinygpt.core import lock
from tinygpt.core.errors import DataError, LockedError, RemoteError
from tinygpt.core.events import Events, Progress
from tinygpt.data import table
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.lane import Limits
from tinygpt.runs import _constrained, _drafters, _pieces, _prompt_cache
from tinygpt.runs._answerers import Ask, Local, Remote, Told
from tinygpt.runs._asking import SHAPES, Config, Count, asks, fields
from tinygpt.runs._engine import open_engine
from tinygpt.runs._openai import Client
from tinygpt.runs._predictions import Predictions, sha

GIVE_UP = 10  # rows in turn that a server does not answer
AGAIN = "give the same command again: what is answered is kept"


def run(config: Config, events: Events) -> dict[str, Any]:
    """Answer the rows that have no answer yet. DataError where no row can be; RemoteError where a server left
    rows without one: they are tried again when the same command is given again."""
    total = sum(1 for _ in table.records(config.data))
    answerer, settings = _answerer(config, events)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    with lock.only_one(config.out.parent / f".{config.out.name}.tinygpt.lock", lambda: _busy(config.out)):
        out, count = Predictions(config.out, config.out_field, settings), Count()
        try:
            if out.n_repaired:
                events.note(f"{config.out}: a half-written last line was removed")
            missed = 0
            for ask, told in answerer.answers(asks(config, out, count), ordered=not config.unordered):
                missed = missed + 1 if told.again else 0
                if told.error:
                    (count.failed if told.again else count.bad).append((ask.number, told.error))
                else:
                    out.write(ask.row, told.text, _meta(ask, told))
                    count.written += 1
                if missed >= GIVE_UP:
                    raise RemoteError(f"{missed} rows in turn have no answer: {told.error}", hint=AGAIN)
                done = count.kept + count.written + len(count.bad) + len(count.failed)
                events.emit(Progress(task="generate", done=done, total=total * config.n, unit="answers"))
        finally:
            out.close()
    if isinstance(answerer, Local):
        _drafters.tell(answerer.engine, events)
    return _result(config, count, events)


def _result(config: Config, count: Count, events: Events) -> dict[str, Any]:
    for what, found in (("cannot be answered", count.bad), ("have no answer", count.failed)):
        if found:
            first = "; ".join(f"{table.unit(config.data)} {n}: {why}" for n, why in found[:3])
            events.note(f"{config.data}: {len(found)} of {count.rows} rows {what}: {first}", level="warning")
    if count.failed:
        raise RemoteError(f"{len(count.failed)} answers are missing: {count.failed[0][1]}", hint=AGAIN)
    if not count.written + count.kept:
        why = f": {count.bad[0][1]}" if count.bad else ""
        raise DataError(f"no row of {config.data} could be answered{why}", hint=f"known shapes: {SHAPES}")
    return {
        "out": str(config.out), "rows": count.rows, "written": count.written, "kept": count.kept,
        "skipped": len(count.bad), "first_skipped": [list(one) for one in count.bad[:3]],
    }  # fmt: skip


def _answerer(config: Config, events: Events) -> tuple[Local | Remote, str]:
    """Who answers, and a hash of what the answers depend on."""
    names = [f.name for f in dataclasses.fields(SampleConfig)]
    told: dict[str, Any] = {name: getattr(config, name) for name in (*names, "map", "chat", "system")}
    if config.url:
        client = Client(config.url, seconds=config.seconds, tries=config.tries)
        model = str(config.model) if str(config.model) != "." else client.model()
        return Remote(client, fields(config, model), config.batch), sha([told, client.url, model])
    engine = open_engine(config.model, config, events, config.packing)
    engine.drafter = _drafters.Drafters(config, config.model, events)(engine)
    lane = config.lane(engine, config.model, config, events, Limits(rows=config.batch))
    own = [_pieces.checkpoint.identity(_pieces.model_path(config.model))]
    own += [_prompt_cache.content(_pieces.model_path(path)) for path in config.adapter]
    own += [str(config.packing)] if config.packing else []
    if config.draft_model is not None and not config.greedy:  # other draws of the same law
        draft = _pieces.checkpoint.identity(_pieces.model_path(config.draft_model))
        own += [draft, str(config.draft_tokens)]
    ends = config.stop_ids(engine)
    return (
        Local(lane, config, ends, config.batch, _constrained.maker(config, engine.tokenizer, ends)),
        sha([told, own, config.adapter_weight, sorted(ends), config.format]),
    )


def _meta(ask: Ask, told: Told) -> dict[str, Any]:
    found = {
        "row": ask.number, "sample": ask.sample, "sha": ask.sha, "seed": ask.seed,
        "finish_reason": told.finish_reason, "tokens": told.tokens, "prompt_tokens": told.prompt_tokens,
    }  # fmt: skip
    return found | ({"message": told.message} if told.message is not None else {})


def _busy(out: Path) -> None:
    raise LockedError(f"another process is writing {out}", hint="wait for it, or name another file")
