"""Quickstart: a person's own JSONL in; a trained, measured and packaged specialist out."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core import files
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events
from tinygpt.core.lock import gpu_lock
from tinygpt.core.rows import EvalRow, write_rows
from tinygpt.data import rows
from tinygpt.data.rows import Conversation
from tinygpt.data.template import chatml
from tinygpt.data.template._spans import encode_many, join
from tinygpt.data.tokenizer._protocol import Tokenizer
from tinygpt.eval.suites import exact_match, heldout_loss
from tinygpt.project import _build, specialist
from tinygpt.project._build import Recipe, Trained

MARK = "####"  # grade-school maths rows put the final answer behind it
FEW = 200


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of a quickstart on one's own rows."""

    data: Annotated[Path, "JSONL rows: messages, prompt/completion, instruction/response or question/answer."]
    out: Annotated[Path, "Directory of everything it makes."] = Path("runs/quickstart")
    minutes: Annotated[float, "Time to train for; the number of steps follows from this machine's speed."] = (
        7.5
    )
    steps: Annotated[int, "Exact number of steps instead of --minutes; 0: use the time."] = 0
    n_held_out: Annotated[int, "Rows kept apart and measured; at most a tenth of all."] = 100
    strict: Annotated[bool, "Refuse a file with a bad row, instead of counting it."] = False
    seed: Annotated[int, "Seed of weights and order."] = 0
    force: Annotated[bool, "Replace an existing --out."] = False
    wait: Annotated[bool, "Wait for another run to free the machine."] = False
    lock: Annotated[bool, "Take the machine's lock (one heavy run at a time)."] = True

    def __post_init__(self) -> None:
        if self.minutes <= 0 or self.n_held_out < 1 or self.steps < 0:
            raise ConfigError("--minutes must be positive, --n-held-out at least 1, --steps not negative")


def run(config: Config, events: Events) -> dict[str, Any]:
    """Read, split, train from scratch, measure before and after, package, show three held-out answers."""
    with gpu_lock("quickstart", wait=config.wait, enabled=config.lock):
        return _run(config, events)


def _run(config: Config, events: Events) -> dict[str, Any]:
    began = time.perf_counter()
    files.refuse_existing(config.out, force=config.force, what="quickstart directory", mark="tokenizer")
    conversations, report = rows.read(config.data, rows.to_messages, strict=config.strict)
    events.note(f"1/5 {config.data}: {report.sentence()}")
    train, held_out = split(conversations, config.n_held_out)
    if len(train) < FEW:
        events.note(
            f"{len(train)} rows are few: expect the model to repeat them rather than learn from them",
            "warning",
        )
    data, kept = config.out / "train.jsonl", config.out / "held_out.jsonl"
    rows.write(data, map(_row, train))
    rows.write(kept, map(_row, held_out))
    events.note("2/5 training a tokenizer on them")
    recipe = choose(train)
    texts = (join(chatml.render(c.messages, c.tools)) for c in train[:20000])
    tokenizer = _build.train_tokenizer(texts, recipe, config.out / "tokenizer", events)
    recipe = with_context(recipe, train, tokenizer)
    events.note(f"3/5 training from scratch, answers only, rows of {recipe.context} tokens")
    trained = _build.train(
        data, tokenizer, config.out / "tokenizer", recipe, config.out / "run", events, minutes=config.minutes,
        steps=config.steps, seed=config.seed,
    )  # fmt: skip
    events.note("4/5 measuring on the rows kept apart")
    found = measure(trained, kept, held_out)
    write_rows(config.out / "rows.jsonl", found)
    events.note("5/5 packaging")
    words = verdict(found, trained)
    package = package_model(config, recipe, trained, found, report.sentence(), words)
    return {
        "rows": [(r.model_name, r.metric, r.score, r.n_examples) for r in found],
        "verdict": words,
        "samples": [answer(trained, c) for c in held_out[:3]],
        "package": str(package),
        "facts": trained.facts,
        "seconds": round(time.perf_counter() - began, 1),
    }


