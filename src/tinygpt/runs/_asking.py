"""Rows that are to be answered: the settings, what each asks, and what a server is told."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core import config as configs
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data import rows, table
from tinygpt.data.source._asked import asked
from tinygpt.infer.config import SampleConfig
from tinygpt.runs._adapters import Adapters
from tinygpt.runs._answerers import Ask
from tinygpt.runs._constrained import Constrained
from tinygpt.runs._drafters import Speculation
from tinygpt.runs._engine import Ends
from tinygpt.runs._packs import Packs
from tinygpt.runs._predictions import Predictions, sha
from tinygpt.runs._prompt_cache import PromptCache

SHAPES = "{prompt}, {messages, tools?}; --map new=old renames columns"
LOCAL = (
    "window",
    "stop_id",
    "ignore_eos",
    "adapter",
    "kv_bits",
    "grammar",
    "json_schema",
    "regex",
    "choices",
    "quantize",
    "draft_model",
    "speculate",
    "heads",
    "prompt_cache",
    "prompt_cache_dir",
)  # what no server is told


@dataclass(frozen=True, kw_only=True)
class Config(SampleConfig, Adapters, Packs, Ends, Speculation, Constrained, PromptCache):
    """Settings of `generate`."""

    model: Annotated[Path, "A model, run or specialist directory; with --url the server's name for it."]
    data: Annotated[Path, "Rows with a prompt or messages: JSONL, JSON, CSV or Parquet."]
    out: Annotated[Path, "JSONL file of the rows with their answers; what is in it is not made again."]
    map: Annotated[tuple[str, ...], "Columns to rename, new=old,...; old may be a.b."] = ()
    out_field: Annotated[str, "Column of the answer; beside it, _NAME has what is told of it."] = "output"
    chat: Annotated[bool, "Take a text prompt as what a user says; else it is continued as it stands."] = (
        False
    )
    system: Annotated[str, "System prompt of conversations that have none; implies --chat."] = ""
    n: Annotated[int, "Answers to each row, a line each."] = 1
    max_tokens: Annotated[int, "Longest answer in tokens."] = 256
    temperature: Annotated[float, "0: always the likeliest token."] = 0.0
    seed: Annotated[int | None, "Same seed, same answers."] = 0
    batch: Annotated[int, "Answers written together; with --url requests made at once."] = 32
    unordered: Annotated[bool, "Write answers as they come, not in the order of the rows."] = False
    url: Annotated[str, "An OpenAI-compatible server that answers, as http://127.0.0.1:8080/v1."] = ""
    seconds: Annotated[float, "With --url: longest time for an answer."] = 600.0
    tries: Annotated[int, "With --url: how often a request is made before its row is given up."] = 6

    def __post_init__(self) -> None:
        SampleConfig.__post_init__(self)
        Adapters.__post_init__(self)
        Packs.__post_init__(self)
        Speculation.__post_init__(self)
        Constrained.__post_init__(self)
        PromptCache.__post_init__(self)
        for name in ("n", "batch", "tries", "seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"--{name} must be positive, got {getattr(self, name)}")
        if self.n > 1 and self.greedy:
            raise ConfigError(
                "--n: answers at temperature 0 would be the same one", hint="raise --temperature"
            )
        said = (name for name in LOCAL if getattr(self, name) != getattr(type(self), name))
        if self.url and (told := next(said, None)):
            raise ConfigError(f"{configs.flag(told)} says nothing to a server", hint="leave it out, or --url")
        if not self.out_field or self.out.is_dir():
            raise ConfigError(
                f"--out {self.out} and --out-field '{self.out_field}' must name file and column"
            )
        if self.out.exists() and self.data.exists() and self.out.samefile(self.data):
            raise ConfigError("--out is the file of --data", hint="name another")
        rows.renames(self.map)


@dataclass
class Count:
    """What became of the rows."""

    rows: int = 0
    written: int = 0
    kept: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    failed: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])


def asks(config: Config, out: Predictions, count: Count) -> Iterator[Ask]:
    """What is still to be answered, row by row; rows that say nothing are counted."""
    pairs = rows.renames(config.map)
    for number, read in table.records(config.data):
        count.rows += 1
        try:
            row = read()
            ask = _ask(config, number, rows.renamed(row, pairs))
            if taken := next((name for name in (out.column, out.meta) if name in row), None):
                raise ConfigError(
                    f"row {number} has a column '{taken}' already", hint="name the answer's with --out-field"
                )
        except DataError as error:
            count.bad.append((number, error.message))
            continue
        row_sha = sha(row)
        for sample in range(config.n):
            if out.has(number, sample, row_sha):
                count.kept += 1
                continue
            seed = seed_of(config.seed or 0, number, sample)
            yield dataclasses.replace(ask, sample=sample, seed=seed, row=row, sha=row_sha)


def _ask(config: Config, number: int, row: Any) -> Ask:
    """A row as what is asked; DataError says what does not fit."""
    blank = Ask(number=number, sample=0, row={}, sha="", seed=0)
    text = row.get("prompt") if isinstance(row, dict) and "messages" not in row else None
    if isinstance(text, str) and not (config.chat or config.system):
        return dataclasses.replace(blank, text=text)
    found = asked(row)
    messages = list(found.prompt)
    raw = list(row["messages"][: len(messages)]) if "messages" in row else list(messages)
    if config.system and messages[0]["role"] != "system":
        first = {"role": "system", "content": config.system}
        messages, raw = [first, *messages], [first, *raw]
    return dataclasses.replace(blank, messages=messages, raw=raw, tools=found.tools)


def seed_of(seed: int, number: int, sample: int) -> int:
    """A seed for each answer, whatever the others are."""
    digest = hashlib.blake2b(f"{seed}:{number}:{sample}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1  # what servers take as a signed number, too


def fields(config: SampleConfig, model: str) -> dict[str, Any]:
    """What a server is told with every row: fields of OpenAI's API, and others where they were changed."""
    body: dict[str, Any] = {
        "model": model, "max_tokens": config.max_tokens, "temperature": config.temperature,
        "top_p": config.top_p,
    }  # fmt: skip
    plain = {*body, "seed", "logit_bias", "window", "sinks"}
    for f in (f for f in dataclasses.fields(SampleConfig) if f.name not in plain):
        if (value := getattr(config, f.name)) != f.default:
            body[f.name] = list(value) if isinstance(value, tuple) else value
    return body | ({"logit_bias": {str(i): b for i, b in config.biases}} if config.biases else {})
