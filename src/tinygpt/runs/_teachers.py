"""Who labels rows: a model in this process, or a server that speaks as OpenAI's or Anthropic's does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.lane import Limits
from tinygpt.runs import _anthropic, _constrained, _pieces, _prompt_cache
from tinygpt.runs._answerers import Ask, Local, Remote, Told
from tinygpt.runs._engine import lane_of, open_engine
from tinygpt.runs._openai import Client, keyed
from tinygpt.runs._pace import Pace
from tinygpt.runs._synthesize import Config, wishes


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """name: as rows say it. where: the server's host, or "local". identity: what else decides its answers.
    again: whether another try can give another answer. unheard: whether a server did not want to be told
    what an answer must be."""

    name: str
    where: str
    identity: str
    answers: Callable[[Iterator[Ask]], Iterator[tuple[Ask, Told]]]
    again: bool
    unheard: Callable[[], bool]


def open_teacher(config: Config, events: Events) -> Teacher:
    """The teacher of these settings. RemoteError where a server has to name its model and does not."""
    return _remote(config) if config.remote else _local(config, events)


def _remote(config: Config) -> Teacher:
    key = os.environ.get(config.key_name, "")
    if config.api_key_env and not key:
        raise ConfigError(f"--api-key-env: {config.api_key_env} is not set", hint="export it first")
    anthropic = config.speaks == "anthropic"
    client = Client(
        config.teacher, seconds=config.timeout, tries=config.retries + 1, first=config.backoff,
        seed=config.seed, headers=_anthropic.keyed(key) if anthropic else keyed(key),
        pace=Pace(config.rate_limit),
    )  # fmt: skip
    model = config.teacher_model or client.model()
    body: dict[str, Any] = {
        "model": model, "max_tokens": config.max_tokens, "temperature": config.temperature, **config.fields,
    }  # fmt: skip
    body = {name: value for name, value in body.items() if value is not None}
    if anthropic:
        format = config.format
        schema = format[1] if format and format[0] == "schema" and config.enforce == "auto" else None
        if config.enforce not in ("auto", "none"):
            raise ConfigError(f"--enforce {config.enforce}: Anthropic's API has no such field", hint="auto")
        told = _anthropic.under(schema) if schema and schema.get("type") == "object" else {}
        found: Remote = _anthropic.Anthropic(client, body, config.parallel, told)
    else:
        found = Remote(client, body, config.parallel, wishes(config.format, config.enforce))
    return Teacher(
        name=model, where=config.host, identity=f"{config.speaks} {client.url} {model}",
        answers=lambda asks: found.answers(asks, ordered=False), again=True, unheard=lambda: found.unheard,
    )  # fmt: skip


def _local(config: Config, events: Events) -> Teacher:
    from pathlib import Path

    path = Path(config.teacher)
    engine = open_engine(path, config, events)
    if engine.template is not None and engine.template.note:
        events.note(engine.template.note)
    how = SampleConfig(temperature=config.temperature, max_tokens=config.max_tokens, seed=config.seed)
    lane = lane_of(engine, Limits(rows=config.parallel))
    ends = engine.stop_ids
    found = Local(lane, how, ends, config.parallel, _constrained.maker(config, engine.tokenizer, ends))
    own = [_pieces.checkpoint.identity(_pieces.model_path(path))]
    own += [_prompt_cache.content(_pieces.model_path(one)) for one in config.adapter]
    own += [f"{weight:g}" for weight in config.adapter_weight]
    return Teacher(
        name="+".join(one.resolve().name for one in (path, *config.adapter)), where="local",
        identity=" ".join(map(str, own)), answers=lambda asks: found.answers(asks, ordered=False),
        again=not how.greedy, unheard=lambda: False,
    )  # fmt: skip
