"""How an agent's run begins: its writer, and the file it is recorded in, fresh or gone on with."""

from __future__ import annotations

import datetime
import functools
import uuid
from collections.abc import Sequence
from typing import Any

from tinygpt.agent.recorder import Recorder
from tinygpt.agent.turn import Writer
from tinygpt.core.events import Events
from tinygpt.data import atraj
from tinygpt.infer.engine import Engine
from tinygpt.runs import _agent_facts, _drafters
from tinygpt.runs._agent_remote import RemoteWriter
from tinygpt.runs._agent_settings import Config
from tinygpt.runs._agent_writer import LocalWriter
from tinygpt.runs._engine import open_engine

Entries = Sequence[dict[str, Any]]


def writer(config: Config, entries: Entries, events: Events) -> tuple[Writer, Engine | None]:
    """Who writes; the engine where that is a model of this process."""
    if config.endpoint:
        name = "" if str(config.model) == "." else str(config.model)
        return RemoteWriter(config.endpoint, name, config.seeded(), events), None
    engine = open_engine(config.model, config, events, config.packing)
    engine.drafter = _drafters.Drafters(config, config.model, events)(engine)
    lane = config.lane(engine, config.model, config, events)
    return LocalWriter(engine, lane, config.seeded(), entries, constrained=config.constrained), engine


def recorder(
    config: Config, made: Writer, engine: Engine | None, tools: Entries
) -> tuple[Recorder | None, atraj.Trajectory | None]:
    """Who records, and what was recorded before; None where nothing is."""
    to_bytes = None if engine is None else engine.tokenizer.id_to_bytes
    if config.resume is not None:
        same = functools.partial(_agent_facts.check, config=config, engine=engine, tools=tools)
        file, past = atraj.Writer.again(config.resume, to_bytes, check=same)
        return Recorder(file, made, tools), past
    if config.trajectory_dir is None:
        return None, None
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    header = _agent_facts.header(config, engine, tools, id=str(uuid.uuid4()), created=now)
    return Recorder(atraj.Writer.begin(config.trajectory_dir, header, to_bytes), made, tools), None
