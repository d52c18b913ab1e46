"""Programs that a model writes: how they are asked for, taken out of an answer, run, and counted."""

from __future__ import annotations

import ast
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tinygpt.core.config import to_dict
from tinygpt.core.errors import ConfigError, DataError, UnsupportedError
from tinygpt.core.sandbox.judge import judge
from tinygpt.core.sandbox.limits import Limits
from tinygpt.eval.endpoint import Endpoint, Prompt, Reply, Sampling
from tinygpt.eval.suites import _rows
from tinygpt.eval.suites._result import Clock, Examples, SuiteResult, mean, record, share

FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:\n```|\Z)", re.DOTALL)
MB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Code(_rows.Asking):
    """Knobs of suites that run programs."""

    data: Annotated[Path, "JSONL of the problems, also .gz."]
    prompt: Annotated[Literal["chat", "completion"], "Ask in a message, or have a text continued."] = "chat"
    n: Annotated[int, "Programs for each problem."] = 1
    k: Annotated[tuple[int, ...], "Which pass@k to tell, each at most --n."] = (1,)
    temperature: Annotated[float, "0: always the likeliest token."] = 0.0
    top_p: Annotated[float, "Draw from the likeliest tokens that have so much probability together."] = 1.0
    seed: Annotated[int, "Same seed, same programs."] = 0
    max_tokens: Annotated[int, "Longest answer in tokens."] = 512
    timeout: Annotated[float, "Seconds a program and its tests may take."] = 10.0
    memory_mb: Annotated[int, "Memory that they may take, in MB."] = 512
    workers: Annotated[int, "Programs run at once; 0: one a core."] = 0
    unsafe_no_sandbox: Annotated[bool, "Run programs without the kernel's sandbox; the rows say so."] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in {"workers": 0, "n": 1, "memory_mb": 32}.items():
            if getattr(self, name) < least:
                raise ConfigError(f"'{name}' must be at least {least}, got {getattr(self, name)}")
        if not self.k or min(self.k) < 1 or max(self.k) > self.n:
            raise ConfigError(f"--k {','.join(map(str, self.k))} must be from 1 to --n, which is {self.n}")
        if self.n > 1 and self.temperature <= 0:
            raise ConfigError(
                "--n: programs at temperature 0 would be the same one", hint="--temperature 0.8"
            )
        if self.timeout <= 0 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ConfigError("--timeout and --top-p must be positive, --temperature not negative")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """tests: Python that raises where the program is wrong; prelude: what they need and no program makes.
    begin: the code that an answer goes on from, if any; entry: the function that it is to define."""

    id: str
    asked: Prompt
    begin: str
    entry: str
    tests: str
    prelude: str
    gold: str


def pass_at_k(n: int, c: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k): the chance that one of k programs, drawn from n of which c are right, is
    right. Chen et al. 2021, arXiv:2107.03374, equation 1."""
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def examples(problems: Sequence[Problem], notes: Sequence[str]) -> Examples:
    """The problems as a suite's examples."""
    items: list[dict[str, Any]] = []
    for one in problems:
        key = "prompt" if isinstance(one.asked, str) else "messages"
        told = {name: getattr(one, name) for name in ("begin", "entry", "tests", "prelude", "gold")}
        items.append({"id": one.id, key: one.asked, **told})
    return Examples.of(items, notes)


def score(
    endpoint: Endpoint,
    given: Examples,
    config: Code,
    task: str,
    program: Callable[[dict[str, Any], str], str],
    stop: Sequence[str],
) -> SuiteResult:
    """A row for each pass@k. `program` makes of an example and an answer's text what is run."""
    clock = Clock()
    asked = [item.get("messages") or item["prompt"] for item in given.items for _ in range(config.n)]
    sampling = Sampling(temperature=config.temperature, top_p=config.top_p, seed=config.seed)
    stops = tuple(stop)[:4] if config.prompt == "completion" else ()  # servers take four
    replies = endpoint.complete(asked, max_tokens=config.max_tokens, stop=stops, sampling=sampling)
    limits = Limits(
        seconds=config.timeout, cpu_seconds=math.ceil(config.timeout), memory_bytes=config.memory_mb * MB
    )

    def run(number: int) -> dict[str, Any]:
        item, reply = given.items[number // config.n], replies[number]
        if reply.error:
            return {"verdict": "error", "message": reply.error}
        text = reply.text if config.prompt == "completion" else reply.said
        written = program(item, text)
        told = {"program": written, "got": reply.text, "n_tokens": reply.n_tokens}
        try:
            end = judge(
                written, item["tests"], prelude=item["prelude"], limits=limits,
                unsafe=config.unsafe_no_sandbox,
            )  # fmt: skip
        except UnsupportedError as error:
            raise DataError(f"problem {item['id']} cannot be judged: {error.message}") from error
        return {"verdict": end.verdict, "message": end.message, **told}

    with ThreadPoolExecutor(config.workers or os.cpu_count() or 1) as threads:
        runs = list(threads.map(run, range(len(asked))))
    found = []
    for i, item in enumerate(given.items):
        mine = slice(i * config.n, (i + 1) * config.n)
        right = sum(one["verdict"] == "ok" for one in runs[mine])
        told = {f"pass@{k}": pass_at_k(config.n, right, k) for k in config.k}
        reply = _worst(replies[mine])
        found.append(record(item["id"], right > 0, reply, n_right=right, samples=runs[mine], **told))
    verdicts = dict(Counter(one["verdict"] for one in runs).most_common())
    settings = to_dict(config) | {"notes": list(given.notes), "verdicts": verdicts}
    rows = []
    for k in config.k:
        told = {"key": f"pass@{k}", "settings": settings, "sampling": sampling}
        of = share if config.n == 1 else mean
        rows.append(of(endpoint, task, f"pass@{k}", found, clock.seconds(), given.version, **told))
    return SuiteResult(rows=rows, examples=found)


def _worst(replies: Sequence[Reply]) -> Reply:
    """One that did not come, else one that was cut off, else the first."""
    order = {"error": 0, "length": 1}
    return min(replies, key=lambda reply: order.get("error" if reply.error else reply.finish_reason, 2))


def block(text: str, wanted: str = "") -> str:
    """The code of an answer: its first fenced block in which `wanted` stands, else its first block, else all
    of it."""
    found = FENCE.findall(text)
    return next((one for one in found if wanted in one), found[0] if found else text)


def cut(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the stops."""
    ends = [at for one in stop if (at := text.find(one)) >= 0]
    return text[: min(ends)] if ends else text


def parsing(before: str, text: str) -> str:
    """`before` and as many lines of the text as make Python together; all of them where none do."""
    lines = text.split("\n")
    for n in range(len(lines), 0, -1):
        whole = before + "\n".join(lines[:n])
        try:
            ast.parse(whole)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return whole + "\n"
    return before + text + "\n"
