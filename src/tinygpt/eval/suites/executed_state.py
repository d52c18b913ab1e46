"""Executed state: run the calls of an answer in a simulated world and compare what results with what should.

A task is a request in a state. The reply's tool calls are executed on a copy of that state, and the reply is
right when the state and what was shown are right, however it got there; a refusal or a question is right
where one is due. Strings are never compared. Each held-out split is a row of its own and never averaged with
another: a split says what is new in it.

Paper: Patil et al., ICML 2025 (Berkeley Function Calling Leaderboard, its state-based checks).
Differs: one turn, in our own worlds (data/world); no string or syntax-tree comparison at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any

from tinygpt.core.config import to_dict
from tinygpt.core.errors import ConfigError, UnsupportedError
from tinygpt.core.family import Family
from tinygpt.core.rows import EvalRow
from tinygpt.eval.endpoint import Endpoint, Prompt, Reply
from tinygpt.eval.suites._result import Clock, Examples, SuiteResult, record, share, version

WORLDS = Family("tinygpt.data.world", verb="check")
METRIC = "state_correct"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of the executed-state suite."""

    world: Annotated[str, "Which world of data/world."] = "file_ops"
    seed: Annotated[int, "Seed of the tasks; the training tasks' one, so that held-out means held out."] = 0
    n: Annotated[int, "Tasks in each held-out split."] = 200
    max_tokens: Annotated[int, "Longest answer in tokens."] = 256

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"'n' must be at least 1, got {self.n}")


def load(config: Config) -> Examples:
    """The tasks of the held-out splits."""
    world = WORLDS.load(config.world)
    return examples_of(world, world.held_out(config.seed, config.n))


def examples_of(world: ModuleType, splits: Mapping[str, Sequence[Any]]) -> Examples:
    """Tasks that were made before, for example by the run that trained on their siblings."""
    items = []
    for name, tasks in splits.items():
        for task in tasks:
            *messages, answer = world.to_messages(task)
            ask = {"id": task.id, "split": name, "group": _group(task), "messages": messages}
            items.append(ask | {"gold": answer, "task": task})
    return Examples(items=items, version=version([(item["id"], item["messages"]) for item in items]))


def _group(task: Any) -> str:
    """What kind of task it is: how many steps, or which answer in words."""
    if task.kind != "calls":
        return task.kind
    return next(tag for tag in task.tags if tag.startswith("steps:"))


def gold(example: dict[str, Any]) -> dict[str, Any]:
    """A right answer to an example; others may lead to the same state."""
    return example["gold"]


class Rules:
    """The world's hand-written rules as an endpoint: the baseline that a trained model has to beat."""

    path, tokenizer, context, baseline = "", None, 0, True
    step: int | None = None
    model_hash: str | None = None
    facts: dict[str, Any] = {}

    def __init__(self, world: ModuleType, examples: Examples, name: str = "rules") -> None:
        self.name, self._predict = name, world.predict
        self._tasks = {repr(item["messages"]): item["task"] for item in examples.items}

    def complete(self, prompts: Sequence[Prompt], **_: Any) -> list[Reply]:
        """What the rules answer; they see the request and the state, never the expected result."""
        replies = []
        for prompt in prompts:
            task = self._tasks[repr(prompt)]
            message = self._predict(task.request, task.initial)[-1]
            replies.append(Reply(message=message, text=message["content"], finish_reason="stop", n_tokens=0))
        return replies

    def token_logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """Rules have no probabilities."""
        raise UnsupportedError(f"{self.name} has no probabilities to measure")


def score(endpoint: Endpoint, examples: Examples, config: Config) -> SuiteResult:
    """For each split a row with the share of right tasks, then one for each kind of task in it (subtask
    split/kind)."""
    clock = Clock()
    world = WORLDS.load(config.world)
    replies = endpoint.complete([item["messages"] for item in examples.items], max_tokens=config.max_tokens)
    found = []
    for item, reply in zip(examples.items, replies, strict=True):
        verdict = world.check(item["task"], reply.message)
        cut = "cut off at max_tokens" if reply.finish_reason == "length" else ""
        broken = reply.error or reply.message.get("error") or cut
        correct = verdict.correct and not broken
        why = broken or verdict.why
        extra = {"split": item["split"], "group": item["group"], "request": item["task"].request}
        found.append(
            record(item["id"], correct, reply, **extra, why="ok" if correct else why, got=reply.text)
        )
    seconds, settings = clock.seconds(), to_dict(config)

    def line(subtask: str, part: list[dict[str, Any]]) -> EvalRow:
        return share(
            endpoint,
            config.world,
            METRIC,
            part,
            seconds,
            examples.version,
            subtask=subtask,
            settings=settings,
        )

    rows = []
    for split in dict.fromkeys(e["split"] for e in found):
        mine = [e for e in found if e["split"] == split]
        rows.append(line(split, mine))
        for group in sorted({e["group"] for e in mine}, key=lambda g: (not g.startswith("steps"), g)):
            rows.append(line(f"{split}/{group}", [e for e in mine if e["group"] == group]))
    return SuiteResult(rows=rows, examples=found)
