"""The demo specialist's world: file operations as people ask for them, simulated, split and judged."""

from .baseline import predict
from .check import Verdict, check
from .file_system import FileSystem
from .interface import prompt, render_state, reply_of, system_prompt
from .tasks import HELD_OUT_SETS, Task, check_disjoint, describe, make_task, splits, to_messages
from .tools import TOOLS, execute

__all__ = [
    "HELD_OUT_SETS",
    "TOOLS",
    "FileSystem",
    "Task",
    "Verdict",
    "check",
    "check_disjoint",
    "describe",
    "execute",
    "make_task",
    "predict",
    "prompt",
    "render_state",
    "reply_of",
    "splits",
    "system_prompt",
    "to_messages",
]
