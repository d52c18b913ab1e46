"""What a trajectory says of who ran, and whether a run that goes on is run by the same."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.errors import ConfigError
from tinygpt.data import atraj
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.model import quantized
from tinygpt.runs import _pieces, _prompt_cache
from tinygpt.runs._adapters import Adapters
from tinygpt.runs._agent_settings import Config
from tinygpt.serve import prompts

SAME = ("hash", "adapter_hash", "tokenizer_hash", "template_hash")


def header(
    config: Config, engine: Engine | None, tools: Sequence[dict[str, Any]], *, id: str, created: str = ""
) -> atraj.Header:
    """The head of a run's file."""
    usual = SampleConfig()
    names = [f.name for f in dataclasses.fields(SampleConfig)]
    sampling = {
        name: getattr(config, name) for name in names if getattr(config, name) != getattr(usual, name)
    }
    return atraj.Header(
        id=id, created=created, task=config.trajectory_task, model=_ran(config, engine),
        tools=list(tools), tools_hash=atraj.hash_of(list(tools)), sampling=sampling,
    )  # fmt: skip


def _ran(config: Config, engine: Engine | None) -> dict[str, str]:
    """What is known of the model of a run; of a server's, what it is asked for."""
    if engine is None:
        return {"name": str(config.model), "endpoint": config.endpoint}
    return model_of(config, engine, config.model)


def model_of(config: Adapters, engine: Engine, path: Path) -> dict[str, str]:
    """What is known of a model with the adapters of these settings on it."""
    weights = config.adapter_weight or [1.0] * len(config.adapter)
    return of_model(path, list(zip(config.adapter, weights, strict=True)), engine)


def of_model(
    path: Path, worn: Sequence[tuple[Path, float]], engine: Engine, *, hash: str = ""
) -> dict[str, str]:
    """Name, place and hashes of a model, its adapters, its tokenizer and its template; how its matrices are
    packed. hash: that of its weights, where it is known."""
    facts = {"name": path.resolve().name, "path": str(path)}
    facts["hash"] = hash or _pieces.checkpoint.identity(_pieces.model_path(path))
    if worn:
        told = " ".join(f"{w:g} {_prompt_cache.content(_pieces.model_path(p))}" for p, w in worn)
        facts["adapter_hash"] = hashlib.sha256(told.encode()).hexdigest()
    facts["tokenizer_hash"] = engine.tokenizer.hash
    if engine.template is not None:
        source = prompts.source_of(engine.template)
        facts["template_hash"] = hashlib.sha256(source.encode()).hexdigest()
    if packing := quantized.packing(engine.model):
        facts["packing"] = str(packing)
    return facts


def check(past: atraj.Header, config: Config, engine: Engine | None, tools: Sequence[dict[str, Any]]) -> None:
    """ConfigError where a file was begun by another model, or with other tools."""
    now = _ran(config, engine)
    for name in SAME:
        if past.model.get(name) != now.get(name):
            raise ConfigError(
                f"{config.resume} was written by another model: its {name} is not that of {config.model}",
                hint="resume with the same model, adapters and tools",
            )
    if past.tools_hash != atraj.hash_of(list(tools)):
        raise ConfigError(f"{config.resume} was written with other tools", hint="resume with the same tools")
