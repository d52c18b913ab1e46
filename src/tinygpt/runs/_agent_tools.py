"""What an agent has beside its model: tools behind their policy, a router, a stronger model."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tinygpt.agent import mcp, toolbox
from tinygpt.agent.builtin._job import Place
from tinygpt.agent.escalate import NAME, Confirm, Escalation, Price
from tinygpt.agent.policy import Policy
from tinygpt.agent.workspace import Workspace
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.router.router import Router
from tinygpt.runs import _pieces
from tinygpt.runs._agent_settings import Config
from tinygpt.runs._cloud import open_cloud


def policy(config: Config, confirm: Callable[[str], bool] | None, open_: ExitStack, events: Events) -> Policy:
    """What the settings offer and allow; what is kept of the run is out of the tools' reach. `open_` ends the
    servers that tools come from."""
    workspace = Workspace(config.workspace)
    open_.callback(workspace.close)
    for path in (config.transcript, config.resume, config.trajectory_dir):
        if path is not None:
            workspace.protect(path)
    if config.key_file is not None:
        workspace.hide(config.key_file)
    place = Place(workspace=workspace, test_command=_words(config.test_command))
    box = toolbox.load(config.tools, place)
    tools = list(box.tools)
    if place.test_command and not place.testers:
        raise ConfigError(
            "--test-command: no tool runs it", hint="--tools builtin:run_tests,... has one; or leave it out"
        )
    if box.servers:
        for path in mcp.files(box.servers):
            workspace.protect(path)
        tools += open_.enter_context(mcp.open(box.servers, note=events.note)).tools
    return Policy(tools, config.rules, confirm=confirm)


def _words(command: str) -> tuple[str, ...]:
    """A command as it is typed, in its words."""
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise ConfigError(f"--test-command {command!r} cannot be read: {error}") from error


class Route:
    """A router as the loop asks it: above the threshold its tool alone may be called, or none where it says
    that no tool serves the request; below it, whatever is there."""

    def __init__(self, path: Path, threshold: float, names: Sequence[str]) -> None:
        self._router, self._threshold = Router.open(_pieces.model_path(path)), threshold
        known = set(self._router.labels) - {self._router.abstain}
        if not known & set(names):
            raise ConfigError(
                f"the router {path} knows none of the tools: {', '.join(names)}",
                hint=f"its classes: {', '.join(sorted(known))[:300]}",
            )
        self._names = frozenset(names)

    def __call__(self, request: str, tell: Callable[..., None]) -> list[str] | None:
        tool, p = self._router(request)[0]
        fired = p >= self._threshold and (tool == self._router.abstain or tool in self._names)
        tell("router_prediction", tool=tool, probability=round(p, 4), fired=fired)
        if not fired:
            return None
        return [] if tool == self._router.abstain else [tool]


def route(config: Config, names: Sequence[str]) -> Route | None:
    """The router, where one is given. ConfigError where it knows none of these tools."""
    return None if config.router is None else Route(config.router, config.router_threshold, names)


def escalation(
    config: Config, tools: Sequence[dict[str, Any]], confirm: Confirm, events: Events
) -> Escalation | None:
    """The stronger model, where one is given; a key that is missing is said here."""
    if (target := config.target) is None:
        return None
    if any(entry["function"]["name"] == NAME for entry in tools):
        raise ConfigError(
            f"a tool is called '{NAME}', as that by which a stronger model is asked", hint="rename it"
        )
    return Escalation(open_cloud(target, events), confirm, Price.of(config.price), tools=tools)
