"""Settings of `synthesize`, and what of them the answers depend on."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tinygpt.core import config as configs
from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data import rows, table
from tinygpt.runs import _resumed
from tinygpt.runs._adapters import Adapters
from tinygpt.runs._constrained import Constrained

OF_A_SERVER = (
    "teacher_model",
    "api",
    "api_key_env",
    "enforce",
    "rate_limit",
    "backoff",
    "timeout",
    "body",
    "price_in",
    "price_out",
)
KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}


@dataclass(frozen=True, kw_only=True)
class Config(Adapters, Constrained):
    """Settings of `synthesize`."""

    teacher: Annotated[
        str, "Who answers: the address of a server, as http://127.0.0.1:8080/v1, or a model directory."
    ]
    inputs: Annotated[Path, "Rows that ask, of any shape; an answer that they have is left out."]
    out: Annotated[Path, "JSONL file of the answered rows, which sft reads."]
    teacher_model: Annotated[str, "The server's name for the model; empty: the first that it lists."] = ""
    api: Annotated[Literal["auto", "openai", "anthropic"], "What the server speaks."] = "auto"
    api_key_env: Annotated[
        str, "Environment variable that holds the key; empty: OPENAI_API_KEY or ANTHROPIC_API_KEY."
    ] = ""
    input_field: Annotated[str, "Column that asks; rows without it are read by their shape."] = "prompt"
    map: Annotated[tuple[str, ...], "Columns to rename, new=old,...; old may be a.b."] = ()
    system: Annotated[str, "System prompt of rows that have none."] = ""
    system_file: Annotated[Path | None, "The same, from a file."] = None
    enforce: Annotated[
        Literal["auto", "response_format", "guided", "structured_outputs", "grammar", "none"],
        "How a server is told of schema or grammar; answers are checked here in any case.",
    ] = "auto"
    max_tokens: Annotated[int, "Longest answer in tokens."] = 256
    temperature: Annotated[float, "0: always the likeliest token."] = 0.0
    seed: Annotated[int, "Same seed, same answers, of a model of this machine."] = 0
    body: Annotated[str, "JSON object of further fields of a request; null takes one out."] = ""
    parallel: Annotated[int, "Rows that are answered at once."] = 8
    rate_limit: Annotated[float, "Requests a second at most; 0: no bound."] = 0.0
    retries: Annotated[
        int, "How often a request that fails is made again, and how often an answer that is wrong is."
    ] = 2
    backoff: Annotated[float, "Seconds before the first retry, doubled each time, less a random part."] = 1.0
    timeout: Annotated[float, "Seconds that an answer may take."] = 120.0
    price_in: Annotated[float, "Price of a million tokens that are read."] = 0.0
    price_out: Annotated[float, "Price of a million tokens that are written."] = 0.0
    shape: Annotated[Literal["messages", "completion"], "{messages} or {prompt, completion}."] = "messages"
    keep_cut: Annotated[bool, "Keep answers that --max-tokens cut off; else they are rejected."] = False
    licence: Annotated[str, "Licence of the answers, for the card."] = ""
    resume: Annotated[bool, "Go on where an interrupted command stopped."] = False
    retry_rejected: Annotated[bool, "With --resume: ask again what was rejected."] = False

    def __post_init__(self) -> None:
        Adapters.__post_init__(self)
        Constrained.__post_init__(self)
        for name in ("max_tokens", "parallel", "timeout"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{configs.flag(name)} must be positive, got {getattr(self, name)}")
        for name in ("temperature", "rate_limit", "retries", "backoff", "price_in", "price_out"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{configs.flag(name)} must not be negative, got {getattr(self, name)}")
        if self.system and self.system_file is not None:
            raise ConfigError("--system and --system-file both say it", hint="leave one of them out")
        told = next((n for n in OF_A_SERVER if getattr(self, n) != getattr(type(self), n)), None)
        if told and not self.remote:
            raise ConfigError(
                f"{configs.flag(told)} says nothing to a model of this machine",
                hint="leave it out, or give --teacher an address, as http://127.0.0.1:8080/v1",
            )
        if not self.remote and not self.temperature and self.retries != type(self).retries:
            raise ConfigError(
                "--retries: a model of this machine says the same again at --temperature 0",
                hint="raise --temperature, or leave --retries out",
            )
        if self.enforce not in ("auto", "none") and self.format is None:
            raise ConfigError(
                f"--enforce {self.enforce} says nothing without a schema or grammar", hint="leave it out"
            )
        if self.remote and self.adapter:
            raise ConfigError("--adapter says nothing to a server", hint="leave it out")
        if urllib.parse.urlsplit(self.teacher).username is not None:
            raise ConfigError(
                "--teacher holds a name or key before the @", hint="put the key into the environment"
            )
        refuse_idle(self, {"retry_rejected": "resume"})
        rows.renames(self.map)
        _ = self.fields

    @property
    def remote(self) -> bool:
        """Whether a server is asked."""
        return self.teacher.startswith(("http://", "https://"))

    @property
    def speaks(self) -> str:
        """The server's language."""
        if self.api != "auto":
            return self.api
        host = self.host
        return "anthropic" if host == "anthropic.com" or host.endswith(".anthropic.com") else "openai"

    @property
    def host(self) -> str:
        """The server's name and port."""
        return urllib.parse.urlsplit(self.teacher).netloc

    @property
    def key_name(self) -> str:
        """The environment variable of the key."""
        return self.api_key_env or KEYS[self.speaks]

    @property
    def fields(self) -> dict[str, Any]:
        """Further fields of a request."""
        try:
            found = table.parse(self.body) if self.body else {}
        except DataError as error:
            raise ConfigError(f"--body is {error.message}", hint='such as {"top_p": 0.9}') from error
        if not isinstance(found, dict):
            raise ConfigError("--body must be a JSON object", hint='such as {"top_p": 0.9}')
        return found

    @property
    def system_text(self) -> str:
        """The system prompt."""
        if self.system_file is None:
            return self.system
        try:
            return self.system_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"--system-file {self.system_file} cannot be read: {error}") from error

    @property
    def rejects(self) -> Path:
        """Where the rows go that have no answer to keep."""
        return self.out.with_name(self.out.stem + ".rejects.jsonl")

    def decides(self) -> dict[str, Any]:
        """The settings that the answers depend on, beside the teacher itself."""
        names = ("input_field", "map", "max_tokens", "temperature", "seed", "shape", "keep_cut")
        told: dict[str, Any] = {name: configs.to_dict(getattr(self, name)) for name in names}
        told |= {"inputs": self.inputs.name, "system": self.system_text, "body": self.fields}
        return told | {"format": self.format, "enforce": self.enforce}

    def check_files(self) -> None:
        """Before anything is asked: nothing that is there is written over."""
        if self.out.is_dir():
            raise ConfigError(f"--out {self.out} is a directory", hint="name a file")
        if self.out.suffix != ".jsonl":
            raise ConfigError(f"--out {self.out} is no .jsonl file", hint="such as labelled.jsonl")
        if not self.inputs.is_file():
            raise DataError(f"there is no file {self.inputs}", hint="check --inputs")
        _resumed.check(self.out, resume=self.resume, beside=(self.rejects,))


def wishes(format: tuple[str, Any] | None, enforce: str) -> dict[str, Any]:
    """The fields that tell a server what an answer must be; none where it has no word for that."""
    if format is None or enforce == "none":
        return {}
    kind, value = format
    if enforce == "auto":
        enforce = {"schema": "response_format", "gbnf": "grammar", "lark": "grammar"}.get(
            kind, "structured_outputs"
        )
    word = {"schema": "json", "gbnf": "grammar", "lark": "grammar"}.get(kind, kind)
    if enforce == "guided":
        return {f"guided_{word}": value}
    if enforce == "structured_outputs":
        return {"structured_outputs": {word: value}}
    if enforce == "response_format" and kind == "schema":
        told = {"name": "answer", "schema": value, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": told}}
    if enforce == "grammar" and kind in ("schema", "gbnf", "lark"):
        return {"json_schema" if kind == "schema" else "grammar": value}
    raise ConfigError(f"--enforce {enforce} has no word for a {kind}", hint="choose another, or auto")
