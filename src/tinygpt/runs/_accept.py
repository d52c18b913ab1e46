"""Which answers are kept: by what their calls do in a simulated world, by a command, or by a reward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data import rows
from tinygpt.data.source._asked import SHAPES, asked
from tinygpt.eval.endpoint import Reply
from tinygpt.eval.reward import _composite
from tinygpt.eval.reward._answer import Answer
from tinygpt.eval.verifier import command as commands
from tinygpt.eval.verifier._candidate import Candidate, Case, Judging
from tinygpt.runs import _worlds


@dataclass(frozen=True, kw_only=True)
class Work:
    """Something to be answered. `accept(reply)` is "" for a right answer, else why it is none; `whole` gives
    the messages that an accepted one is kept as, its prompt left out. `group`: what kind of work it is."""

    id: str
    messages: list[dict[str, Any]]
    accept: Callable[[Reply], str]
    whole: Callable[[dict[str, Any]], list[dict[str, Any]]]
    gold: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    group: str = "all"


@dataclass(frozen=True, kw_only=True)
class Works:
    """What is asked, and who says what is right."""

    world: Annotated[str, "Tasks of a simulated world, as file_ops: kept is what leaves the right state."] = (
        ""
    )
    n: Annotated[int, "Of a world: how many of its training tasks."] = 1000
    first: Annotated[int, "Of a world: number of the first one."] = 0
    task_seed: Annotated[int, "Of a world: seed of its tasks."] = 0
    trajectory: Annotated[bool, "Of a world: keep the results of the calls and a closing turn, too."] = False
    data: Annotated[
        tuple[Path, ...], "Or rows with prompts; --command or --reward-fn says what is right."
    ] = ()
    command: Annotated[
        str, "Reads an answer on stdin, the prompt in TINYGPT_PROMPT; exit code 0, or a number to --least."
    ] = ""
    command_seconds: Annotated[float, "Longest time of the command for an answer."] = 30.0
    reward_fn: Annotated[str, "A .toml or .json file of reward dimensions, or file.py:function."] = ""
    least: Annotated[float, "Smallest score of the command or the reward that is kept."] = 1.0

    def __post_init__(self) -> None:
        if bool(self.world) == bool(self.data):
            raise ConfigError("nothing to ask", hint="give either --world NAME or --data ROWS")
        if self.world:
            _worlds.WORLDS.load(self.world)
        refuse_idle(self, dict.fromkeys(("n", "first", "task_seed", "trajectory"), "world"))
        if self.data and bool(self.command) == bool(self.reward_fn):
            raise ConfigError("who says what is right?", hint="give either --command or --reward-fn")
        if self.world and (self.command or self.reward_fn):
            raise ConfigError(
                f"the world {self.world} knows what is right", hint="leave out --command and --reward-fn"
            )
        refuse_idle(self, {"command_seconds": "command"})
        if self.world and self.least != type(self).least:
            raise ConfigError("--least is about a command or a reward", hint="leave it out")
        if self.n < 1 or self.first < 0 or self.task_seed < 0:
            raise ConfigError("--n must be at least 1, --first and --task-seed not negative")

    def works(self, bad: list[str]) -> Iterator[Work]:
        """All of it in order; rows that cannot be asked are told in `bad`."""
        if self.world:
            yield from self._tasks()
            return
        accept = self._judged()
        for path in self.data:
            used, report = rows.read(path, asked, known=SHAPES)
            if report.n_bad:
                bad.append(f"{path}: {report.sentence()}")
            for i, one in enumerate(used):
                yield Work(
                    id=f"{path.name}/{i}", messages=one.prompt, tools=one.tools, whole=lambda m: [m],
                    accept=lambda reply, one=one: accept(one, reply.text),
                )  # fmt: skip

    def _tasks(self) -> Iterator[Work]:
        world = _worlds.WORLDS.load(self.world)
        if self.trajectory and not hasattr(world, "trajectory"):
            raise ConfigError(
                f"the world {self.world} gives no results of calls", hint="leave --trajectory out"
            )
        made = _worlds.tasks(world, n=self.n, first=self.first, seed=self.task_seed)
        for task in made:
            *messages, gold = world.to_messages(task)

            def accept(reply: Reply, task: Any = task) -> str:
                verdict = world.check(task, reply.message)
                return reply.message.get("error") or ("" if verdict.correct else verdict.why)

            whole = (lambda m, task=task: world.trajectory(task, m)) if self.trajectory else lambda m: [m]
            group = task.kind if task.kind != "calls" else f"{len(task.gold)} steps"
            yield Work(id=task.id, messages=messages, accept=accept, whole=whole, gold=gold, group=group)

    def _judged(self) -> Callable[[Any, str], str]:
        if self.reward_fn:
            reward = _composite.load(self.reward_fn)

            def rewarded(one: Any, text: str) -> str:
                answer = Answer(text=text, prompt=one.prompt, expected=one.expected, row=one.row)
                return "" if reward(answer).total >= self.least else "the reward is too small"

            return rewarded
        judging = Judging(model=None, open=None)  # type: ignore[arg-type]  # a command asks no model
        verify = commands.build(judging, commands.Config(command=self.command, seconds=self.command_seconds))

        def checked(one: Any, text: str) -> str:
            case = Case(prompt=one.prompt, text=one.prompt[-1]["content"], ids=[], row=one.row)
            (score,) = verify(case, [Candidate(text=text, ids=[])])
            if score == float("-inf"):
                return "the command took too long"
            return "" if score >= self.least else "the command says no"

        return checked


def verified(work: Work) -> str:
    """ "" where the gold answer of some work is accepted, else why not. DataError where it has none."""
    if work.gold is None:
        raise DataError(f"{work.id} has no answer to clone")
    return work.accept(Reply(message=work.gold, text="", finish_reason="stop", n_tokens=0))


def kept(work: Work, message: dict[str, Any]) -> dict[str, Any]:
    """The row that sft reads; an answer without calls has no list of them."""
    message = {name: value for name, value in message.items() if value or name != "tool_calls"}
    tools = {"tools": work.tools} if work.tools else {}
    return {"messages": [*work.messages, *work.whole(message)], **tools}


def groups(works: Sequence[Work]) -> list[str]:
    """Kinds of work in the order of their first one."""
    return list(dict.fromkeys(work.group for work in works))
