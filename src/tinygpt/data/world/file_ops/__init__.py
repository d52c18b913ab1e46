"""The demo specialist's world: file operations as people ask for them, simulated, split and judged."""

from tinygpt.data.world.file_ops.baseline import predict
from tinygpt.data.world.file_ops.check import Verdict, check
from tinygpt.data.world.file_ops.file_system import FileSystem
from tinygpt.data.world.file_ops.interface import prompt, render_state, reply_of, system_prompt
from tinygpt.data.world.file_ops.tasks import (
    HELD_OUT_SETS,
    Task,
    check_disjoint,
    held_out,
    make_task,
    splits,
    to_messages,
)
from tinygpt.data.world.file_ops.tools import TOOLS, execute
from tinygpt.data.world.file_ops.trajectory import trajectory

__all__ = [
    "HELD_OUT_SETS",
    "TOOLS",
    "FileSystem",
    "Task",
    "Verdict",
    "check",
    "check_disjoint",
    "execute",
    "held_out",
    "make_task",
    "predict",
    "prompt",
    "render_state",
    "reply_of",
    "splits",
    "system_prompt",
    "to_messages",
    "trajectory",
]