def split(conversations: list[Conversation], n: int) -> tuple[list[Conversation], list[Conversation]]:
    """(training, held-out), by a hash of the row's content: equal rows are never on both sides, the order is
    mixed."""
    unique = {_digest(c): c for c in conversations}
    ordered = [unique[key] for key in sorted(unique)]
    n = max(1, min(n, len(ordered) // 10))
    if len(ordered) < 2:
        raise DataError("there is only one distinct row", hint="give at least two, and better some hundreds")
    return ordered[n:], ordered[:n]


def _digest(conversation: Conversation) -> str:
    return hashlib.sha256(json.dumps(_row(conversation), sort_keys=True).encode()).hexdigest()


def _row(conversation: Conversation) -> dict[str, Any]:
    return {
        "messages": conversation.messages,
        **({"tools": conversation.tools} if conversation.tools else {}),
    }


def choose(train: list[Conversation]) -> Recipe:
    """A recipe for the amount and kind of data: tool calls must be copied exactly, prose wants longer
    tokens."""
    calls = any(m.get("tool_calls") for c in train for m in c.messages)
    size = sum(len(m["content"]) for c in train for m in c.messages)
    small = size < 300_000
    return Recipe(
        vocab_size=1024 if small else 1500 if calls else 4096,
        pattern="copy" if calls else "word",
        layers=4,
        width=128 if small else 192,
        heads=2 if small else 3,
        groups=2 if small else 3,
        context=256,
        batch=8,
        lr=1e-2,
        optimizer=Pick("muon"),
    )


def with_context(recipe: Recipe, train: list[Conversation], tokenizer: Tokenizer) -> Recipe:
    """The recipe with a context that holds 99 of 100 rows (64 to 1024), and as many tokens a step as
    before."""
    import dataclasses

    rendered = [list(chatml.render(c.messages, c.tools)) for c in train[:2000]]
    lengths = sorted(len(ids) for ids, _ in encode_many(rendered, tokenizer))
    wanted = lengths[min(len(lengths) - 1, int(0.99 * len(lengths)))]
    context = next((size for size in (64, 128, 256, 512) if size >= wanted), 1024)
    return dataclasses.replace(
        recipe, context=context, batch=max(4, recipe.batch * recipe.context // context)
    )


def measure(trained: Trained, kept: Path, held_out: list[Conversation]) -> list[EvalRow]:
    """Held-out loss of the answers' text and exact match, for the untrained and the trained model."""
    golds = [c.messages[-1]["content"] for c in held_out]
    marked = bool(golds) and all(MARK in gold for gold in golds)
    exact = exact_match.Config(path=kept, name="held_out", after=MARK if marked else "", max_tokens=200)
    examples = exact_match.load(exact)
    texts = heldout_loss.Examples.of(
        [{"id": str(i), "text": join(chatml.render(c.messages, c.tools))} for i, c in enumerate(held_out)]
    )
    found: list[EvalRow] = []
    for endpoint in (trained.untrained, trained.endpoint):
        found += heldout_loss.score(endpoint, texts, heldout_loss.Config(name="held_out")).rows
        found += exact_match.score(endpoint, examples, exact).rows
    return found


def verdict(found: list[EvalRow], trained: Trained) -> list[str]:
    """What the numbers mean, in sentences that do not flatter."""
    value = {(r.model_name, r.metric): r for r in found}
    bits = [value[name, "bits_per_byte"].score for name in ("untrained", "trained")]
    exact = value["trained", "exact_match"]
    right = round(exact.score * exact.n_examples)
    lines = [
        f"It predicts rows it has not seen with {bits[1]:.2f} bits a byte; "
        f"before training it was {bits[0]:.2f}.",
        f"It answers {right} of {exact.n_examples} held-out rows exactly right.",
    ]
    if exact.score < 0.05:
        lines.append(
            "So it learned the form of your answers, not how to find them: "
            f"{trained.facts['parameters']:,} parameters and {trained.facts['training_minutes']} minutes are "
            "too few for this task. Narrow the task, add rows, train longer (--minutes), or tune a "
            "pretrained base with `tinygpt sft`."
        )
    elif exact.score < 0.8:
        lines.append(
            "It has part of the task. More rows, more time (--minutes) or a narrower task should raise it."
        )
    else:
        lines.append("It has learned the task as these rows show it; try it on rows that other people wrote.")
    return lines


def answer(trained: Trained, conversation: Conversation) -> dict[str, Any]:
    """One held-out row: what was asked, what was wanted, what the model says."""
    given = conversation.messages[:-1]
    reply = trained.endpoint.complete([given], max_tokens=200, tools=conversation.tools)[0]
    wanted = join(chatml.render(conversation.messages[-1:]))
    return {"asked": given[-1]["content"], "wanted": wanted, "said": reply.text or reply.error}


def package_model(
    config: Config, recipe: Recipe, trained: Trained, found: list[EvalRow], report: str, words: list[str]
) -> Path:
    """Write the specialist's directory."""
    name = f"{config.data.name.split('.')[0]}-tiny"
    card = specialist.Card(
        name=name,
        summary=" ".join(words),
        data=f"{config.data.name}: {report}.",
        recipe={
            **recipe.facts(),
            "command": f"tinygpt quickstart --data {config.data.name} --steps {trained.steps} "
            f"--seed {config.seed}",
        },
        facts=trained.facts,
        limits=("Trained from scratch on these rows alone: it knows nothing else.",),
        use="`tinygpt chat DIRECTORY`",
    )
    return specialist.package(config.out / name, trained.path, card, found, prompt="", replace=config.force)
