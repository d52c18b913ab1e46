"""Rows: recognising the shape of each, making it a conversation, and saying exactly what is wrong with it.

A file holds rows as `data/table.py` says (JSON lines, a JSON array, Parquet, CSV). Seven shapes are known;
keys beyond them are ignored:

    {"messages": [...], "tools": [...]?}               a conversation as OpenAI writes it
    {"conversations": [...], "system"?, "tools"?}      ShareGPT's: messages of {"from", "value"}
    {"prompt", "completion"}                           one question, one answer, or lists of messages
    {"instruction", "input"?, "response" | "output"}   the input follows the instruction after a blank line
    {"question", "answer"}
    {"text"}                                           plain text

A "system" may come beside a question. `--map new=old` renames columns before that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tinygpt.core.errors import ConfigError, DataError, nearest
from tinygpt.data import table
from tinygpt.data.message import Message, json_of, kind_of, text_of, to_message
from tinygpt.data.message import to_call as to_call  # what templates and suites need of a row

T = TypeVar("T")

PAIRS = (
    ("prompt", "completion"),
    ("instruction", "response"),
    ("instruction", "output"),
    ("question", "answer"),
)
TALKS = ("messages", "conversations")
COLUMNS = (*TALKS, *dict.fromkeys(key for pair in PAIRS for key in pair), "text", "input", "system", "tools")
SHAPES = (
    "{messages, tools?}, {conversations}, {prompt, completion}, "
    "{instruction, input?, response | output}, {question, answer}, {text}"
)


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """What every trainable row becomes. A message is {role, content} and, for an assistant, tool_calls:
    a list of {"name": str, "arguments": dict}. `tools` are JSON schemas as OpenAI writes them, or None.
    `unlearned` are the numbers, among the assistant's messages, of those that are only context."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    unlearned: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReadReport:
    """How reading went. Bad rows are left out and counted; the first three are kept as (line, reason).
    `unit` is what the numbers count: lines of JSONL, rows of a table."""

    n_rows: int
    n_used: int
    n_bad: int
    first_bad: tuple[tuple[int, str], ...] = ()
    unit: str = "line"

    def sentence(self, what: str = "rows") -> str:
        """The report for people: one line, with the reasons."""
        if not self.n_bad:
            return f"{self.n_used} {what}"
        reasons = "; ".join(f"{self.unit} {line}: {reason}" for line, reason in self.first_bad)
        return f"{self.n_used} of {self.n_rows} {what} used, {self.n_bad} left out: {reasons}"


def read(
    path: Path, convert: Callable[[Any], T], *, strict: bool = False, known: str = SHAPES
) -> tuple[list[T], ReadReport]:
    """Every row of a file, converted. Rows for which `convert` raises DataError are left out and counted.

    DataError: the file is missing, empty or not UTF-8; no row is usable; or, with `strict`, any row is bad.
    `known` are the shapes that `convert` takes, for the hint.
    """
    bad: list[tuple[int, str]] = []
    used = list(each(path, convert, bad, strict=strict, known=known))
    return used, ReadReport(
        n_rows=len(used) + len(bad), n_used=len(used), n_bad=len(bad), first_bad=tuple(bad[:3]),
        unit=table.unit(path),
    )  # fmt: skip


def each(
    path: Path,
    convert: Callable[[Any], T],
    bad: list[tuple[int, str]],
    *,
    strict: bool = False,
    known: str = SHAPES,
) -> Iterator[T]:
    """The rows of `read` one by one, for files larger than memory; what is left out is added to `bad`."""
    n_used, unit = 0, table.unit(path)
    for number, row in table.records(path):
        try:
            found = convert(row())
        except DataError as error:
            if strict:
                raise DataError(
                    f"{path} {unit} {number}: {error.message}", hint=error.hint or "fix the row"
                ) from error
            bad.append((number, error.message))
            continue
        n_used += 1
        yield found
    if not n_used + len(bad):
        raise DataError(
            f"{path} is empty", hint=f"put rows in it, for example one JSON object a line: {known}"
        )
    if not n_used:
        line, reason = bad[0]
        raise DataError(
            f"none of the {len(bad)} rows of {path} is usable; {unit} {line}: {reason}",
            hint=f"known shapes: {known}",
        )


