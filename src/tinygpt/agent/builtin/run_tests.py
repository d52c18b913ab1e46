"""Run the tests of the workspace; what is run is fixed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygpt.agent import _process
from tinygpt.agent.builtin._job import Job, schema
from tinygpt.agent.tool import Outcome

EFFECTS = frozenset({"execute"})  # of code in the workspace, which the model may have written
PARAMETERS = schema(())


def call(arguments: Mapping[str, Any], job: Job) -> Outcome:
    """What the person's command prints, and its exit code. It runs as the person, in the workspace."""
    return _process.run(
        job.test_command, cwd=job.workspace.here(), environment=_process.environment(),
        seconds=job.seconds, cancel=job.cancel,
    )  # fmt: skip
