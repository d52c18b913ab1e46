"""What MCP servers say, as data: names, descriptions, schemas and results.

A server is somebody else's program. What it says is shown to a model and to a person, so letters that steer a
terminal or that nobody sees are taken out, and there is no more of it than can be read. What it says of its
tools' effects is a hint; what it leaves out has the protocol's own defaults, which are the worse ones.
Source: the Model Context Protocol, revisions 2025-06-18 to 2026-07-28 (ToolAnnotations, CallToolResult).
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from tinygpt.agent._arguments import Checker
from tinygpt.agent.tool import Outcome
from tinygpt.core.errors import ConfigError

if TYPE_CHECKING:
    from mcp.types import CallToolResult, Tool, ToolAnnotations

LINE, DESCRIPTION, PART = 300, 4000, 1000  # letters of an error, of a tool's description, of an argument's
SCHEMA = 64 << 10  # bytes of a schema as JSON
DEEPEST = 32  # levels of a schema
LONGEST = 64  # letters of a name, as the endpoints of OpenAI and Anthropic take it
WORDS = ("description", "title", "$comment")
STEERS = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


def clean(text: str, most: int) -> str:
    """A text without letters that steer or hide, but tabs and ends of lines; a mark says that it was cut."""
    head = text[: 2 * most]
    kept = "".join(c for c in head if c in "\n\t" or unicodedata.category(c) not in STEERS)
    return kept if len(kept) <= most and len(head) == len(text) else f"{kept[:most]} [...]"


def line(text: str, most: int = LINE) -> str:
    """A text in one line."""
    return " ".join(clean(text, most).split())


def named(server: str, tool: str, taken: Collection[str]) -> str:
    """`server__tool`, in letters that every endpoint takes. The server's name is always there: a tool that
    calls itself read_file must not pass for another's, and another server must not rename this one's."""
    said = f"{_plain(server)}__{_plain(tool)}"
    if len(said) > LONGEST:
        digest = hashlib.sha256(f"{server}\0{tool}".encode("utf-8", "replace")).hexdigest()
        said = f"{said[: LONGEST - 9]}_{digest[:8]}"
    found, n = said, 2
    while found in taken:
        found, n = f"{said[: LONGEST - 1 - len(str(n))]}_{n}", n + 1
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)


def schema(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The schema of a tool's arguments, cleaned. ValueError: a model cannot be shown it, or it is none."""
    found = _schema(given, DEEPEST)
    if len(json.dumps(found)) > SCHEMA:
        raise ValueError(f"its schema has more than {SCHEMA} bytes")
    properties = found.get("properties", {})
    if found.get("type") != "object" or not isinstance(properties, dict):
        raise ValueError("its schema is not that of an object")
    try:
        Checker(name, found)
    except (ConfigError, RecursionError) as error:
        raise ValueError(f"its schema is none: {error}") from error
    return found


def _schema(node: Any, levels: int) -> Any:
    if levels < 0:
        raise ValueError(f"its schema has more than {DEEPEST} levels")
    if isinstance(node, Mapping):
        if any(_slow(name) for name in node.get("patternProperties") or ()):
            raise ValueError("its schema has a pattern that may take for ever")
        return {
            _sound(key): clean(value, PART) if key in WORDS and isinstance(value, str)
            else _schema(value, levels - 1) for key, value in node.items()
            if not (key == "pattern" and isinstance(value, str) and _slow(value))  # the server checks it
        }  # fmt: skip
    if isinstance(node, list):
        return [_schema(one, levels - 1) for one in node]
    return _sound(node) if isinstance(node, str) else node


def _slow(pattern: str) -> bool:
    """Whether a regular expression may need more than the square of a text's length: it repeats a group, or
    has two parts without a bound."""
    return bool(re.search(r"\)[*+{]", pattern)) or len(re.findall(r"[*+]|,\}", pattern)) > 1


def _sound(text: str) -> str:
    """A text that means something to the server, so that it cannot be cleaned."""
    if clean(text, SCHEMA) != text:
        raise ValueError(f"its schema has letters that steer or hide, in {line(text, 40)!r}")
    return text


def effects(said: ToolAnnotations | None, *, away: bool) -> frozenset[str]:
    """What a tool may do, by its server's hints; `away`: a call leaves the machine whatever they say."""
    hints = (said.read_only_hint, said.destructive_hint, said.open_world_hint) if said else ()
    if said is None or all(hint is None for hint in hints):
        return frozenset({"execute", "network"})
    network = {"network"} if away or said.open_world_hint is not False else set[str]()
    if said.read_only_hint:
        return frozenset({"read"} | network)
    return frozenset({"write"} | network | ({"delete"} if said.destructive_hint is not False else set()))


def definition(tool: Tool) -> tuple[str, str]:
    """What a tool takes and does, to see whether it is still the same; and what it says of itself."""
    said = tool.annotations.model_dump(mode="json") if tool.annotations else None
    return json.dumps([tool.input_schema, said], sort_keys=True), tool.description or ""


def outcome(result: CallToolResult) -> Outcome:
    """A result: texts, structured content that they do not say already, and a note for what is no text."""
    texts = [block.text for block in result.content if block.type == "text"]
    parts = [_part(block) for block in result.content]
    if result.structured_content is not None and not _said(result.structured_content, texts):
        parts.append(json.dumps(result.structured_content, ensure_ascii=False))
    text = "\n".join(parts)
    return Outcome(stderr=text or "it failed", exit_code=1) if result.is_error else Outcome(stdout=text)


def _part(block: Any) -> str:
    if block.type == "text":
        return block.text
    if block.type in ("image", "audio"):
        return f"[{block.type}, {_data(block.mime_type, block.data)}]"
    if block.type == "resource_link":
        return f"[resource {line(block.name, 80)}: {line(block.uri, 200)}]"
    inner = block.resource
    if (text := getattr(inner, "text", None)) is not None:
        return f"[resource {line(inner.uri, 200)}]\n{text}"
    return f"[resource {line(inner.uri, 200)}, {_data(inner.mime_type, inner.blob)}]"


def _data(kind: str | None, base64: str) -> str:
    return f"{line(kind or 'data', 60)}, {len(base64) * 3 // 4 - base64[-2:].count('='):,} bytes, not shown"


def _said(content: Any, texts: list[str]) -> bool:
    """Whether the texts are the structured content, as servers repeat it for those who read texts only."""
    plain: list[Any] = []
    for text in texts:
        try:
            plain.append(json.loads(text))
        except (ValueError, RecursionError):
            plain.append(text)
    forms = [content, *(content.values() if isinstance(content, dict) and len(content) == 1 else ())]
    return bool(texts) and any(form in (plain, plain[0], texts[0], texts) for form in forms)
