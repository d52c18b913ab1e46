"""Suites as runs use them: their settings in the words of the command line, and the call that measures."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tinygpt.core.config import fields, from_dict
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.core.family import Family
from tinygpt.core.rows import EvalRow
from tinygpt.eval.playback import Playback
from tinygpt.runs._asked import NOWHERE, Asked
from tinygpt.runs._pieces import model_path

SUITES = Family("tinygpt.eval.suites", verb="score")


def settings(suite: str, options: Mapping[str, Any], *, where: str = "options", limit: int = 0) -> Any:
    """The Config of a suite; what is wrong with it is said in the words of the command line. `limit`: how
    many examples, where the options do not say it and the suite has such a setting."""
    cls = SUITES.load(suite).Config
    counted = next((f.name for f in fields(cls) if f.name in ("n", "limit")), None)
    most = {counted: limit} if limit and counted else {}
    try:
        return from_dict(cls, {**most, **options}, f"{where}.{suite}")
    except ConfigError as error:
        how = f"set it with --set {where}.{suite}.KEY=VALUE"
        raise ConfigError(error.message, hint="; ".join(filter(None, (error.hint, how)))) from error


def measure(
    endpoint: Any, suite: str, settings: Any, events: Events
) -> tuple[list[EvalRow], list[dict[str, Any]]]:
    """One suite on one endpoint: its rows, and a record of each example, with one run_id. A suite whose
    settings name a judge or a reranker has it opened, before anything is asked."""
    module = SUITES.load(suite)
    examples = module.load(settings, **_reranker(endpoint, settings))
    judge = _judge(settings, events)
    if isinstance(endpoint, Playback):
        endpoint.answers = [module.predicted(item) for item in examples.items]
    for note in examples.notes:
        events.note(note, level="warning")
    result = module.score(endpoint, examples, settings, **judge)
    run_id = str(uuid.uuid4())
    told = {"run_id": run_id, "suite": suite, "model": endpoint.name}
    return [replace(row, run_id=run_id) for row in result.rows], [{**told, **e} for e in result.examples]


def _reranker(endpoint: Any, settings: Any) -> dict[str, Any]:
    """What orders rows of a file, as a suite takes it. ConfigError where a model is asked for an order."""
    path = getattr(settings, "reranker", None)
    if path is None:
        return {}
    if not isinstance(endpoint, Playback):
        raise ConfigError(
            "--reranker orders rows of --predictions", hint="leave out the model, or --reranker"
        )
    from tinygpt.router.rerank import Reranker

    return {"reranker": Reranker.open(model_path(path)).scores}


def _judge(settings: Any, events: Events) -> dict[str, Any]:
    """The judge that settings name, as a suite takes it."""
    model, url = getattr(settings, "judge", None), getattr(settings, "judge_url", "")
    return {"judge": Asked(model=model or NOWHERE, url=url).open(events)} if model or url else {}
