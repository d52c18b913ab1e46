"""An agent at work on the tasks of a simulated world, unattended: each is judged by the state it leaves."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

from tinygpt.agent.loop import Agent
from tinygpt.agent.policy import Decision
from tinygpt.agent.recorder import Recorder
from tinygpt.agent.tool import Cancel, Outcome
from tinygpt.agent.turn import Listener
from tinygpt.core.events import Events, Progress
from tinygpt.data import atraj
from tinygpt.runs import _agent_facts, _agent_tools, _drafters, _worlds
from tinygpt.runs._agent_settings import Config
from tinygpt.runs._agent_writer import LocalWriter
from tinygpt.runs._engine import open_engine


class Hands:
    """The tools of a world, on the state of one task: they harm nothing, so nobody is asked."""

    def __init__(self, world: Any, state: Any) -> None:
        self.world, self.state = world, state

    @property
    def entries(self) -> list[dict[str, Any]]:
        return list(self.world.TOOLS)

    def harmless(self, name: str) -> bool:
        """Calls are made in their order: each sees what the one before has done."""
        return False

    def run(self, name: str, arguments: Any, cancel: Cancel) -> tuple[Decision, Outcome]:
        call = {"name": name, "arguments": arguments}
        decision = Decision(tool=name, arguments=arguments, rule="simulated", allowed=True)
        return decision, Outcome(stdout=self.world.execute(self.state, call))


def run(config: Config, events: Events, listener: Listener, cancel: Cancel) -> dict[str, Any]:
    """Work on `n` tasks; how many ended in the right state, by kind, and what was counted. With
    --trajectory-dir each leaves a file, which says whether it was right."""
    world = _worlds.WORLDS.load(config.world)
    tasks = _worlds.tasks(world, n=config.n, first=config.first, seed=config.task_seed)
    engine = open_engine(config.model, config, events, config.packing)
    engine.drafter = _drafters.Drafters(config, config.model, events)(engine)
    lane = config.lane(engine, config.model, config, events)
    shown = list(world.TOOLS) if config.show_tools else []
    route = _agent_tools.route(config, [entry["function"]["name"] for entry in world.TOOLS])
    seeded = config.seeded()
    counts: Counter[str] = Counter()
    n, right = Counter[str](), Counter[str]()
    outcomes: Counter[str] = Counter()
    for done, task in enumerate(tasks, 1):
        hands = Hands(world, task.initial.copy())
        sampling = dataclasses.replace(seeded, seed=(seeded.seed or 0) + done * 2 * config.max_steps)
        writer = LocalWriter(engine, lane, sampling, hands.entries, constrained=config.constrained)
        recorder = None
        if config.trajectory_dir is not None:
            header = _agent_facts.header(config, engine, shown, id=task.id.replace("/", "-"))
            file = atraj.Writer.begin(config.trajectory_dir, header, engine.tokenizer.id_to_bytes)
            recorder = Recorder(file, writer, shown)
        *begin, request, _ = world.to_messages(task)
        agent = Agent(
            writer, hands, config.limits, listener, cancel, messages=begin,
            show_tools=config.show_tools, recorder=recorder, route=route,
            summarise=config.overflow == "summarise",
        )  # fmt: skip
        answer = agent.ask(request["content"])
        verdict = world.check(task, [m for m in agent.messages if m["role"] == "assistant"])
        correct = verdict.correct
        group = task.kind if task.kind != "calls" else f"{len(task.gold)} steps"
        n[group] += 1
        right[group] += correct
        outcomes[answer.outcome] += 1
        counts += agent.counts
        if recorder is not None:
            end = atraj.End(
                outcome=answer.outcome, success=correct, reward={"state": float(correct)},
                summary={"why": verdict.why, **agent.counts},
            )  # fmt: skip
            recorder.end(end)
        events.emit(Progress(task="agent", done=done, total=len(tasks), unit="tasks"))
        if cancel.is_set():
            break
    groups = {group: {"n": n[group], "right": right[group]} for group in sorted(n)}
    total = {"n": n.total(), "right": right.total(), "rate": round(right.total() / max(1, n.total()), 4)}
    return {**total, "groups": groups, "outcomes": dict(outcomes), **counts}
