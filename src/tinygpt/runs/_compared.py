"""What `compare` asks of each model: text, questions under each condition, training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data import rows as data_rows
from tinygpt.data.bm25 import BM25
from tinygpt.data.template._spans import encode
from tinygpt.eval import conditions, paired
from tinygpt.eval.memorise import Memorised, memorised
from tinygpt.eval.suites import exact_match
from tinygpt.eval.suites._result import Examples
from tinygpt.infer.config import SampleConfig
from tinygpt.runs._local_endpoint import LocalEndpoint

Row = dict[str, Any]
BASE, FEW, RETRIEVED = "base", "base + few-shot", "retrieval"


@dataclass
class Asked:
    """What every model is asked."""

    texts: list[str] = field(default_factory=list[str])
    windows: list[paired.Window] = field(default_factory=list[paired.Window])
    rows: list[Row] = field(default_factory=list[Row])
    shots: list[Row] = field(default_factory=list[Row])
    index: BM25 | None = None
    n_passages: int = 3
    n_samples: int = 0
    memorise: list[Any] = field(default_factory=list[Any])


@dataclass
class Cell:
    """One condition of the matrix. By row: nats and tokens of the expected answer (None where the prompt does
    not fit the context), whether the answer written was right, and its F1."""

    name: str
    nats: list[float | None]
    tokens: list[int]
    right: list[bool]
    f1: list[float]
    written: list[str]


@dataclass
class Measured:
    """What a model did."""

    name: str
    loss: paired.Loss | None = None
    memorised: Memorised | None = None
    cells: list[Cell] = field(default_factory=list[Cell])
    prompts: list[str] = field(default_factory=list[str])
    samples: list[str] = field(default_factory=list[str])


def names(paths: Sequence[Path]) -> list[str]:
    """What adapters are called: the end of each path that tells it from the others, not just `final`."""
    whole = [path.resolve().parts for path in paths]
    for n in range(1, max(len(parts) for parts in whole) + 1):
        found = ["/".join(parts[-n:]) for parts in whole]
        if len(set(found)) == len(found) and not {"final", "best", BASE}.intersection(found):
            return found
    raise ConfigError("an adapter is named twice", hint="name each once")


def read_rows(path: Path) -> list[Any]:
    """Training rows, conversations or plain texts."""

    def convert(row: Any) -> Any:
        if isinstance(row, dict) and data_rows.shape(row) == "text":
            return data_rows.to_text(row)
        return data_rows.to_messages(row)

    return data_rows.read(path, convert)[0]


def measure(
    endpoint: LocalEndpoint,
    asked: Asked,
    name: str,
    *,
    prompts: Sequence[str],
    context: int,
    windows: int,
    prefix: int,
    go_on: int,
    max_tokens: int,
) -> Measured:
    """Everything that is asked, of one model. The base comes first and makes the windows that all read."""
    found, base = Measured(name=name), name == BASE
    if asked.texts:
        if base:
            asked.windows = paired.windows(endpoint, asked.texts, length=context, most=windows)
        found.loss = paired.measure(endpoint, asked.windows)
    if asked.rows:
        ways: list[tuple[str, list[Row]]] = [(found.name, asked.rows)]
        if base:
            ways.append((FEW, [conditions.few_shot(row, asked.shots) for row in asked.rows]))
        elif asked.index is not None:
            near = [conditions.retrieved(row, asked.index, asked.n_passages) for row in asked.rows]
            ways.append((f"{found.name} + {RETRIEVED}", near))
        found.cells = [_cell(endpoint, name, rows, max_tokens) for name, rows in ways]
        for row, text in list(zip(asked.rows, found.cells[0].written))[: asked.n_samples]:
            found.prompts.append(row["messages"][-1]["content"])
            found.samples.append(text)
    if prompts:
        found.prompts += prompts
        found.samples += [r.text for r in endpoint.complete(list(prompts), max_tokens=max_tokens)]
    if asked.memorise:
        read = [_ids(endpoint, row) for row in asked.memorise]
        end, most = prefix + go_on, endpoint.context
        unasked = sum(len(ids) >= end and not any(learn[prefix:end]) for ids, learn in read)
        if base and unasked and endpoint.events is not None:
            endpoint.events.note(
                f"{unasked} rows go on inside their prompt after --prefix {prefix}, and sft does not learn "
                "that: a longer --prefix asks for the answers",
                level="warning",
            )
        found.memorised = memorised(
            [ids[:most] for ids, _ in read], _writer(endpoint), prefix=prefix, length=go_on
        )
    return found


def _cell(endpoint: LocalEndpoint, name: str, rows: Sequence[Row], max_tokens: int) -> Cell:
    pairs = [answer_ids(endpoint, row) for row in rows]
    fits = [i for i, (ids, _) in enumerate(pairs) if len(ids) <= endpoint.context + 1]
    scores = endpoint.token_logprobs([pairs[i][0] for i in fits]) if fits else []
    nats: list[float | None] = [None] * len(rows)
    for i, logprobs in zip(fits, scores, strict=True):
        nats[i] = -sum(value for value, learn in zip(logprobs, pairs[i][1][1:], strict=True) if learn)
    asked = Examples.of([{"id": str(i), **row} for i, row in enumerate(rows)])
    told = exact_match.score(endpoint, asked, exact_match.Config(path=Path(name), max_tokens=max_tokens))
    written = [str(one["got"]) for one in told.examples]
    expected = [row["expected"].get("content") or "" for row in rows]
    return Cell(
        name=name, nats=nats, tokens=[sum(learn) for _, learn in pairs], written=written,
        right=[bool(one["correct"]) for one in told.examples],
        f1=[conditions.f1(got, want) for got, want in zip(written, expected)],
    )  # fmt: skip


def answer_ids(endpoint: LocalEndpoint, row: Row) -> tuple[list[int], list[bool]]:
    """Ids of a conversation with its expected answer, and which of them belong to that answer and its end."""
    engine = endpoint.engine
    assert engine.template is not None
    prompt = engine.encode_chat(row["messages"], row["tools"])
    ids, learn = encode(
        engine.template.render([*row["messages"], row["expected"]], row["tools"]), engine.tokenizer
    )
    own = [i >= len(prompt) and flag for i, flag in enumerate(learn)]
    end = len(own) - own[::-1].index(True) if any(own) else 0
    if not end:
        raise DataError("a held-out row expects an empty answer", hint="leave such rows out")
    return ids[:end], own[:end]


def _ids(endpoint: LocalEndpoint, row: Any) -> tuple[list[int], list[bool]]:
    """Ids of a training row, and which of them are learned."""
    engine = endpoint.engine
    if isinstance(row, str):
        ids = engine.encode(row)
        return ids, [True] * len(ids)
    assert engine.template is not None
    return encode(engine.template.render(row.messages, row.tools), engine.tokenizer)


def _writer(endpoint: LocalEndpoint) -> Any:
    """Greedy continuations as ids; no stop id ends them early."""

    def write(prompts: list[list[int]], n: int) -> list[list[int]]:
        config = SampleConfig(temperature=0.0, max_tokens=n, seed=0)
        answers = endpoint.engine.generate_batch(prompts, config, stop_ids=(), events=endpoint.events)
        return [answer.ids for answer in answers]

    return write


def table(cells: Sequence[Cell], *, seed: int = 0) -> list[dict[str, Any]]:
    """The matrix: figures of each condition over the rows that fit under all of them, and paired differences
    to the base."""
    if not cells:
        return []
    every = [i for i in range(len(cells[0].nats)) if all(cell.nats[i] is not None for cell in cells)]
    if not every:
        raise DataError("no row fits the context under every condition", hint="use fewer shots or passages")
    found: list[dict[str, Any]] = []

    def pick(values: Sequence[Any]) -> list[float]:
        return [float(values[i]) for i in every]

    ones, base = [1.0] * len(every), cells[0]
    for cell in cells:
        tokens = pick(cell.tokens)
        figures: dict[str, Any] = {
            "condition": cell.name, "rows": len(every), "left_out": len(cell.nats) - len(every),
            "answer_loss": sum(pick(cell.nats)) / max(1.0, sum(tokens)),
            "exact": sum(pick(cell.right)) / len(every), "f1": sum(pick(cell.f1)) / len(every),
        }  # fmt: skip
        if cell is not base:
            for name, new, old, weights in (
                ("answer_loss", cell.nats, base.nats, tokens), ("exact", cell.right, base.right, ones),
                ("f1", cell.f1, base.f1, ones),
            ):  # fmt: skip
                gap = paired.difference(pick(new), pick(old), weights, seed=seed)
                figures[f"{name}_difference"] = asdict(gap) | {"clear": gap.clear}
        found.append(figures)
    return found
