"""What lies beside a tokenizer.json, its settings and chat templates; and where it puts a space by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tinygpt.core.errors import DataError


def read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable JSON: {error}", hint="copy or download it again") from error
    if not isinstance(data, dict):
        raise DataError(f"{path} must hold a JSON object")
    return data


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not readable text: {error}", hint="copy or download it again") from error


def templates(said: Any) -> dict[str, str]:
    """The chat templates of a tokenizer_config.json by name; it holds one text, or a list of named ones."""
    if isinstance(said, str):
        return {"default": said}
    if not isinstance(said, list):
        return {}
    named = {t.get("name"): t.get("template") for t in said if isinstance(t, dict)}
    return {name: text for name, text in named.items() if isinstance(name, str) and isinstance(text, str)}


def template_files(file: Path, beside: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Chat templates that lie in files of their own; they go before those in tokenizer_config.json."""
    found: dict[str, str] = {}
    one, many = file.with_name("chat_template.jinja"), file.with_name("additional_chat_templates")
    old = file.with_name("chat_template.json")
    if one.is_file():
        found["default"] = _text(one)
    elif old.is_file() and not beside.get("tokenizer_config.json", {}).get("chat_template"):
        found = templates(read(old).get("chat_template"))
    if many.is_dir():
        found |= {path.stem: _text(path) for path in sorted(many.glob("*.jinja"))}
    return found


def chat_template(folder: Path) -> str | None:
    """The chat template that lies in a folder, as one of an adapter; None where there is none."""
    file = folder / "tokenizer_config.json"
    beside = {file.name: read(file)} if file.is_file() else {}
    found = template_files(folder / "tokenizer.json", beside)
    return (found or templates(beside.get(file.name, {}).get("chat_template"))).get("default")


def prefix(definition: dict[str, Any]) -> str:
    """Where the library puts a space before the first word: "never", at the "first" word of a text, or
    "always", which is after every control token too."""
    before = definition.get("normalizer") or {}
    if any(part.get("type") == "Prepend" for part in before.get("normalizers", [before])):
        return "always"
    cut = definition.get("pre_tokenizer") or {}
    for part in cut.get("pretokenizers", [cut]):
        if part.get("type") == "Metaspace":
            return part.get("prepend_scheme") or ("always" if part.get("add_prefix_space") else "never")
        if part.get("type") == "ByteLevel" and part.get("add_prefix_space"):
            return "always"
    return "never"


def without_prefix(definition: dict[str, Any]) -> dict[str, Any]:
    """The same tokenizer without a space before the first word."""
    changed = json.loads(json.dumps(definition))
    before = changed.get("normalizer")
    if before and before.get("type") == "Prepend":
        changed["normalizer"] = None
    elif before and "normalizers" in before:
        before["normalizers"] = [p for p in before["normalizers"] if p.get("type") != "Prepend"]
    cut = changed.get("pre_tokenizer") or {}
    for part in cut.get("pretokenizers", [cut]):
        if part.get("type") == "Metaspace":
            part["prepend_scheme"] = "never"
        if part.get("type") in ("Metaspace", "ByteLevel") and "add_prefix_space" in part:
            part["add_prefix_space"] = False
    return changed
