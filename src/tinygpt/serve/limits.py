"""What a server is told, and how much it lets one request ask for.

Limits that hold for every surface are kept here, before any surface sees a request: the size and depth of a
body, and how many of what it may name. A body that breaks one is a LimitError or ConfigError, which the
surface's own error form says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tinygpt.core.errors import TinyGPTError
from tinygpt.data.corrections import Corrections
from tinygpt.serve.fields import FieldError, parse

MIB = 1 << 20
FLAT, NO_BRACKETS = bytes.maketrans(b"{}", b"[]"), bytes(set(range(256)) - set(b"[]{}"))


class LimitError(TinyGPTError):
    """A body larger than this server reads."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that one request may bring. Times in seconds.

    header_time: until the head of a request is there, from its first byte or the connection. body_time: until
    its body is there. write_time: until a client takes what it is sent. idle_time: between two requests of a
    connection."""

    body_bytes: int = 32 * MIB
    header_bytes: int = 32 << 10
    depth: int = 64
    messages: int = 2048
    tools: int = 256
    stops: int = 32
    stop_letters: int = 1024
    biases: int = 1024
    answers: int = 16
    alternatives: int = 20
    prompts: int = 2048
    schema_bytes: int = 256 << 10
    connections: int = 1024
    header_time: float = 10.0
    body_time: float = 60.0
    write_time: float = 60.0
    idle_time: float = 75.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a server behaves. Surfaces read `limits`, `default_max_tokens` and `version`.

    keys: what clients must show one of; none: nobody is asked. hosts: names by which browsers may know this
    server, beside IP addresses and localhost; "*": any. origins: of pages whose scripts may use it; "*": any.
    grace: seconds that answers may still take when the server is asked to end. queue: answers that may wait.
    corrections: where those that clients send are kept; None: nowhere.
    """

    limits: Limits = field(default_factory=Limits)
    keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    grace: float = 20.0
    retry_after: int = 1
    default_max_tokens: int | None = None
    log: bool = True
    version: str = ""
    corrections: Corrections | None = None


def read_json(body: bytes, limits: Limits) -> dict[str, Any]:
    """The object of a body: FieldError where it is none, is nested too deeply, or names more than the server
    takes, by the names that all surfaces use."""
    if body.count(b"{") + body.count(b"[") > limits.depth and _depth(body, limits.depth) > limits.depth:
        raise FieldError(f"the body is nested deeper than {limits.depth}")
    data = parse(body)
    _check(data, limits)
    return data


def _check(data: Mapping[str, Any], limits: Limits) -> None:
    options = data.get("options")
    for fields in (data, options if isinstance(options, Mapping) else {}):
        _count(fields, "messages", limits.messages)
        _count(fields, "tools", limits.tools)
        _count(fields, "functions", limits.tools)
        for name in ("stop", "stop_sequences"):
            _count(fields, name, limits.stops)
            stops = fields.get(name)
            for text in stops if isinstance(stops, list) else [stops]:
                if isinstance(text, str) and len(text) > limits.stop_letters:
                    many = f"a text of '{name}' has {len(text)} letters, {limits.stop_letters} may be"
                    raise FieldError(many, param=name)
        _count(fields, "stop_token_ids", limits.stops)
        _count(fields, "logit_bias", limits.biases)
        for name in ("n", "best_of"):
            _most(fields, name, limits.answers)
        for name in ("top_logprobs", "logprobs"):
            _most(fields, name, limits.alternatives)
    for name in ("prompt", "input"):
        texts = data.get(name)
        # A list of numbers is one prompt, whose length the context bounds.
        if isinstance(texts, list) and texts and not isinstance(texts[0], int):
            _count(data, name, limits.prompts)
    for name in ("response_format", "format", "grammar", "guided_json", "guided_grammar", "guided_regex"):
        if name in data:
            _schema(name, data[name], limits)
    tools = data.get("tools")
    for tool in tools if isinstance(tools, list) else []:
        _schema("tools", tool, limits)


def _depth(body: bytes, most: int) -> int:
    """How deep objects and lists are nested, if that is at most `most`. Millions of brackets are no work:
    each pass takes away the innermost ones."""
    outside = b"".join(body.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2])
    left, depth = outside.translate(FLAT, NO_BRACKETS), 0
    while depth <= most and b"[]" in left:
        left, depth = left.replace(b"[]", b""), depth + 1
    return depth + left.count(b"[")  # what is not closed


def _count(data: Mapping[str, Any], name: str, most: int) -> None:
    value = data.get(name)
    if isinstance(value, list | dict) and len(value) > most:
        raise FieldError(f"'{name}' has {len(value)} entries, at most {most} are taken", param=name)


def _most(data: Mapping[str, Any], name: str, most: int) -> None:
    value = data.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and value > most:
        raise FieldError(f"'{name}' is {value}, at most {most} can be", param=name)


def _schema(name: str, value: Any, limits: Limits) -> None:
    size = len(value) if isinstance(value, str) else len(json.dumps(value))
    if size > limits.schema_bytes:
        many = f"'{name}' holds {size} bytes, at most {limits.schema_bytes} are compiled"
        raise FieldError(many, param=name)
