"""JSONL rows: reading them, recognising their shape, and saying exactly what is wrong with the bad ones.

A file holds one JSON object a line (plain, .gz or .zst). Six shapes are known; keys beyond them are ignored:

    {"messages": [...], "tools": [...]?}               a conversation
    {"prompt", "completion"}                           one question, one answer; a "system" may come first
    {"instruction", "input"?, "response" | "output"}   the input follows the instruction after a blank line
    {"question", "answer"}
    {"text"}                                           plain text, for the text source
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from tinygpt.core.errors import DataError, DependencyError, nearest

T = TypeVar("T")
Message = dict[str, Any]

PAIRS = (
    ("prompt", "completion"),
    ("instruction", "response"),
    ("instruction", "output"),
    ("question", "answer"),
)
SHAPES = (
    "{messages, tools?}, {prompt, completion}, {instruction, input?, response | output}, "
    "{question, answer}, {text}"
)
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """What every trainable row becomes. A message is {role, content} and, for an assistant, tool_calls:
    a list of {"name": str, "arguments": dict}. `tools` are JSON schemas as OpenAI writes them, or None."""

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class ReadReport:
    """How reading went. Bad rows are left out and counted; the first three are kept as (line, reason)."""

    n_rows: int
    n_used: int
    n_bad: int
    first_bad: tuple[tuple[int, str], ...] = ()

    def sentence(self) -> str:
        """The report for people: one line, with the reasons."""
        if not self.n_bad:
            return f"{self.n_used} rows"
        reasons = "; ".join(f"line {line}: {reason}" for line, reason in self.first_bad)
        return f"{self.n_used} of {self.n_rows} rows used, {self.n_bad} left out: {reasons}"


def read(path: Path, convert: Callable[[Any], T], *, strict: bool = False) -> tuple[list[T], ReadReport]:
    """Every row of a file, converted. Rows for which `convert` raises DataError are left out and counted.

    DataError: the file is missing, empty or not UTF-8; no row is usable; or, with `strict`, any row is bad.
    """
    bad: list[tuple[int, str]] = []
    used = list(each(path, convert, bad, strict=strict))
    return used, ReadReport(
        n_rows=len(used) + len(bad), n_used=len(used), n_bad=len(bad), first_bad=tuple(bad[:3])
    )


def each(
    path: Path, convert: Callable[[Any], T], bad: list[tuple[int, str]], *, strict: bool = False
) -> Iterator[T]:
    """The rows of `read` one by one, for files larger than memory; what is left out is added to `bad`."""
    n_used = 0
    for number, line in lines(path):
        try:
            found = convert(_parse(line))
        except DataError as error:
            if strict:
                raise DataError(
                    f"{path} line {number}: {error.message}", hint=error.hint or "fix the row"
                ) from error
            bad.append((number, error.message))
            continue
        n_used += 1
        yield found
    if not n_used + len(bad):
        raise DataError(f"{path} is empty", hint=f"put one JSON object on each line: {SHAPES}")
    if not n_used:
        line, reason = bad[0]
        raise DataError(
            f"none of the {len(bad)} rows of {path} is usable; line {line}: {reason}",
            hint=f"known shapes: {SHAPES}",
        )


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of every line that is not blank. A byte order mark at the start is dropped."""
    offset = 0
    with opened(path) as file:
        for number, raw in enumerate(file, 1):
            start = 3 if number == 1 and raw.startswith(b"\xef\xbb\xbf") else 0
            try:
                text = raw[start:].decode("utf-8")
            except UnicodeDecodeError as error:
                raise not_utf8(path, offset + start + error.start, number) from error
            offset += len(raw)
            if text.strip():
                yield number, text


@contextlib.contextmanager
def opened(path: Path) -> Generator[BinaryIO]:
    """A file's bytes; gzip and zstd are known by their first bytes and unpacked on the way."""
    import gzip
    import zlib

    zipped = ""
    try:
        with path.open("rb") as probe:
            first = probe.read(4)
        zipped = "gzip" if first[:2] == b"\x1f\x8b" else "zstd" if first == b"\x28\xb5\x2f\xfd" else ""
        with (
            gzip.open(path, "rb") if zipped == "gzip" else _zstd(path) if zipped else path.open("rb")
        ) as file:
            yield file  # type: ignore[misc]
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}", hint="check the path") from error
    except (EOFError, zlib.error, gzip.BadGzipFile, *_zstd_errors()) as error:
        raise DataError(
            f"{path} is a damaged {zipped} file: {error}", hint="copy or download it again"
        ) from error
    except OSError as error:
        if zipped and not error.errno:  # the library that unpacks zstd knows no other error
            raise DataError(f"{path} is a damaged {zipped} file: {error}", hint="copy it again") from error
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _zstd(path: Path) -> BinaryIO:
    """Python unpacks zstd itself from 3.14 on; before that pyarrow does."""
    try:
        from compression import zstd  # pyright: ignore[reportMissingImports]
    except ImportError:
        return io.BufferedReader(pyarrow("reading zstd files").input_stream(str(path), compression="zstd"))
    return zstd.open(path, "rb")


def _zstd_errors() -> tuple[type[Exception], ...]:
    """What Python's own zstd raises, on reading: opening looks at nothing."""
    try:
        from compression import zstd  # pyright: ignore[reportMissingImports]
    except ImportError:
        return ()
    return (zstd.ZstdError,)


def pyarrow(purpose: str) -> Any:
    """The package pyarrow; DependencyError where it is not installed."""
    try:
        import pyarrow  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DependencyError("pyarrow", "parquet", purpose) from error
    return pyarrow


