"""A task as a trajectory: the calls of a reply, what each of them gave, and a closing turn without a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygpt.data.world.file_ops.interface import reply_of
from tinygpt.data.world.file_ops.tasks import Task
from tinygpt.data.world.file_ops.tools import execute, read_call

DONE = "Done."


def trajectory(task: Task, reply: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages from a reply on: it, a message of the tool for each call, run one after the other on a
    copy of the task's state, and the turn that ends the work. A reply in words is the end already."""
    calls = list(reply.get("tool_calls") or [])
    if not calls:
        return [dict(reply)]
    state = task.initial.copy()
    made: list[dict[str, Any]] = []
    for i, call in enumerate(calls):
        name, _, _ = read_call(call)
        shown = execute(state, call)
        made.append({"role": "tool", "tool_call_id": f"call_{i}", "name": name, "content": shown})
    entries = [{**call, "id": f"call_{i}"} for i, call in enumerate(calls)]
    return [{**reply, "tool_calls": entries}, *made, reply_of((), DONE)]
