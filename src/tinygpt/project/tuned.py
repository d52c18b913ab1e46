"""Quickstart on a base: a person's rows in; an adapter out, and whether it was worth training."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tinygpt
from tinygpt.core import backend, files
from tinygpt.core.config import Pick, to_dict
from tinygpt.core.errors import ConfigError, Interrupted, TinyGPTError
from tinygpt.core.events import Events
from tinygpt.core.lock import gpu_lock
from tinygpt.core.rows import EvalRow, write_rows
from tinygpt.data import rows
from tinygpt.data.rows import Conversation
from tinygpt.data.template._spans import encode_many
from tinygpt.eval.suites import exact_match
from tinygpt.project import gallery, quickstart, recipe
from tinygpt.project import survey as surveys
from tinygpt.project._few_shot import FewShot, answer_nats, worth
from tinygpt.project.recipe import Plan
from tinygpt.project.survey import Survey
from tinygpt.runs import _pieces, sft
from tinygpt.runs.evaluate import LocalEndpoint

PROJECT = "tinygpt.project.json"
SHOTS = 3
AUTO = "auto"
FEW = 50  # rows
GIVEN_AWAY = "All held-out rows stand almost as they are among the training rows"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of a quickstart on a base."""

    data: Annotated[Path, "JSONL rows: messages, prompt/completion, instruction/response or question/answer."]
    base: Annotated[str, "A path, an hf:// name, an id of the gallery, or auto: by task and memory."] = AUTO
    gallery: Annotated[Path | None, "Manifest of bases to choose from; not given: the built-in one."] = None
    out: Annotated[Path, "Directory of everything it makes."] = Path("runs/quickstart")
    project_out: Annotated[Path | None, f"Where to write the project; not given: {PROJECT} in --out."] = None
    steps: Annotated[int, "Exact number of steps; 0: by the number of rows."] = 0
    n_held_out: Annotated[int, "Rows kept apart and measured; at most a tenth of all."] = 100
    samples: Annotated[int, "Held-out answers to show."] = 3
    strict: Annotated[bool, "Refuse a file with a bad row, instead of counting it."] = False
    dry_run: Annotated[bool, "Show the plan and the project, and train nothing."] = False
    seed: Annotated[int, "Seed of the adapter and of the order."] = 0
    force: Annotated[bool, "Replace an existing --out."] = False
    wait: Annotated[bool, "Wait for another run to free the machine."] = False
    lock: Annotated[bool, "Take the machine's lock (one heavy run at a time)."] = True

    def __post_init__(self) -> None:
        if self.n_held_out < 1 or self.samples < 0 or self.steps < 0 or self.seed < 0:
            raise ConfigError("--n-held-out must be at least 1; --samples, --steps and --seed not negative")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The base that was settled on: its id, where it lies, and why it."""

    id: str
    path: str
    why: str


def run(config: Config, events: Events) -> dict[str, Any]:
    """Look at the rows, choose base and recipe, train, measure against the base with and without examples."""
    with gpu_lock("quickstart", wait=config.wait, enabled=config.lock and not config.dry_run, events=events):
        return _run(config, events)


def _run(config: Config, events: Events) -> dict[str, Any]:
    began = time.perf_counter()
    if not config.dry_run:
        _pieces.refuse_inside(config.out)
        files.refuse_existing(
            config.out, force=config.force, what="quickstart directory", mark=_pieces.QUICKSTART_MARK,
            replaced={"run": _pieces.RUN_FILES},
        )  # fmt: skip
        _refuse_project(config)
    conversations, report = rows.read(
        config.data, rows.to_messages, strict=config.strict, known=quickstart.KNOWN
    )
    train, held_out = quickstart.split(conversations, config.n_held_out)
    found = surveys.survey(conversations)
    events.note(f"1/5 {config.data}: {report.sentence()}; {found.sentence()}")
    if len(conversations) < FEW:
        events.note(f"{len(conversations)} rows are few to learn from, and to measure with", "warning")
    leaked = set(surveys.leaks(train, held_out))
    given_away = len(leaked) == len(held_out)
    if given_away:
        events.note(f"{GIVEN_AWAY}; they are measured all the same", "warning")
    elif leaked:
        events.note(
            f"{len(leaked)} held-out rows stand almost as they are among the training rows; they are not "
            "measured",
            "warning",
        )
        held_out = [c for i, c in enumerate(held_out) if i not in leaked]
    chosen = choose(config, found)
    events.note(f"2/5 base {chosen.path}: {chosen.why}")
    loaded, tokenizer = _pieces.open_model(Path(chosen.path))
    template = _pieces.template_of(tokenizer)
    rendered = [list(template.render(c.messages, c.tools)) for c in train[:2000]]
    lengths = sorted(len(ids) for ids, _ in encode_many(rendered, tokenizer))
    tokens = (sum(lengths) // len(lengths), lengths[min(len(lengths) - 1, int(0.99 * len(lengths)))])
    plan = recipe.resolve(
        dataclasses.replace(found, n_rows=len(train)),
        tokens,
        base_facts(loaded.model),
        machine(),
        config.steps,
    )
    del loaded  # the run opens it anew, and holds it alone
    for reason in plan.reasons:
        events.note(reason)
    events.note(
        f"plan: about {plan.memory_bytes / 1e9:.1f} GB of memory and {_duration(plan.seconds)} of training"
    )
    where = config.project_out or config.out / PROJECT
    project = project_of(config, chosen, where.parent)
    told = {"survey": to_dict(found), "base": to_dict(chosen), "plan": to_dict(plan), "project": project}
    if config.dry_run:
        return told
    data, kept = config.out / "train.jsonl", config.out / "held_out.jsonl"
    rows.write(data, map(quickstart.row_of, train))
    rows.write(kept, map(quickstart.row_of, held_out))
    events.note(f"3/5 training {plan.adapter}, {plan.steps} steps of {plan.batch} rows")
    try:
        result = sft.run(settings(config, chosen, plan, data), events)
    except TinyGPTError:
        if not (config.out / _pieces.QUICKSTART_MARK).exists():  # nothing has begun, and --force goes by that
            data.unlink()
            kept.unlink()
        raise
    if result.status == "interrupted":
        raise Interrupted(
            f"interrupted at step {result.step} of {plan.steps}", hint="begin anew with --force"
        )
    events.note("4/5 measuring base, base with examples, and adapter on the rows kept apart")
    adapter = config.out / "run" / "final"
    scored, losses = measure(contestants(Path(chosen.path), adapter, train[:SHOTS]), kept, held_out)
    tuned = LocalEndpoint.open(Path(chosen.path), adapter, events=events)
    write_rows(config.out / "rows.jsonl", scored)
    events.note("5/5 writing the project")
    files.write_json(where, project)
    return told | {
        "rows": [(r.model_name, r.metric, r.score, r.n_examples) for r in scored],
        "verdict": [
            *worth(losses, scored),
            *([f"{GIVEN_AWAY}: that says nothing of new rows."] * given_away),
        ],
        "samples": [quickstart.answer_of(tuned, c) for c in held_out[: config.samples]],
        "adapter": str(adapter),
        "seconds": round(time.perf_counter() - began, 1),
    }


def _refuse_project(config: Config) -> None:
    """ConfigError where --project-out cannot be written, or holds something, before hours of training."""
    path = config.project_out
    if path is None or not path.exists():
        return
    if path.is_dir():
        raise ConfigError(f"--project-out {path} is a folder", hint=f"name a file: {path / PROJECT}")
    if not config.force or "models" not in files.peek_json(path):
        raise ConfigError(
            f"--project-out {path} exists",
            hint="choose another, or pass --force to replace a project of ours",
        )


def choose(config: Config, found: Survey) -> Chosen:
    """The base that was named, or the gallery's for this task and memory."""
    entries = gallery.BUILT_IN if config.gallery is None else gallery.read(config.gallery)
    if config.base != AUTO:
        entry = gallery.find(entries, config.base)
        if entry is None:
            return Chosen(id=Path(config.base).name, path=config.base, why="as given")
        return Chosen(id=entry.id, path=entry.where, why="as given, by its id in the gallery")
    entry = gallery.choose(entries, found.task, backend.memory())
    why = (
        f"the gallery's largest for {found.task} that this machine's {backend.memory() / 1e9:.0f} GB can tune"
    )
    return Chosen(id=entry.id, path=entry.where, why=why)


