"""Settings of `agent`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tinygpt.agent.loop import Limits
from tinygpt.agent.policy import Rules
from tinygpt.agent.tool import ASKED
from tinygpt.core import config as configs
from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError, unknown
from tinygpt.core.family import Family
from tinygpt.infer.config import SampleConfig
from tinygpt.runs._adapters import Adapters
from tinygpt.runs._drafters import Speculation
from tinygpt.runs._packs import Packs
from tinygpt.runs._prompt_cache import PromptCache

ALONE = (
    "tools",
    "system",
    "single",
    "endpoint",
    "workspace",
    "allow",
    "deny",
    "yes",
    "dry_run",
    "tool_timeout",
    "output_cap",
    "max_calls",
    "test_command",
    "transcript",
    "resume",
)  # what the tasks of a world have no use for
WORLDS = Family("tinygpt.data.world", verb="check")
OVERFLOW = ("drop", "summarise")


@dataclass(frozen=True, kw_only=True)
class Config(SampleConfig, Adapters, Packs, Speculation, PromptCache):
    """Who works, with which tools, how far it may go, and what is kept of it."""

    model: Annotated[Path, "A model, run or specialist directory; with --endpoint its name there."]
    tools: Annotated[str, "A tools.json, or builtin:NAME,... for tools that are built in."] = (
        "builtin:list_files,read_file,search_files"
    )
    system: Annotated[str | None, "System prompt; a packaged specialist brings its own."] = None
    single: Annotated[str, "One request; without it, requests are typed, or lines of stdin."] = ""
    endpoint: Annotated[str, "An OpenAI-compatible server that writes, as http://127.0.0.1:8080/v1."] = ""
    workspace: Annotated[Path, "Directory that files are read and written in, and never outside."] = Path()
    allow: Annotated[tuple[str, ...], "Names or patterns of the only tools that may be called."] = ()
    deny: Annotated[tuple[str, ...], "Names or patterns of tools that may not be called."] = ()
    yes: Annotated[tuple[str, ...], f"Effects that nobody is asked about: {', '.join(sorted(ASKED))}."] = ()
    dry_run: Annotated[bool, "Tools that do more than read are not run; what they would do is shown."] = False
    tool_timeout: Annotated[float, "Longest time of a call in seconds."] = Rules.seconds
    output_cap: Annotated[int, "Letters of a call's output that the model reads."] = Rules.output
    max_calls: Annotated[int, "Calls of a run; 0: no bound."] = Rules.calls
    test_command: Annotated[str, "What the built-in run_tests runs in the workspace, without a shell."] = ""
    max_steps: Annotated[int, "Turns that the model may write for one request."] = Limits.max_steps
    max_tokens: Annotated[int, "Longest turn in tokens."] = Limits.max_tokens
    budget: Annotated[int, "Tokens that the model may write for one request; 0: no bound."] = Limits.budget
    temperature: Annotated[float, "0: always the likeliest token."] = 0.0
    show_tools: Annotated[
        bool, "The prompt lists the tools; a specialist that knows its own needs no list."
    ] = True
    constrained: Annotated[bool, "Calls are written under their tools' schemas."] = True
    overflow: Annotated[str, "When the context is full: drop the oldest turns, or summarise them."] = "drop"
    transcript: Annotated[Path | None, "JSONL file to which every event is added."] = None
    json_out: Annotated[bool, "Print every event as a line of JSON."] = False
    trajectory_dir: Annotated[Path | None, "Folder for an .atraj file of the run: training data."] = None
    trajectory_task: Annotated[str, "What the .atraj file says the run was for."] = ""
    resume: Annotated[Path | None, "An .atraj file to go on with, after an end or a crash."] = None
    world: Annotated[str, "Work on tasks of a simulated world instead, as file_ops, with its tools."] = ""
    n: Annotated[int, "Of a world: how many of its training tasks."] = 1000
    first: Annotated[int, "Of a world: number of the first one."] = 0
    task_seed: Annotated[int, "Of a world: seed of its tasks."] = 0

    def __post_init__(self) -> None:
        SampleConfig.__post_init__(self)
        Adapters.__post_init__(self)
        Packs.__post_init__(self)
        Speculation.__post_init__(self)
        PromptCache.__post_init__(self)
        _ = self.limits
        if self.overflow not in OVERFLOW:
            raise unknown("overflow", self.overflow, OVERFLOW)
        refuse_idle(self, {"trajectory_task": "trajectory_dir"})
        refuse_idle(self, dict.fromkeys(("n", "first", "task_seed"), "world"))
        if self.world:
            WORLDS.load(self.world)
            asked = {f.name: f.default for f in dataclasses.fields(type(self)) if f.name in ALONE}
            if odd := next((name for name, usual in asked.items() if getattr(self, name) != usual), None):
                raise ConfigError(
                    f"{configs.flag(odd)} says nothing to the tasks of a world", hint="leave it out"
                )
        if self.n < 1 or self.first < 0 or self.task_seed < 0:
            raise ConfigError("--n must be at least 1, --first and --task-seed not negative")
        if self.resume is not None and (self.trajectory_dir or self.system is not None):
            raise ConfigError(
                "--resume goes on with its file and its system prompt",
                hint="leave out --trajectory-dir and --system",
            )

    @property
    def limits(self) -> Limits:
        return Limits(max_steps=self.max_steps, max_tokens=self.max_tokens, budget=self.budget)
