"""Quickstart: a person's own JSONL in; a trained, measured and packaged specialist out."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core import files
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError, DataError, UnsupportedError
from tinygpt.core.events import Events
from tinygpt.core.lock import gpu_lock
from tinygpt.core.rows import EvalRow, write_rows
from tinygpt.data import rows
from tinygpt.data.rows import Conversation
from tinygpt.data.template import chatml
from tinygpt.data.template._spans import Span, encode_many, join
from tinygpt.data.tokenizer._protocol import Tokenizer
from tinygpt.eval.endpoint import Endpoint
from tinygpt.eval.suites import exact_match
from tinygpt.eval.suites._result import Clock, Examples, row
from tinygpt.project import _build, specialist
from tinygpt.project._build import Recipe, Trained
from tinygpt.runs import _pieces

KNOWN = rows.SHAPES.replace(", {text}", "") + "; plain text is for: tinygpt finetune BASE --corpus FILE"
MARK = "####"  # grade-school maths rows put the final answer behind it
FEW = 200
SURE = 20  # with fewer held-out rows a share means little
FORMED = 0.6  # bits a byte, as a part of the untrained model's, that show that the form was learned


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
        if not 0 < self.minutes < math.inf or self.n_held_out < 1:
            raise ConfigError("--minutes must be positive, --n-held-out at least 1")
        if self.steps < 0 or self.seed < 0:
            raise ConfigError("--steps and --seed must not be negative")


def run(config: Config, events: Events) -> dict[str, Any]:
    """Read, split, train from scratch, measure before and after, package, show three held-out answers."""
    with gpu_lock("quickstart", wait=config.wait, enabled=config.lock, events=events):
        return _run(config, events)


def _run(config: Config, events: Events) -> dict[str, Any]:
    began = time.perf_counter()
    _pieces.refuse_inside(config.out)
    files.refuse_existing(
        config.out, force=config.force, what="quickstart directory", mark=_pieces.QUICKSTART_MARK,
        replaced=_pieces.QUICKSTART | {f"{config.data.name.split('.')[0]}-tiny": ()},
    )  # fmt: skip
    conversations, report = rows.read(config.data, rows.to_messages, strict=config.strict, known=KNOWN)
    events.note(f"1/5 {config.data}: {report.sentence()}")
    train, held_out = split(conversations, config.n_held_out)
    if len(held_out) < config.n_held_out:
        events.note(
            f"{len(held_out)} of {len(train) + len(held_out)} distinct rows are kept apart, not "
            f"{config.n_held_out}: at most a tenth is, so that enough is left to learn from"
        )
    if len(train) < FEW:
        events.note(
            f"{len(train)} rows are few: expect the model to repeat them rather than learn from them",
            "warning",
        )
    data, kept = config.out / "train.jsonl", config.out / "held_out.jsonl"
    rows.write(data, map(row_of, train))
    rows.write(kept, map(row_of, held_out))
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
    turns = max(sum(m["role"] == "user" for m in c.messages) for c in train)
    package = package_model(config, recipe, trained, found, report.sentence(), words, turns)
    return {
        "rows": [(r.model_name, r.metric, r.score, r.n_examples) for r in found],
        "verdict": words,
        "samples": [answer(trained, c) for c in held_out[:3]],
        "data": str(config.data),
        "package": str(package),
        "facts": trained.facts,
        "seconds": round(time.perf_counter() - began, 1),
    }


def split(conversations: list[Conversation], n: int) -> tuple[list[Conversation], list[Conversation]]:
    """(training, held-out: n rows, but at most a tenth), by a hash of the row's content: equal rows are never
    on both sides, the order is mixed."""
    unique = {_digest(c): c for c in conversations}
    ordered = [unique[key] for key in sorted(unique)]
    n = max(1, min(n, len(ordered) // 10))
    if len(ordered) < 2:
        raise DataError("there is only one distinct row", hint="give at least two, and better some hundreds")
    return ordered[n:], ordered[:n]


def _digest(conversation: Conversation) -> str:
    return hashlib.sha256(json.dumps(row_of(conversation), sort_keys=True).encode()).hexdigest()


def row_of(conversation: Conversation) -> dict[str, Any]:
    """A conversation as a row that every command reads."""
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
        lr=3e-3,
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
    """Loss of the answers and exact match on the held-out rows, for the untrained and the trained model."""
    golds = [last_answer(c)[1]["content"] for c in held_out]
    marked = bool(golds) and all(MARK in gold for gold in golds)
    exact = exact_match.Config(path=kept, name="held_out", after=MARK if marked else "", max_tokens=200)
    examples = exact_match.load(exact)
    found: list[EvalRow] = []
    for endpoint in (trained.untrained, trained.endpoint):
        found += answer_loss(endpoint, held_out)
        found += exact_match.score(endpoint, examples, exact).rows
    return found


def answer_loss(endpoint: Endpoint, held_out: list[Conversation]) -> list[EvalRow]:
    """How well a model predicts the answers' tokens, the very targets of training: loss (nats a token),
    perplexity, and bits a byte of the answers' text.

    The token that ends an answer is predicted too, but is no byte of it. Rows longer than the context are
    left out and counted in `n_truncated`; when none is left there are no rows of scores.
    """
    clock, tokenizer = Clock(), endpoint.tokenizer
    if tokenizer is None:
        raise UnsupportedError(f"{endpoint.name} does not show its tokens, so its loss cannot be measured")
    rendered = [chatml.render(c.messages, c.tools) for c in held_out]
    jobs: list[tuple[list[int], list[bool]]] = []
    n_bytes = n_long = 0
    for spans, (ids, learn) in zip(rendered, encode_many(rendered, tokenizer), strict=True):
        end = len(learn) - learn[::-1].index(True)  # as in training: nothing after the last answer counts
        if end > endpoint.context + 1:
            n_long += 1
            continue
        jobs.append((ids[:end], learn[:end]))
        n_bytes += sum(len(s.text.encode()) for s in spans if s.learn and not _ends(s))
    if not jobs:
        return []
    scores = endpoint.token_logprobs([ids for ids, _ in jobs])
    nats = [-p for (_, learn), row in zip(jobs, scores, strict=True) for p, on in zip(row, learn[1:]) if on]
    loss = math.fsum(nats) / len(nats)
    values = {
        "answer_loss": loss,
        "answer_perplexity": math.exp(min(loss, 700.0)),
        "answer_bits_per_byte": math.fsum(nats) / math.log(2) / n_bytes,
    }
    settings = {"n_tokens": len(nats), "n_bytes": n_bytes, "context": endpoint.context}
    version = Examples.of([row_of(c) for c in held_out]).version
    return [
        row(endpoint, "held_out", metric, value, len(jobs), clock.seconds(), version, settings=settings,
            n_truncated=n_long)
        for metric, value in values.items()
    ]  # fmt: skip


def _ends(span: Span) -> bool:
    return span.special and span.text == chatml.END


def last_answer(conversation: Conversation) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(what comes before the last answer, the last answer)."""
    messages = conversation.messages
    last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
    return messages[:last], messages[last]


