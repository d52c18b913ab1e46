"""The demo: a file-operations specialist from nothing to a measured package, in minutes on a CPU."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core import files
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.core.lock import gpu_lock
from tinygpt.core.rows import EvalRow, write_rows
from tinygpt.data import rows
from tinygpt.data.template import chatml
from tinygpt.data.template._spans import join
from tinygpt.data.world import file_ops as world
from tinygpt.eval.suites import executed_state as suite
from tinygpt.project import _build, specialist
from tinygpt.project._build import Recipe, Trained
from tinygpt.runs import _pieces

NAME = "file-ops-tiny"
RECIPE = Recipe(
    vocab_size=2500,
    pattern="copy",
    layers=5,
    width=128,
    heads=2,
    groups=2,
    context=256,
    batch=8,
    lr=4e-3,
    optimizer=Pick("muon"),
)
LIMITS = (
    "It knows one toy file system and its 17 tools; the listing that it reads shows one level below the "
    "current directory.",
    "It answers one request at a time and does not read results of its calls.",
    "Names unlike the training names (other alphabets, very long ones) are copied less reliably.",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the demo."""

    out: Annotated[Path, "Directory of everything the demo makes."] = Path("runs/demo")
    minutes: Annotated[float, "Time to train for; the number of steps follows from this machine's speed."] = (
        9.6
    )
    steps: Annotated[int, "Exact number of steps instead of --minutes; 0: use the time."] = 0
    n_train: Annotated[int, "Training tasks to write."] = 40000
    n_held_out: Annotated[int, "Tasks in each held-out set."] = 150
    seed: Annotated[int, "Seed of tasks, weights and order."] = 0
    force: Annotated[bool, "Replace an existing --out."] = False
    wait: Annotated[bool, "Wait for another run to free the machine."] = False
    lock: Annotated[bool, "Take the machine's lock (one heavy run at a time)."] = True

    def __post_init__(self) -> None:
        if not 0 < self.minutes < math.inf or self.n_train < 100 or self.n_held_out < 1:
            raise ConfigError("--minutes must be positive, --n-train at least 100, --n-held-out at least 1")
        if self.steps < 0 or self.seed < 0:
            raise ConfigError("--steps and --seed must not be negative")


def run(config: Config, events: Events, recipe: Recipe = RECIPE) -> dict[str, Any]:
    """Make the data, train, measure untrained, rules and trained on each held-out set, package, show three
    requests."""
    with gpu_lock("quickstart --demo", wait=config.wait, enabled=config.lock, events=events):
        return _run(config, events, recipe)


def _run(config: Config, events: Events, recipe: Recipe) -> dict[str, Any]:
    began = time.perf_counter()
    _pieces.refuse_inside(config.out)
    files.refuse_existing(
        config.out, force=config.force, what="demo directory", mark=_pieces.QUICKSTART_MARK,
        replaced=_pieces.QUICKSTART | {NAME: ()},
    )  # fmt: skip
    events.note(f"1/5 writing {config.n_train} tasks and three held-out sets")
    sets = world.splits(config.seed, config.n_train, config.n_held_out)
    data = config.out / "train.jsonl"
    rows.write(data, ({"messages": world.to_messages(task)} for task in sets["train"]))
    events.note("2/5 training a tokenizer on them")
    texts = (join(chatml.render(world.to_messages(task))) for task in sets["train"][:8000])
    tokenizer = _build.train_tokenizer(texts, recipe, config.out / "tokenizer", events)
    events.note("3/5 training the model from scratch, learning the answers only")
    trained = _build.train(
        data,
        tokenizer,
        config.out / "tokenizer",
        recipe,
        config.out / "run",
        events,
        minutes=config.minutes,
        steps=config.steps,
        seed=config.seed,
    )
    events.note("4/5 measuring untrained, rules and trained on what none of them has seen")
    held_out = {name: sets[name] for name in world.HELD_OUT_SETS}
    found = measure(trained, held_out)
    write_rows(config.out / "rows.jsonl", found)
    events.note("5/5 packaging")
    package = package_model(config, recipe, trained, found)
    return {
        "scores": [score(found, name) for name in world.HELD_OUT_SETS],
        "live": [live(trained, next(t for t in sets[name] if changes(t))) for name in world.HELD_OUT_SETS],
        "package": str(package),
        "facts": trained.facts,
        "rows": str(config.out / "rows.jsonl"),
        "seconds": round(time.perf_counter() - began, 1),
    }


def measure(trained: Trained, held_out: dict[str, Sequence[Any]]) -> list[EvalRow]:
    """Rows of the three contestants on every held-out set."""
    examples = suite.examples_of(world, held_out)
    settings = suite.Config(n=min(len(tasks) for tasks in held_out.values()), max_tokens=160)
    contestants = (trained.untrained, suite.Rules(world, examples, "rule-based"), trained.endpoint)
    return [row for one in contestants for row in suite.score(one, examples, settings).rows]


def score(found: list[EvalRow], name: str) -> dict[str, Any]:
    """One line of the table: a held-out set, and each contestant's share of right tasks with its interval."""
    mine = [r for r in found if r.subtask == name]
    return {
        "set": name,
        "n": mine[0].n_examples,
        **{r.model_name: {"score": r.score, "interval": r.interval} for r in mine},
    }


def changes(task: Any) -> bool:
    """Whether a task changes the tree: those are worth looking at."""
    return task.kind == "calls" and task.expected != task.initial


def live(trained: Trained, task: Any) -> dict[str, Any]:
    """One request answered now: what was asked, what the model called, and the tree before and after."""
    reply = trained.endpoint.complete([world.to_messages(task)[:-1]], max_tokens=160)[0]
    verdict = world.check(task, reply.message)
    after = task.initial.copy()
    calls = [rows.to_call(call) for call in reply.message.get("tool_calls") or ()]
    results = [world.execute(after, call) for call in calls]
    return {
        "request": task.request,
        "before": task.initial.render(),
        "calls": calls,
        "text": reply.message["content"],
        "results": [str(r) for r in results],
        "after": after.render(),
        "correct": verdict.correct,
        "why": verdict.why,
    }


def package_model(config: Config, recipe: Recipe, trained: Trained, found: list[EvalRow]) -> Path:
    """Write the specialist's directory."""
    card = specialist.Card(
        name=NAME,
        summary="A small language model, trained from nothing, that turns requests about files into tool "
        "calls.",
        data=f"{config.n_train} tasks written by the seeded simulator `tinygpt.data.world.file_ops` "
        f"(seed {config.seed}). Held-out sets: `names` has names never seen, `phrases` has phrasings never "
        "seen, `compositions` has pairs of tools never seen together. A reply is right when executing it "
        "gives the right state.",
        recipe={
            **recipe.facts(),
            "command": f"tinygpt quickstart --demo --steps {trained.steps} --n-train {config.n_train} "
            f"--n-held-out {config.n_held_out} --seed {config.seed}",
        },
        facts=trained.facts,
        limits=LIMITS,
        turns=1,
        use="`tinygpt chat DIRECTORY`, or measure it again: `tinygpt eval DIRECTORY --suite "
        f"executed_state --set options.executed_state.n={config.n_held_out}`. "
        "The system message is the listing of the current directory, in the form of the example in "
        "`prompt.md`; the user's message is the request. The tools are in `tools.json`.",
    )
    main = [r for r in found if "/" not in (r.subtask or "")]
    return specialist.package(
        config.out / NAME,
        trained.path,
        card,
        main,
        prompt=world.system_prompt(),
        tools=world.TOOLS,
        replace=config.force,
    )
