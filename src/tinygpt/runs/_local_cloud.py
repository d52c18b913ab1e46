"""A bigger model of this machine, as a stronger one is asked. Nothing leaves."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygpt.agent.escalate import CANCELLED, Message, OnText, Told
from tinygpt.core.events import Events
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.infer.request import Piece
from tinygpt.runs._engine import lane_of, open_engine
from tinygpt.runs._wire import Cancel
from tinygpt.serve import prompts
from tinygpt.serve.stream import Parser, Part


class LocalCloud:
    """See agent.escalate.Cloud. The model is opened when it is asked for the first time."""

    leaves, encrypted, host, key = False, True, "this machine", ""

    def __init__(self, path: Path, max_tokens: int, events: Events) -> None:
        self.model = path.resolve().name
        self._path, self._events = path, events
        self._config = SampleConfig(temperature=0.0, max_tokens=max_tokens, seed=0)
        self._engine: Engine | None = None

    def ask(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] = (),
        *,
        on_text: OnText = lambda text: None,
        cancel: Cancel | None = None,
    ) -> Told:
        """One answer, of the likeliest tokens. It is not shown the tools: it is to write text."""
        began, cancel = time.monotonic(), cancel or threading.Event()
        if self._engine is None:
            self._engine = open_engine(self._path, None, self._events)
        engine = self._engine
        prompt = prompts.of_chat(engine, messages)
        parser = Parser(prompt.think, opened=prompt.opened)
        said, pieces, lane = list[str](), deque[Piece](), lane_of(engine)
        answer = lane.submit(engine.request(prompt.ids, self._config), pieces.append)

        def tell(parts: Sequence[Part]) -> None:
            for part in parts:
                if part.kind == "text":
                    said.append(part.text)
                    on_text(part.text)

        try:
            while (answer.finish_reason is None or pieces) and not cancel.is_set():
                if pieces:
                    tell(parser.feed(pieces.popleft().text))
                else:
                    lane.step()
        finally:
            lane.end_all()
        if answer.error is not None:
            raise answer.error
        tell(parser.finish())
        ended = CANCELLED if cancel.is_set() else answer.finish_reason or "stop"
        return Told(
            text="".join(said), finish_reason=ended, model=self.model, n_in=len(prompt.ids),
            n_out=len(answer.ids), seconds=time.monotonic() - began,
            error="it was cancelled" if ended == CANCELLED else "",
        )  # fmt: skip