def verdict(found: list[EvalRow], trained: Trained) -> list[str]:
    """What the numbers mean, in sentences that do not flatter."""
    value = {(r.model_name, r.metric): r for r in found}
    exact = value["trained", "exact_match"]
    n, right = exact.n_examples, round(exact.score * exact.n_examples)
    lines: list[str] = []
    formed = False
    if ("trained", "answer_bits_per_byte") in value:
        before, now = (value[name, "answer_bits_per_byte"].score for name in ("untrained", "trained"))
        lines.append(
            f"It predicts answers it has not seen with {now:.2f} bits a byte; "
            f"before training it was {before:.2f}."
        )
        ended = n - exact.n_failed - exact.n_truncated  # answers that stopped by themselves
        formed = now < FORMED * before and 2 * ended >= n
    else:
        lines.append("No held-out row fits the context, so how well it predicts them was not measured.")
    lines.append(f"It answers {right} of {n} held-out rows exactly right.")
    if n < SURE:
        lines.append("So few held-out rows say little; more rows would say more.")
    if exact.score < 0.05:
        learned = (
            "It has learned the form of your answers, not how to find them"
            if formed
            else "It has learned next to nothing yet"
        )
        time = _build.duration(trained.facts["training_seconds"])
        lines.append(
            f"{learned}: {trained.facts['parameters']:,} parameters and {time} are "
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
    """`answer_of` what was trained."""
    return answer_of(trained.endpoint, conversation)


def answer_of(endpoint: Endpoint, conversation: Conversation) -> dict[str, Any]:
    """One held-out row: what was asked, what was wanted, what the model says."""
    given, wanted = last_answer(conversation)
    reply = endpoint.complete([given], max_tokens=200, tools=conversation.tools)[0]
    return {
        "asked": given[-1]["content"] if given else "",
        "wanted": _shown(wanted),
        "said": reply.error or _shown(reply.message),
    }


def _shown(message: dict[str, Any]) -> str:
    """A message without markup: its text, then each tool call as a line of JSON."""
    calls = [json.dumps(rows.to_call(c), ensure_ascii=False) for c in message.get("tool_calls") or ()]
    return "\n".join([*filter(None, [message.get("content")]), *calls])


def package_model(
    config: Config, recipe: Recipe, trained: Trained, found: list[EvalRow], report: str, words: list[str],
    turns: int,
) -> Path:  # fmt: skip
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
        turns=turns,
    )
    return specialist.package(config.out / name, trained.path, card, found, prompt="", replace=config.force)
