"""The tools of an agent behind their policy, from its settings."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from tinygpt.agent import toolbox
from tinygpt.agent.builtin._job import Place
from tinygpt.agent.policy import Policy, Rules
from tinygpt.agent.workspace import Workspace
from tinygpt.runs._agent_settings import Config


def policy(config: Config, confirm: Callable[[str], bool] | None) -> Policy:
    """What the settings offer and allow; what is kept of the run is out of the tools' reach."""
    workspace = Workspace(config.workspace)
    for path in (config.transcript, config.resume, config.trajectory_dir):
        if path is not None:
            workspace.protect(path)
    place = Place(workspace=workspace, test_command=tuple(shlex.split(config.test_command)))
    box = toolbox.load(config.tools, place)
    return Policy(list(box.tools), rules(config), confirm=confirm)


def rules(config: Config) -> Rules:
    """The person's rules; ConfigError for what is none."""
    return Rules(
        allow=config.allow or Rules.allow, deny=config.deny, yes=frozenset(config.yes),
        dry_run=config.dry_run, output=config.output_cap, seconds=config.tool_timeout,
        calls=config.max_calls,
    )  # fmt: skip
