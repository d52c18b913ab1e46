"""Texts, JSON and tokens without what looks like a secret: see data/secrets.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tinygpt.data import secrets

MASK = "[SECRET]"


def masked(text: str, before: str = "") -> str:
    """A text without what looks like a secret, nor the end of one that begins in the text before it."""
    for start, end, _ in reversed(secrets.find(before + text)):
        if end > len(before):
            start, end = max(0, start - len(before)), end - len(before)
            text = f"{text[:start]}{MASK}{text[end:]}"
    return text


def masked_json(value: Any) -> Any:
    """JSON without secrets in its texts; those of a named field are judged with its name."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        found = {masked(str(k)): masked_json(v) for k, v in value.items()}
        text = {k: v for k, v in found.items() if isinstance(v, str)}
        named = {text[k]: "value" for k in ("name", "key") if k in text and "value" in text}
        for name, key in ({k: k for k in text} | named).items():
            if secrets.find(f"{name}: {json.dumps(text[key], ensure_ascii=False)}"):
                found[key] = MASK
        return found
    if not isinstance(value, list):
        return value
    listed = [masked_json(one) for one in value]
    for i, (flag, one) in enumerate(zip(value, listed[1:]), 1):  # words of a command
        if isinstance(flag, str) and flag.startswith("-") and isinstance(one, str):
            listed[i] = MASK if secrets.find(f"{flag} {json.dumps(one, ensure_ascii=False)}") else one
    return listed


def spelled(pieces: Sequence[bytes]) -> set[int]:
    """Places of the bytes of ids that spell a part of a secret."""
    text = b"".join(pieces).decode("utf-8", "surrogateescape")
    size = lambda part: len(part.encode("utf-8", "surrogateescape"))  # noqa: E731
    spans = [(size(text[:a]), size(text[:b])) for a, b, _ in secrets.find(text)]
    hidden: set[int] = set()
    begin = 0
    for i, piece in enumerate(pieces):
        end = begin + len(piece)
        if any(a < end and begin < b for a, b in spans):
            hidden.add(i)
        begin = end
    return hidden
