"""An agent at work: a model, its tools behind their policy, and what is kept of the run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from tinygpt.agent.escalate import Confirm
from tinygpt.agent.loop import Agent, Answer
from tinygpt.agent.recorder import messages_of
from tinygpt.agent.tool import Cancel
from tinygpt.agent.turn import Listener, Message
from tinygpt.core.errors import DataError
from tinygpt.core.events import Events
from tinygpt.data import atraj
from tinygpt.runs import _agent_begin, _agent_tools, _drafters
from tinygpt.runs._agent_settings import Config as Config

ANSWERED, UNASKED, FAILED = "answered", "unknown", "error"  # ends of which the loop says nothing


class Session:
    """A conversation with an agent. `confirm` asks the person about a call (None: there is nobody to ask),
    `send` about what would leave this machine."""

    def __init__(
        self,
        config: Config,
        events: Events,
        listener: Listener,
        cancel: Cancel,
        *,
        confirm: Callable[[str], bool] | None,
        send: Confirm,
    ) -> None:
        with contextlib.ExitStack() as opened:
            self._events = events
            self._transcript = _appended(config.transcript)
            if self._transcript is not None:
                opened.callback(self._transcript.close)
            listener = _Both(listener, self._transcript)
            policy = _agent_tools.policy(config, confirm, opened, events)
            escalation = _agent_tools.escalation(config, policy.entries, send, events)
            offered = [*policy.entries, *([escalation.entry] if escalation is not None else [])]
            writer, self._engine = _agent_begin.writer(config, offered, events)
            route = _agent_tools.route(config, [entry["function"]["name"] for entry in offered])
            shown = offered if config.show_tools else []  # a file is begun once nothing is refused any more
            self._recorder, self._past = _agent_begin.recorder(config, writer, self._engine, shown)
            system = _system(config) if self._past is None else ""
            self.agent = Agent(
                writer, policy, config.limits, listener, cancel, show_tools=config.show_tools,
                messages=[{"role": "system", "content": system}] if system else list[Message](),
                recorder=self._recorder, route=route, escalation=escalation,
                summarise=config.overflow == "summarise",
            )  # fmt: skip
            self._escalation = escalation
            self._outcome = UNASKED
            self._opened = opened.pop_all()

    def go_on(self) -> Answer | None:
        """With --resume: what was cut off is finished; None where nothing was, or without it."""
        if self._past is None:
            return None
        self._outcome = FAILED
        contexts = [[*before, *(step.ids or ())] for step, before in self._past.contexts()]
        answer = self.agent.go_on(messages_of(self._past.steps), contexts[-1] if contexts else [])
        ended = self._past.end.outcome if self._past.end is not None else ANSWERED
        self._outcome = ended if answer is None else answer.outcome
        return answer

    def ask(self, request: str) -> Answer:
        """Work on a request."""
        self._outcome = FAILED  # until it is more
        answer = self.agent.ask(request)
        self._outcome = answer.outcome
        return answer

    def end(self) -> dict[str, Any]:
        """Close what was written; what was counted."""
        summary: dict[str, Any] = dict(self.agent.counts)
        if self._escalation is not None:
            summary["escalation"] = self._escalation.tally.summary()
        if self._recorder is not None:
            self._recorder.end(atraj.End(outcome=self._outcome, summary=summary))
        self._opened.close()
        if self._engine is not None:
            _drafters.tell(self._engine, self._events)
        return summary


class _Both:
    """Tells the transcript as well, neither of the two any secrets."""

    def __init__(self, listener: Listener, transcript: IO[str] | None) -> None:
        self._listener, self._transcript = listener, transcript

    def text(self, piece: str) -> None:
        self._listener.text(piece)

    def tell(self, event: str, **facts: Any) -> None:
        facts = atraj.masked_json(facts)
        if self._transcript is not None:
            line = json.dumps({"event": event, **facts}, ensure_ascii=False, default=str)
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
        file = path.open("a", encoding="utf-8")
        if _is_cut(path):
            file.write("\n")  # a line that a crash cut off must not spoil the next one
        return file
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error


def _is_cut(path: Path) -> bool:
    """Whether the last line of a file has no end."""
    if not path.is_file() or not (size := path.stat().st_size):  # a pipe, or nothing
        return False
    with path.open("rb") as file:
        file.seek(size - 1)
        return file.read(1) != b"\n"


def _system(config: Config) -> str:
    """The system prompt: what was given, else a packaged specialist's own."""
    own = config.model / "prompt.md"
    if config.system is not None:
        return config.system
    return own.read_text(encoding="utf-8").strip() if not config.endpoint and own.is_file() else ""
