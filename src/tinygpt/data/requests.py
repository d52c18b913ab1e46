"""Requests with the calls that serve them, from BFCL, tau-bench and conversations.

Nothing is executed: tau-bench's tasks, which are Python, are read as text. What is not a request with an
answer is given as the reason why. Sets made for evaluation spoil it where they are trained on: that is for
the caller to say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.data import rows, table
from tinygpt.data.message import Message

NOTHING = "none"  # what serves a request that no tool serves
READS = re.compile(r"(get|find|list|search|check|calculate|think|lookup)(_|$)")
KINDS = {"dict": "object", "float": "number", "tuple": "array", "long": "integer", "double": "number"}
UNPUT = re.compile(r"BFCL_v\d+_(?:memory|web_search|format_sensitivity|multi_turn)")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked, the calls that serve it in order (none: no tool does), and the tools there are."""

    query: str
    calls: tuple[dict[str, Any], ...]
    tools: Sequence[dict[str, Any]] = ()

    def tool(self) -> str:
        """The one tool that serves it, or "" where it takes several: of those, one that changes something."""
        names = list(dict.fromkeys(call["name"] for call in self.calls))
        if len(names) > 1:
            names = [name for name in names if READS.match(name.rpartition(".")[2]) is None] or names
        return NOTHING if not names else names[0] if len(names) == 1 else ""

    def row(self) -> dict[str, Any] | str:
        """It as a conversation, or why it is none."""
        if not self.calls:
            return "there is no answer in words"
        said: Message = {"role": "assistant", "content": "", "tool_calls": list(self.calls)}
        made: dict[str, Any] = {"messages": [{"role": "user", "content": self.query}, said]}
        return made | ({"tools": list(self.tools)} if self.tools else {})


def bfcl(path: Path) -> Iterator[Request | str]:
    """The questions of BFCL's data: a file with its answers in possible_answer/ beside it, or a folder of
    them. Of an argument with several right values the first is taken. Conversations need the harness's own
    state."""
    folder = next((f for f in (path / "data", path / "bfcl_eval" / "data") if f.is_dir()), path)
    found = [path] if path.is_file() else sorted(folder.glob("BFCL_v*.json"))
    if not found:
        raise DataError(
            f"there is no data of BFCL in {path}", hint="give bfcl_eval/data, or one of its files"
        )
    for file in found:
        if UNPUT.match(file.name):
            if path.is_file():
                raise DataError(f"{file.name} holds no single requests", hint="give another file")
            continue
        beside = file.parent / "possible_answer" / file.name
        answers = {row["id"]: row.get("ground_truth") for row in _lines(beside)} if beside.is_file() else None
        if answers is None and "irrelevance" not in file.name:
            if path.is_file():
                raise DataError(f"there is no {beside}, which would hold the answers")
            continue  # live_relevance: any call at all is right
        for row in _lines(file):
            yield _bfcl(row, [] if answers is None else answers.get(row.get("id")))


def _bfcl(row: Mapping[str, Any], answer: Any) -> Request | str:
    try:
        turns = row["question"]
        messages = [m for turn in turns for m in turn]
        asked = [m["content"] for m in messages if m["role"] == "user"]
        if len(asked) != 1:
            return "several turns"
        if not isinstance(answer, list):
            return "no reference answer"
        calls = tuple(
            {"name": name, "arguments": {k: v[0] for k, v in given.items() if v and v[0] != ""}}
            for one in answer
            for name, given in one.items()
        )
        tools = [_schema(tool) for tool in row.get("function") or ()]
    except (KeyError, TypeError, AttributeError, IndexError):
        return "not as BFCL writes it"
    return Request(query=asked[0].strip(), calls=calls, tools=tools)