def not_utf8(path: Path, offset: int, line: int) -> DataError:
    """The error for text in another encoding; `offset` counts bytes from 0, `line` from 1."""
    return DataError(
        f"{path} is not UTF-8: byte {offset}, on line {line}",
        hint="convert it: iconv -f latin1 -t utf-8 IN > OUT",
    )


def shape(row: dict[str, Any]) -> str:
    """Which shape a row has: "messages", "prompt", "instruction", "question" or "text"."""
    if "messages" in row:
        return "messages"
    for question, answer in PAIRS:
        if question in row and answer in row:
            return question
    if "text" in row:
        return "text"
    keys = ", ".join(row) or "none"
    known = {key for pair in PAIRS for key in pair} | {"messages", "text"}
    close = next((n for n in (nearest(key, known) for key in row if key not in known) if n), "")
    raise DataError(f"no known row shape has the keys: {keys}.{close}", hint=f"known shapes: {SHAPES}")


def to_messages(row: Any) -> Conversation:
    """A row as a checked conversation with something to learn in it; DataError says what does not fit."""
    kind = shape(_object(row))
    if kind == "text":
        raise DataError(
            "a row of plain text has no question and answer", hint="train on it with the text source"
        )
    if kind == "messages":
        conversation = Conversation(messages=_messages(row["messages"]), tools=_tools(row.get("tools")))
    else:
        answer = next(a for q, a in PAIRS if q == kind and a in row)
        prompt = _text(row[kind], kind)
        if row.get("input"):
            prompt += "\n\n" + _text(row["input"], "input")
        messages: list[Message] = [{"role": "user", "content": prompt}]
        if row.get("system"):
            messages.insert(0, {"role": "system", "content": _text(row["system"], "system")})
        messages.append({"role": "assistant", "content": _text(row[answer], answer)})
        conversation = Conversation(messages=messages)
    answers = [m for m in conversation.messages if m["role"] == "assistant"]
    if not any(m["content"] or m.get("tool_calls") for m in answers):
        raise DataError("the answer is empty" if answers else "no message has the role 'assistant'")
    return conversation


def to_text(row: Any, field: str = "text") -> str:
    """The text of a {"text": ...} row, or of one that calls it otherwise."""
    if field not in _object(row):
        raise DataError(f"no '{field}' in the row; its keys: {', '.join(row) or 'none'}")
    return _text(row[field], field)


def write(path: Path, rows: Iterable[Any]) -> int:
    """Write rows as JSON lines, replacing the file in one step; returns how many."""
    from tinygpt.core.files import write_text

    text = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_text(path, "".join(text))
    return len(text)


def _parse(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise DataError("not JSON that can be read: it is nested too deeply") from error
    except ValueError as error:  # a number of more digits than Python reads
        raise DataError(f"not JSON that can be read: {error}") from error


def _object(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"expected a JSON object, got {_kind(row)}")
    return row


def _messages(value: Any) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise DataError("'messages' must be a list with at least one message")
    return [_message(message, f"messages[{i}]") for i, message in enumerate(value)]


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict) or "role" not in message:
        raise DataError(f"{where} must be an object with a 'role'")
    role = message["role"]
    if role not in ROLES:
        raise DataError(
            f"{where}: unknown role {role!r}.{nearest(str(role), ROLES)}", hint=f"roles: {', '.join(ROLES)}"
        )
    result: Message = {"role": role, "content": _content(message.get("content"), f"{where}.content")}
    if message.get("tool_calls"):
        if role != "assistant" or not isinstance(message["tool_calls"], list):
            raise DataError(f"{where}: 'tool_calls' must be a list, in a message of the assistant")
        result["tool_calls"] = [
            to_call(call, f"{where}.tool_calls[{i}]") for i, call in enumerate(message["tool_calls"])
        ]
    if role in ("system", "user") and message.get("content") is None:
        raise DataError(f"{where}: a message of the {role} must have a 'content'")
    return result


def _content(value: Any, where: str) -> str:
    """Text, None (a message that only calls tools), or the list-of-parts form when all parts are text."""
    if value is None:
        return ""
    if isinstance(value, list):
        for part in value:
            if not isinstance(part, dict) or part.get("type") != "text":
                raise DataError(f"{where}: only parts of type 'text' can be learned")
        return "".join(_text(part.get("text"), where) for part in value)
    return _text(value, where)


def to_call(call: Any, where: str = "tool call") -> dict[str, Any]:
    """A tool call as {"name", "arguments": dict}, from that form or from OpenAI's.

    OpenAI's is {"function": {"name", "arguments": JSON text}}.
    """
    inner = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str) or not inner["name"]:
        raise DataError(f"{where} must be an object with a 'name'")
    arguments = inner.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = _parse(arguments or "{}")
        except DataError as error:
            raise DataError(f"{where}: the arguments are {error.message}") from error
    if not isinstance(arguments, dict):
        raise DataError(f"{where}: the arguments must be an object, got {_kind(arguments)}")
    return {"name": inner["name"], "arguments": arguments}


def _tools(value: Any) -> list[dict[str, Any]] | None:
    """A list of schemas; some data sets store it as JSON text."""
    if isinstance(value, str):
        value = _parse(value) if value.strip() else None
    if value is None or value == []:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise DataError("'tools' must be a list of JSON schemas")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"'{where}' must be text, got {_kind(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair: no text has it
        raise DataError(f"'{where}' holds half of a surrogate pair at character {error.start}") from error
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true/false", type(None): "null"}
    return names.get(type(value), "a number")
