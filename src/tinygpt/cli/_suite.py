"""A command for one suite: the options of every suite command, and the suite's own settings as flags."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any

from tinygpt.cli._options import from_config
from tinygpt.cli._render import Output
from tinygpt.cli._rows import show
from tinygpt.core.config import changed, flag
from tinygpt.core.errors import ConfigError
from tinygpt.runs.evaluate import SUITES, Asked, AskedOrGiven, refuse_errors, run_suites

ALSO = {"adapter": "lora", "adapter_weight": "lora_weight", "url": "endpoint"}


def command(suite: str, *, also: Mapping[str, str] | None = None, **more: Any) -> Callable[..., Any]:
    """The command of a suite; `also` and `more` as in `from_config`. A suite that finds answers in its rows
    (its `predicted`) takes them from a file, too."""
    own: Any = SUITES.config(suite)
    given = hasattr(SUITES.load(suite), "predicted")
    who: Any = AskedOrGiven if given else Asked

    def call(config: Any, out: Output) -> None:
        asked = _part(who, config)
        rows = run_suites(
            asked, {suite: _settings(own, config) if given else _part(own, config)}, out.events()
        )
        out.result([dataclasses.asdict(r) for r in rows], lambda: show(rows))
        refuse_errors(rows, asked.max_errors)

    joined = dataclasses.make_dataclass(
        f"{suite}_settings", [*_fields(who), *_fields(own)], frozen=True, kw_only=True
    )
    spares = {"url": "model"} | ({"predictions": "model data"} if given else {})
    return from_config(
        joined, call, arguments=("model",), spares=spares, also={**ALSO, **(also or {})}, **more
    )


def _settings(own: Any, config: Any) -> Any:
    """The suite's part, whose data may be the predictions."""
    if config.predictions is None:
        return _part(own, config)
    if str(config.data) != ".":
        raise ConfigError("--predictions brings its own rows", hint="leave out --data, or --predictions")
    judged = getattr(config, "judge", None) or getattr(config, "judge_url", "")
    asking = ("max_tokens",) if judged else ("max_tokens", "max_errors")
    if odd := changed(config, [name for name in asking if hasattr(config, name)]):
        raise ConfigError(f"--predictions: no model is asked, {flag(odd)} says nothing", hint="leave it out")
    return _part(own, dataclasses.replace(config, data=config.predictions))


def _fields(cls: Any) -> list[Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return [
        (f.name, hints[f.name], dataclasses.field(default=f.default, default_factory=f.default_factory))
        for f in dataclasses.fields(cls)
    ]


def _part(cls: Any, config: Any) -> Any:
    return cls(**{f.name: getattr(config, f.name) for f in dataclasses.fields(cls)})