def base_facts(model: Any) -> recipe.Base:
    """What the resolver asks of a model."""
    from mlx.utils import tree_flatten

    weights = dict(tree_flatten(model.parameters()))
    packed = any(name.endswith(".scales") for name in weights)
    parameters = sum(
        w.size * (8 if packed and w.dtype.size == 4 and w.ndim > 1 else 1) for w in weights.values()
    )
    config = model.config
    return recipe.Base(
        parameters=parameters, context=config.max_position_embeddings, layers=config.num_hidden_layers,
        width=config.hidden_size, packed=packed, noise=getattr(model, "packs", True),
    )  # fmt: skip


def machine() -> recipe.Machine:
    """This machine."""
    dtype = backend.setup().default_dtype
    return recipe.Machine(
        memory=backend.memory(), gflops=backend.measure_gflops(dtype=dtype),
        value_bytes=4 if dtype == "float32" else 2,
    )  # fmt: skip


def settings(config: Config, chosen: Chosen, plan: Plan, data: Path) -> sft.Config:
    """The tuning run of a plan."""
    knobs = {"rank": plan.rank, "alpha": plan.alpha, "targets": plan.targets}
    packed: dict[str, Any] = {"qlora": True} if plan.qlora else {}
    return sft.Config(
        base=Path(chosen.path), data=(data,), out=config.out / "run", adapter=Pick(plan.adapter, knobs),
        steps=plan.steps, batch=plan.batch, context=plan.context, lr=plan.lr, neftune_alpha=plan.neftune,
        schedule=Pick("cosine", {"warmup": 0.05}), eval_every=max(1, plan.steps // 5), keep=1,
        seed=config.seed, force=True, lock=False, **packed,
    )  # fmt: skip


def contestants(base: Path, adapter: Path, shots: list[Conversation]) -> Iterator[tuple[str, Any]]:
    """Who is measured: the base as it was under the adapter, the same with examples, the adapter. One model
    is in memory at a time."""
    endpoint = LocalEndpoint.open(base, packing=_pieces.packing_of(adapter))
    yield "base", endpoint
    yield "base + examples", FewShot(endpoint, shots)
    del endpoint
    yield "adapter", LocalEndpoint.open(base, adapter)


def measure(
    contestants: Iterator[tuple[str, Any]], kept: Path, held_out: list[Conversation]
) -> tuple[list[EvalRow], dict[str, list[float]]]:
    """Exact match and answer loss of each contestant, and the loss of every held-out row."""
    marked = all(quickstart.MARK in quickstart.last_answer(c)[1]["content"] for c in held_out)
    exact = exact_match.Config(
        path=kept, name="held_out", after=quickstart.MARK if marked else "", max_tokens=256
    )
    examples = exact_match.load(exact)
    scored: list[EvalRow] = []
    losses: dict[str, list[float]] = {}
    for name, one in contestants:
        one.name = name
        losses[name], more = answer_nats(one, held_out)
        scored += more + exact_match.score(one, examples, exact).rows
        del one  # before the next one is opened
    return scored, losses


def project_of(config: Config, chosen: Chosen, folder: Path) -> dict[str, Any]:
    """The content of tinygpt.project.json in `folder`: what the specialist is made of, how it is gated."""

    def seen(path: Path) -> str:
        return Path(os.path.relpath(path, folder)).as_posix()

    local = seen(Path(chosen.path)) if Path(chosen.path).exists() else ""
    major, minor = tinygpt.__version__.split(".")[:2]
    return {
        "name": config.data.name.split(".")[0],
        "tinygpt_version": f">={major}.{minor}",
        "models": [
            {"id": chosen.id, "path": local or chosen.path, "role": "base"},
            {
                "id": "adapter",
                "path": seen(config.out / "run" / "final"),
                "role": "adapter",
                "applies_to": chosen.id,
            },
        ],
        "datasets": [{"id": n, "path": seen(config.out / f"{n}.jsonl")} for n in ("train", "held_out")],
        "eval": {
            "suites": [{"name": "exact_match", "path": seen(config.out / "held_out.jsonl")}],
            "baseline": seen(config.out / "rows.jsonl"),
        },
    }


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{math.ceil(seconds)} seconds"
