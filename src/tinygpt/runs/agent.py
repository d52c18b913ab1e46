"""An agent at work: a model, its tools behind their policy, and what is kept of the run."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from tinygpt.agent.loop import Agent, Answer
from tinygpt.agent.policy import Policy
from tinygpt.agent.recorder import Recorder, messages_of
from tinygpt.agent.tool import Cancel
from tinygpt.agent.turn import Listener, Message
from tinygpt.core.errors import DataError
from tinygpt.core.events import Events
from tinygpt.data import atraj
from tinygpt.runs import _agent_facts, _agent_tools, _drafters
from tinygpt.runs._agent_settings import Config as Config
from tinygpt.runs._agent_writer import LocalWriter
from tinygpt.runs._engine import open_engine


class Session:
    """A conversation with an agent. `confirm` asks the person about a call; None: there is nobody to ask."""

    def __init__(
        self,
        config: Config,
        events: Events,
        listener: Listener,
        cancel: Cancel,
        confirm: Callable[[str], bool] | None = None,
    ) -> None:
        self.config, self.events = config, events
        self._transcript = _appended(config.transcript)
        self._listener = _Both(listener, self._transcript)
        self.engine = open_engine(config.model, config, events, config.packing)
        self.engine.drafter = _drafters.Drafters(config, config.model, events)(self.engine)
        lane = config.lane(self.engine, config.model, config, events)
        self.policy: Policy = _agent_tools.policy(config, confirm)
        writer = LocalWriter(
            self.engine, lane, config.seeded(), self.policy.entries, constrained=config.constrained
        )
        recorder = past = None
        shown = self.policy.entries if config.show_tools else []
        if config.resume is not None:
            file, past = atraj.Writer.again(config.resume, self.engine.tokenizer.id_to_bytes)
            _agent_facts.check(past.header, config, self.engine, shown)
            recorder = Recorder(file, writer, shown)
        elif config.trajectory_dir is not None:
            header = _agent_facts.header(config, self.engine, shown, id=str(uuid.uuid4()), created=_now())
            file = atraj.Writer.begin(config.trajectory_dir, header, self.engine.tokenizer.id_to_bytes)
            recorder = Recorder(file, writer, shown)
        self.recorder = recorder
        system = _system(config)
        begin: list[Message] = [{"role": "system", "content": system}] if system and past is None else []
        self.agent = Agent(
            writer, self.policy, config.limits, self._listener, cancel, messages=begin,
            show_tools=config.show_tools, recorder=recorder, summarise=config.overflow == "summarise",
        )  # fmt: skip
        self._past = past
        self.outcome = "answered"

    def go_on(self) -> Answer | None:
        """With --resume: what was cut off is finished; None where nothing was, or without it."""
        if self._past is None:
            return None
        context = [[*before, *(step.ids or ())] for step, before in self._past.contexts()]
        answer = self.agent.go_on(messages_of(self._past.steps), context[-1] if context else [])
        self.outcome = self.outcome if answer is None else answer.outcome
        return answer

    def ask(self, request: str) -> Answer:
        """Work on a request."""
        answer = self.agent.ask(request)
        self.outcome = answer.outcome
        return answer

    def end(self) -> dict[str, Any]:
        """Close what was written; what was counted."""
        summary: dict[str, Any] = dict(self.agent.counts)
        if self.recorder is not None:
            self.recorder.end(atraj.End(outcome=self.outcome, summary=summary))
        if self._transcript is not None:
            self._transcript.close()
        _drafters.tell(self.engine, self.events)
        return summary


class _Both:
    """Tells the transcript as well."""

    def __init__(self, listener: Listener, transcript: IO[str] | None) -> None:
        self._listener, self._transcript = listener, transcript

    def text(self, piece: str) -> None:
        self._listener.text(piece)

    def tell(self, event: str, **facts: Any) -> None:
        if self._transcript is not None:
            line = json.dumps({"event": event, **atraj.masked_json(facts)}, ensure_ascii=False, default=str)
            self._transcript.write(line + "\n")
            self._transcript.flush()
        self._listener.tell(event, **facts)


def _appended(path: Path | None) -> IO[str] | None:
    """A file that its owner alone may read, to add to."""
    if path is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o600)
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error


def _system(config: Config) -> str:
    """The system prompt: what was given, else a packaged specialist's own."""
    own = config.model / "prompt.md"
    if config.system is not None:
        return config.system
    return own.read_text(encoding="utf-8").strip() if own.is_file() else ""


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
