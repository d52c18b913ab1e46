"""Requests that a model writes for tools, kept tool by tool, so that an interrupted command goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tinygpt.core.errors import RemoteError
from tinygpt.core.events import Events, Progress
from tinygpt.data.requests import Request
from tinygpt.eval.endpoint import Endpoint, Sampling
from tinygpt.runs._asked import Asked
from tinygpt.runs._journal import Journal

ASK = (
    "Here is a tool:\n{tool}\n\nWrite {n} different requests that people would make in their own words, and "
    "that this tool serves. Vary length, tone and details; never name the tool. Write one request a line, "
    "and nothing else."
)
AT_ONCE = 10  # requests that are asked for in one answer
ROUNDS = 3  # as many answers as would do, times this, before a tool is left with fewer
LETTERS = 400  # of a request at most
LEAD = re.compile(r"^\s*(?:[-*\u2022]|\(?\d+[.):])\s*")


class Settings(Protocol):
    """What is asked for."""

    @property
    def tools(self) -> Path | None: ...
    @property
    def synth(self) -> bool: ...
    @property
    def synth_model(self) -> Path: ...
    @property
    def synth_url(self) -> str: ...
    @property
    def synth_per_tool(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def resume(self) -> bool: ...
    @property
    def force(self) -> bool: ...
    @property
    def dry_run(self) -> bool: ...


class Written:
    """What a model wrote, and will write."""

    def __init__(self, endpoint: Endpoint, journal: Journal, config: Settings, events: Events) -> None:
        self._endpoint, self._journal, self._config, self._events = endpoint, journal, config, events
        self.name = f"written by {endpoint.name}"

    def requests(self, tools: Sequence[Mapping[str, Any]]) -> Iterator[Request]:
        """The requests of each tool in turn."""
        for done, tool in enumerate(tools):
            self._events.emit(Progress(task="write requests", done=done, total=len(tools), unit="tools"))
            name = str(tool["name"])
            if name not in self._journal:
                self._journal.keep(name, self._write(tool))
            for text in self._journal[name]:
                yield Request(query=text, calls=({"name": name},))
        self._events.emit(Progress(task="write requests", done=len(tools), total=len(tools), unit="tools"))

    def _write(self, tool: Mapping[str, Any]) -> list[str]:
        """So many different requests for a tool, or as many as came; RemoteError where no answer comes."""
        wanted, found = self._config.synth_per_tool, dict[str, str]()
        n = -(-wanted // AT_ONCE)
        for round_ in range(ROUNDS):
            text = ASK.format(tool=json.dumps(dict(tool), ensure_ascii=False), n=min(wanted, AT_ONCE))
            prompts = [[{"role": "user", "content": text}]] * n
            start = int.from_bytes(hashlib.sha256(str(tool["name"]).encode()).digest()[:3], "big")
            draw = Sampling(temperature=0.9, top_p=0.95, seed=self._config.seed + start + 1000 * round_)
            replies = self._endpoint.complete(prompts, max_tokens=60 * AT_ONCE, sampling=draw)
            lost = [reply.error for reply in replies if reply.error]
            if len(lost) == len(replies):
                raise RemoteError(
                    f"no requests for '{tool['name']}' were written: {lost[0]}", hint="--resume goes on here"
                )
            for reply in replies:
                for line in reply.answer.splitlines():
                    said = LEAD.sub("", line).strip().strip('"').strip()
                    if said and len(said) <= LETTERS and str(tool["name"]) not in said:
                        found.setdefault(" ".join(said.casefold().split()), said)
            if len(found) >= wanted:
                break
        if len(found) < wanted:
            self._events.note(
                f"{len(found)} of {wanted} requests were written for '{tool['name']}'", "warning"
            )
        return list(found.values())[:wanted]

    def done(self) -> None:
        """The pairs are written."""
        self._journal.done()


@contextlib.contextmanager
def opened(config: Settings, place: Path, events: Events) -> Generator[Written | None]:
    """What writes requests; None where none are asked for."""
    if not config.synth or config.dry_run:
        yield None
        return
    assert config.tools is not None
    endpoint = Asked(model=config.synth_model, url=config.synth_url).open(events)
    settings = {
        "model": str(config.synth_model), "url": config.synth_url, "per_tool": config.synth_per_tool,
        "seed": config.seed, "tools": hashlib.sha256(config.tools.read_bytes()).hexdigest(),
    }  # fmt: skip
    with Journal(place, settings, resume=config.resume, force=config.force) as journal:
        yield Written(endpoint, journal, config, events)