def _schema(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A function as OpenAI writes it: BFCL has Python's names of types."""

    def typed(value: Any) -> Any:
        if isinstance(value, Mapping):
            kind = value.get("type")
            told = {k: typed(v) for k, v in value.items()}
            return told | ({"type": KINDS[kind]} if isinstance(kind, str) and kind in KINDS else {})
        return [typed(v) for v in value] if isinstance(value, list) else value

    return {"type": "function", "function": typed(tool)}


def tau_bench(path: Path) -> Iterator[Request | str]:
    """The tasks of a clone of tau-bench or tau2-bench."""
    old = sorted(path.glob("tau_bench/envs/*/tasks*.py"))
    new = sorted(path.glob("data/tau2/domains/*/tasks.json"))
    if not old and not new:
        raise DataError(f"{path} is no clone of tau-bench or tau2-bench", hint="it has no tasks")
    for file in old:
        yield from _tau(file)
    for file in new:
        for _, row in table.records(file):
            yield _tau2(row())


def _tau(file: Path) -> Iterator[Request | str]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{file} cannot be read as Python: {error}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            told = {word.arg: word.value for word in node.keywords if word.arg}
        elif isinstance(node, ast.Dict):
            told = {str(_value(k)): v for k, v in zip(node.keys, node.values) if k is not None}
        else:
            continue
        if not {"instruction", "actions"} <= told.keys():
            continue
        query, actions = _value(told["instruction"]), told["actions"]
        calls = [_action(one) for one in actions.elts] if isinstance(actions, ast.List) else [None]
        if not isinstance(query, str) or None in calls:
            yield "not as tau-bench writes it"
        else:
            yield Request(query=query.strip(), calls=tuple(call for call in calls if call))


def _action(node: ast.expr) -> dict[str, Any] | None:
    """Action(name=..., kwargs=...), or the same as a dict."""
    if isinstance(node, ast.Call):
        told = {word.arg: _value(word.value) for word in node.keywords}
    else:
        found = _value(node)
        told = found if isinstance(found, dict) else {}
    name, given = told.get("name"), told.get("kwargs", told.get("arguments", {}))
    return {"name": name, "arguments": given} if isinstance(name, str) and isinstance(given, dict) else None


def _value(node: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else None
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _tau2(row: Any) -> Request | str:
    try:
        told = row["user_scenario"]["instructions"]
        query = told if isinstance(told, str) else told["reason_for_call"]
        actions = (row.get("evaluation_criteria") or {}).get("actions") or []
        calls = tuple(
            {"name": one["name"], "arguments": dict(one.get("arguments") or {})}
            for one in actions
            if one.get("requestor", "assistant") == "assistant"
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        return "not as tau2-bench writes it"
    return Request(query=str(query).strip(), calls=calls)


def conversation(row: Any) -> list[Request]:
    """The requests of a conversation with calls: what a user says, and the calls before the next one. An
    answer in words is served by none, where there are tools at all. DataError for what is no conversation."""
    found = rows.to_messages(row)
    made: list[Request] = []
    asked, calls, said = "", list[dict[str, Any]](), False
    for message in [*found.messages, {"role": "user", "content": ""}]:
        if message["role"] == "user":
            if asked and (calls or (said and found.tools)):
                plain = tuple({"name": c["name"], "arguments": c["arguments"]} for c in calls)
                made.append(Request(query=asked, calls=plain, tools=found.tools or ()))
            asked, calls, said = message["content"].strip(), [], False
        elif message["role"] == "assistant":
            calls.extend(message.get("tool_calls") or ())
            said = True
    return made


def tools(path: Path) -> list[dict[str, Any]]:
    """The functions of a file of schemas, {name, description, parameters} each; DataError where it is
    none."""
    text = "".join(line for _, line in table.lines(path))
    hint = "as OpenAI writes them: [{type, function}, ...]"
    try:
        found = table.parse(text)
    except DataError as error:
        raise DataError(f"{path} is {error.message}", hint=hint) from error
    listed = found.get("tools") if isinstance(found, dict) and "tools" in found else found
    if not isinstance(listed, list) or not listed:
        raise DataError(f"{path} is no list of tools", hint=hint)
    made = [one.get("function", one) if isinstance(one, dict) else {} for one in listed]
    for number, one in enumerate(made, 1):
        if not isinstance(one, dict) or not isinstance(one.get("name"), str) or not one["name"]:
            raise DataError(f"{path}: tool {number} has no name")
    return made


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """BFCL's files are JSON lines, whatever their name."""
    for number, line in table.lines(path):
        try:
            row = table.parse(line)
        except DataError as error:
            raise DataError(f"{path} line {number}: {error.message}") from error
        if isinstance(row, dict):
            yield row