def shape(row: dict[str, Any]) -> str:
    """Which shape a row has: "messages", "conversations", "prompt", "instruction", "question" or "text"."""
    for talk in TALKS:
        if talk in row:
            return talk
    for question, answer in PAIRS:
        if question in row and answer in row:
            return question
    if "text" in row:
        return "text"
    keys = ", ".join(row) or "none"
    known = {key for pair in PAIRS for key in pair} | {*TALKS, "text"}
    close = next((n for n in (nearest(key, known) for key in row if key not in known) if n), "")
    raise DataError(f"no known row shape has the keys: {keys}.{close}", hint=f"known shapes: {SHAPES}")


def columns(row: dict[str, Any]) -> str:
    """The shape of a row for people, by its columns: "{prompt, completion}"."""
    kind = shape(row)
    answer = next((a for q, a in PAIRS if q == kind and a in row), "")
    more = ("tools", "system") if kind in TALKS else ("input", "system") if answer else ()
    return "{" + ", ".join([kind, *(n for n in more if row.get(n)), *([answer] if answer else [])]) + "}"


def to_messages(row: Any) -> Conversation:
    """A row as a checked conversation with something to learn in it; DataError says what does not fit."""
    kind = shape(_object(row))
    if kind == "text":
        raise DataError(
            "a row of plain text has no question and answer", hint="train on it with the text source"
        )
    if kind in TALKS:
        given, first = _listed(row[kind], kind), 0
        messages = [to_message(m, f"{kind}[{i}]") for i, m in enumerate(given)]
        tools = _tools(row.get("tools"))
    else:
        answer = next(a for q, a in PAIRS if q == kind and a in row)
        given, first = _pair(row, kind, answer)
        messages = [to_message(m, where) for m, where in given]
        given, tools = [m for m, _ in given], _tools(row.get("tools")) if kind == "prompt" else None
    if row.get("system") and not any(m["role"] == "system" for m in messages):
        messages.insert(0, {"role": "system", "content": text_of(row["system"], "system")})
        given, first = [{}, *given], first + 1
    answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    unlearned = [n for n, i in enumerate(answers) if i < first or _weight(given[i], f"{kind}[{i}]") == 0]
    learned = [messages[i] for n, i in enumerate(answers) if n not in unlearned]
    if not any(m["content"] or m.get("tool_calls") for m in learned):
        what = "no answer has a weight" if answers and not learned else "the answer is empty"
        raise DataError(what if answers else "no message has the role 'assistant'")
    return Conversation(messages=messages, tools=tools, unlearned=tuple(unlearned))


def to_text(row: Any, field: str = "text") -> str:
    """The text of a {"text": ...} row, or of one that calls it otherwise."""
    if field not in _object(row):
        raise DataError(f"no '{field}' in the row; its keys: {', '.join(row) or 'none'}")
    return text_of(row[field], field)


def strings(row: Any, leave_out: Callable[[str], bool] = lambda key: False) -> Iterator[str]:
    """Every text in a row, in its order and at any depth, but below keys that are to be left out."""
    left = [row]
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            left += [value[key] for key in reversed(value) if not leave_out(str(key))]
        elif isinstance(value, list):
            left += reversed(value)


def whole(row: Any) -> str:
    """All that a row says, as one text: that of a text row, the messages and tools of a conversation, and of
    other rows every text in them. DataError for a row without any."""
    if set(_object(row)) & {"text"} and shape(row) == "text":
        return to_text(row)
    if isinstance(row.get("ids"), list) and "learn" in row:  # recorded tokens
        return " ".join(map(str, row["ids"]))
    try:
        found = to_messages(row)
    except DataError:
        said = "\n".join(strings(row))
        if not said:
            raise DataError(f"there is no text in the row; its keys: {', '.join(row) or 'none'}") from None
        return text_of(said, "row")
    parts = [f"{m['role']}: {m['content']}" + _calls(m.get("tool_calls")) for m in found.messages]
    return "\n\n".join([*parts, *([json.dumps(found.tools, sort_keys=True)] if found.tools else [])])


