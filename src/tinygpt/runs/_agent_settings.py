"""Settings of `agent`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tinygpt.agent.escalate import Price
from tinygpt.agent.loop import Limits
from tinygpt.agent.policy import Rules
from tinygpt.agent.tool import ASKED
from tinygpt.core.config import changed, flag, refuse_idle
from tinygpt.core.errors import ConfigError, unknown
from tinygpt.runs._cloud import Target
from tinygpt.runs._conversation import ChatConfig
from tinygpt.runs._worlds import WORLDS

ALONE = (
    "tools", "system", "single", "endpoint", "workspace", "allow", "deny", "yes", "dry_run", "tool_timeout",
    "output_cap", "max_calls", "test_command", "transcript", "resume", "cloud_escalate", "json_out",
)  # fmt: skip  # what the tasks of a world have no use for
LOCAL = (
    "adapter", "quantize", "draft_model", "speculate", "heads", "prompt_cache", "prompt_cache_dir",
    "window", "kv_bits", "constrained",
)  # fmt: skip  # what a server is not told
SEND = "send"  # beside the effects of tools: what a stronger model is sent
TOOLS = "builtin:list_files,read_file,search_files"
OVERFLOW = ("drop", "summarise")


@dataclass(frozen=True, kw_only=True)
class Config(ChatConfig):
    """Who works, with which tools, how far it may go, and what is kept of it."""

    model: Annotated[Path, "A model, run or specialist directory; with --endpoint its name there."]
    tools: Annotated[str, "A tools.json, or builtin:NAME,... for tools that are built in."] = TOOLS
    single: Annotated[str, "One request; without it, requests are typed, or lines of stdin."] = ""
    endpoint: Annotated[str, "An OpenAI-compatible server that writes, as http://127.0.0.1:8080/v1."] = ""
    workspace: Annotated[Path, "Directory that files are read and written in, and never outside."] = Path()
    allow: Annotated[tuple[str, ...], "Names or patterns of the only tools that may be called."] = ()
    deny: Annotated[tuple[str, ...], "Names or patterns of tools that may not be called."] = ()
    yes: Annotated[
        tuple[str, ...], f"Effects that nobody is asked about: {', '.join(sorted(ASKED))}; send: to escalate."
    ] = ()
    dry_run: Annotated[bool, "Tools that do more than read are not run; what they would do is shown."] = False
    tool_timeout: Annotated[float, "Longest time of a call in seconds."] = Rules.seconds
    output_cap: Annotated[int, "Letters of a call's output that the model reads."] = Rules.output
    max_calls: Annotated[int, "Calls of a run; 0: no bound."] = Rules.calls
    test_command: Annotated[str, "What the built-in run_tests runs in the workspace, without a shell."] = ""
    max_steps: Annotated[int, "Turns that the model may write for one request."] = Limits.max_steps
    max_tokens: Annotated[int, "Longest turn in tokens."] = Limits.max_tokens
    budget: Annotated[int, "Tokens that the model may write for one request; 0: no bound."] = Limits.budget
    show_tools: Annotated[bool, "The prompt lists the tools; specialists may know theirs."] = True
    constrained: Annotated[bool, "Calls are written under their tools' schemas."] = True
    overflow: Annotated[str, "When the context is full: drop the oldest turns, or summarise them."] = "drop"
    router: Annotated[Path | None, "A router of train-extractor, which narrows the tools of a request."] = (
        None
    )
    router_threshold: Annotated[float, "Probability from which the router is believed."] = 0.7
    cloud_escalate: Annotated[
        str, "Who is asked where the model hands over: openai, anthropic, an address, or a model directory."
    ] = ""
    cloud_escalate_model: Annotated[str, "Its name there; not given: the provider's usual one."] = ""
    key_file: Annotated[Path | None, "File with its key; not given: OPENAI_API_KEY or ANTHROPIC_API_KEY."] = (
        None
    )
    price: Annotated[tuple[float, ...], "What a million of its tokens cost, read and written, as 3,15."] = ()
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
        super().__post_init__()
        _ = self.limits, self.rules, self.target, Price.of(self.price)
        if self.overflow not in OVERFLOW:
            raise unknown("overflow", self.overflow, OVERFLOW)
        refuse_idle(self, {"trajectory_task": "trajectory_dir", "router_threshold": "router"})
        refuse_idle(self, dict.fromkeys(("cloud_escalate_model", "key_file", "price"), "cloud_escalate"))
        refuse_idle(self, dict.fromkeys(("n", "first", "task_seed"), "world"))
        self._check_yes()
        if self.router is not None and not self.constrained:
            raise ConfigError(
                "--router narrows what may be written: it says nothing with --no-constrained",
                hint="leave one of them out",
            )
        if not 0 < self.router_threshold <= 1:
            raise ConfigError(f"--router-threshold must be from 0 to 1, got {self.router_threshold:g}")
        if self.resume is not None and (self.trajectory_dir or self.system is not None):
            raise ConfigError(
                "--resume goes on with its file and its system prompt",
                hint="leave out --trajectory-dir and --system",
            )
        if self.endpoint and (odd := changed(self, LOCAL)):
            raise ConfigError(f"{flag(odd)} says nothing to a server", hint="leave it out")
        if self.world:
            WORLDS.load(self.world)
            if odd := changed(self, ALONE):
                raise ConfigError(f"{flag(odd)} says nothing to the tasks of a world", hint="leave it out")
        if self.n < 1 or self.first < 0 or self.task_seed < 0:
            raise ConfigError("--n must be at least 1, --first and --task-seed not negative")

    def _check_yes(self) -> None:
        """Refuse a yes that nobody knows, or that is asked for nothing."""
        if (odd := next((one for one in self.yes if one not in (*ASKED, SEND)), None)) is not None:
            raise unknown("effect", odd, [*sorted(ASKED), SEND])
        if SEND in self.yes and (self.target is None or self.target.local):
            raise ConfigError(
                f"--yes {SEND} means nothing where nothing leaves this machine",
                hint="add --cloud-escalate openai, anthropic or an address, or leave it out",
            )

    @property
    def limits(self) -> Limits:
        return Limits(max_steps=self.max_steps, max_tokens=self.max_tokens, budget=self.budget)

    @property
    def rules(self) -> Rules:
        return Rules(
            allow=self.allow or Rules.allow, deny=self.deny, yes=frozenset(self.yes) - {SEND},
            dry_run=self.dry_run, output=self.output_cap, seconds=self.tool_timeout, calls=self.max_calls,
        )  # fmt: skip

    @property
    def target(self) -> Target | None:
        """The stronger model that may be asked."""
        if not self.cloud_escalate:
            return None
        try:
            return Target(
                provider=self.cloud_escalate, model=self.cloud_escalate_model, key_file=self.key_file
            )
        except ConfigError as error:  # it is told under the name that was typed
            error.message = error.message.replace("--provider", "--cloud-escalate")
            raise