def _calls(calls: Any) -> str:
    plain = [{k: call[k] for k in ("name", "arguments")} for call in calls or []]  # ids differ, calls do not
    return "\n" + json.dumps(plain, sort_keys=True, ensure_ascii=False) if plain else ""


def renames(given: Sequence[str], known: Sequence[str] = COLUMNS) -> list[tuple[str, list[str]]]:
    """`new=old` pairs as (column, path of the old one); ConfigError for what is none."""
    found: list[tuple[str, list[str]]] = []
    for pair in given:
        new, _, old = (part.strip() for part in pair.partition("="))
        if not new or not old:
            raise ConfigError(f"--map {pair} is no new=old", hint="such as --map prompt=query")
        if new not in known:
            raise ConfigError(
                f"--map {pair}: no shape has a column '{new}'.{nearest(new, known)}", hint=f"shapes: {SHAPES}"
            )
        if new in (name for name, _ in found):
            raise ConfigError(f"--map gives '{new}' twice", hint="leave one out")
        found.append((new, old.split(".") if "." in old else [old]))
    return found


def renamed(row: Any, pairs: Sequence[tuple[str, list[str]]]) -> Any:
    """The row with its columns renamed; an old column goes, unless it is inside another one. Where there is
    none, but the new name is there already, as in one file of several, that stays. DataError, with the
    nearest names, where it has neither."""
    if not pairs:
        return row
    row, found = dict(_object(row)), dict[str, Any]()
    for new, path in pairs:
        dotted = ".".join(path)
        if dotted in row:  # a column may have a dot in its name
            path = [dotted]
        if path[0] not in row and new in row:
            continue
        value: Any = row
        for i, name in enumerate(path):
            if not isinstance(value, dict) or name not in value:
                names = list(value) if isinstance(value, dict) else []
                where = f" in '{'.'.join(path[:i])}'" if i else ""
                close = nearest(name, map(str, names)) or f" It has: {', '.join(map(str, names)) or 'none'}"
                raise DataError(f"there is no column '{name}'{where}.{close}")
            value = value[name]
        found[new] = value
    for path in (path for _, path in pairs):
        row.pop(".".join(path), None)
    return row | found


def write(path: Path, rows: Iterable[Any]) -> int:
    """Write rows as JSON lines as they come, replacing the file in one step; returns how many."""
    from tinygpt.core.files import writing

    n = 0
    with writing(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            n += 1
    return n


def _object(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"expected a JSON object, got {kind_of(row)}")
    return row


def _listed(value: Any, name: str) -> list[Any]:
    """A list of messages; a cell of a table holds it as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = table.parse(value)
    if not isinstance(value, list) or not value:
        raise DataError(f"'{name}' must be a list with at least one message")
    return value


def _pair(row: dict[str, Any], question: str, answer: str) -> tuple[list[tuple[Any, str]], int]:
    """The messages of a question and its answer, each with its place, and how many of them are the question:
    answers in there are context. Both may be lists of messages, as TRL has them."""
    asked, said = row[question], row[answer]
    if isinstance(asked, list) != isinstance(said, list):
        raise DataError(f"'{question}' and '{answer}' must both be text, or both lists of messages")
    if isinstance(asked, list):
        found = [
            (m, f"{name}[{i}]") for name in (question, answer) for i, m in enumerate(_listed(row[name], name))
        ]
        return found, len(asked)
    prompt = text_of(asked, question)
    if row.get("input"):
        prompt += "\n\n" + text_of(row["input"], "input")
    said = text_of(said, answer)
    return [
        ({"role": "user", "content": prompt}, question),
        ({"role": "assistant", "content": said}, answer),
    ], 1


def _weight(message: Any, where: str) -> float:
    """OpenAI's: 0 for an answer that is context only, otherwise 1."""
    weight = message.get("weight")
    if weight not in (None, 0, 1):
        raise DataError(f"{where}: 'weight' must be 0 or 1, got {weight!r}")
    return 1 if weight is None else weight


def _tools(value: Any) -> list[dict[str, Any]] | None:
    """A list of schemas; some data sets store it as JSON text."""
    if isinstance(value, str):
        value = table.parse(value) if value.strip() else None
    if value is None or value == []:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise DataError("'tools' must be a list of JSON schemas")
    return json_of(value, "tools")
