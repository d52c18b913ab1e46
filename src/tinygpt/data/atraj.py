"""Trajectories: what was said, done and found in one run of an agent or a server, as an `.atraj` file.

Version 2 is JSON lines: a header, a step a line, and an end. A line is on disk before the next thing is done,
so a crash loses at most one step. The context of the model grows by its steps:

    context = context[:step.n_kept] + step.ids

`n_kept` is shorter than the context where older turns were dropped or are written otherwise from then on. A
step that was sampled has a log-probability for each sampled id, and null for those that the template put
before them. So feeding the ids gives the log-probabilities again. Ids and texts that are secret are gone:
they are REDACTED in `ids`, [SECRET] in texts. Version 1, one JSON object, is read.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tinygpt.core.errors import DataError, nearest
from tinygpt.data import table
from tinygpt.data.masking import MASK as MASK
from tinygpt.data.masking import masked, masked_json, spelled
from tinygpt.data.message import ROLES, kind_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")
VERSION = 2
SUFFIX = ".atraj"
SEEN = 2048  # ids before a step in which a secret may begin
REDACTED = -1  # in the place of an id that spells a secret


@dataclass(frozen=True, kw_only=True)
class Header:
    """Who ran, with what. `model` has what is known of: name, path, hash, adapter_hash, tokenizer_hash,
    template_hash, packing; `sampling` the settings that are not the usual ones; `source`: agent, serve or the
    format that it was made of. `created` is ISO 8601, UTC."""

    id: str
    created: str = ""
    source: str = "agent"
    task: str = ""
    model: dict[str, str] = field(default_factory=dict[str, str])
    tools: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    tools_hash: str = ""
    sampling: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def has_its_tools(self) -> bool:
        """Whether the tools are those of their hash, as far as secrets that were taken out let that be
        said."""
        return not self.tools_hash or MASK in str(self.tools) or hash_of(self.tools) == self.tools_hash


@dataclass(frozen=True, kw_only=True)
class Step:
    """One message, and how the model met it.

    text:      as it was rendered, control tokens spelled out; "" where it is not known
    ids:       the tokens it added to the context; None where they are not known
    logprobs:  of a message that was sampled: nats for each id, None for those of the template
    calls:     [{id?, name, arguments}] of an assistant; call_id, name: which call a tool's message answers
    result:    of a tool: {stdout, stderr, exit_code, seconds, cut?}
    decision:  of a tool: {rule, allowed}: what the policy said of the call
    started:   seconds since the epoch; seconds: how long it took
    """

    role: str
    content: str
    text: str = ""
    ids: list[int] | None = None
    n_kept: int = 0
    logprobs: list[float | None] | None = None
    calls: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    name: str = ""
    call_id: str = ""
    result: dict[str, Any] | None = None
    decision: dict[str, Any] | None = None
    finish_reason: str = ""
    error: str = ""
    reward: dict[str, float] = field(default_factory=dict[str, float])
    started: float = 0.0
    seconds: float = 0.0
    redacted: bool = False

    @property
    def sampled(self) -> bool:
        return self.logprobs is not None


@dataclass(frozen=True, kw_only=True)
class End:
    """How it ended: as the loop calls it (answered, escalated, steps, budget, context, ...); `success` where
    somebody judged it, `reward` by its dimensions, `summary` what was counted."""

    outcome: str
    success: bool | None = None
    reward: dict[str, float] = field(default_factory=dict[str, float])
    summary: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Trajectory:
    """A whole file. `end` is None where the run was cut off; `n_lost` counts its lines that are not whole."""

    header: Header
    steps: list[Step]
    end: End | None
    n_lost: int = 0

    def contexts(self) -> Iterator[tuple[Step, list[int]]]:
        """Each step with the ids that the model had before it; ends where ids are not known."""
        context: list[int] = []
        for step in self.steps:
            if step.ids is None:
                return
            context = context[: step.n_kept]
            yield step, context
            context = [*context, *step.ids]


class Writer:
    """A file that grows by whole lines, readable by its owner alone. `to_bytes` gives the bytes of an id,
    by which ids that spell a secret are found; without it, the ids of a step with a secret are left out. What
    a step goes on with is looked at, too: a template may write the end of a secret again, in other tokens.
    Without `sync` a crash of the process still loses nothing that was written, one of the machine may."""

    def __init__(
        self, path: Path, to_bytes: Callable[[int], bytes] | None = None, *, sync: bool = True
    ) -> None:
        self.path, self._to_bytes, self._sync = path, to_bytes, sync
        self._file, self._context = -1, list[int]()

    @classmethod
    def begin(
        cls,
        folder: Path,
        header: Header,
        to_bytes: Callable[[int], bytes] | None = None,
        *,
        sync: bool = True,
    ) -> Writer:
        """A new file `<id>.atraj`. DataError where it is there already or cannot be written."""
        made = cls(folder / f"{header.id}{SUFFIX}", to_bytes, sync=sync)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            made._file = os.open(made.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        except OSError as error:
            raise DataError(f"{made.path} cannot be written: {error.strerror or error}") from error
        said = {name: masked_json(getattr(header, name)) for name in ("task", "tools", "sampling")}
        made._line({"atraj": VERSION} | _fields(dataclasses.replace(header, **said)))
        return made

    @classmethod
    def again(
        cls,
        path: Path,
        to_bytes: Callable[[int], bytes] | None = None,
        *,
        check: Callable[[Header], None] = lambda header: None,
    ) -> tuple[Writer, Trajectory]:
        """Go on with a file, and what was in it: a last line that is not whole, and an end, are cut off, once
        `check` has raised nothing."""
        found = read(path)
        if found.header.source == "v1":
            raise DataError(f"{path} has version 1, which nothing is added to")
        check(found.header)
        whole = path.read_bytes().splitlines(keepends=True)[: 1 + len(found.steps)]
        context: list[int] = []
        for step, before in found.contexts():
            context = [*before, *(step.ids or ())]
        made = cls.more(path, sum(map(len, whole)), to_bytes, context=context)
        return made, found

    @classmethod
    def more(
        cls,
        path: Path,
        size: int,
        to_bytes: Callable[[int], bytes] | None = None,
        *,
        context: Sequence[int] = (),
        sync: bool = True,
    ) -> Writer:
        """Go on behind the first `size` bytes of a file, which are its header and whole steps; `context`: the
        ids that they end with."""
        made = cls(path, to_bytes, sync=sync)
        made._context = list(context)
        try:
            made._file = os.open(path, os.O_WRONLY | os.O_APPEND)
            os.ftruncate(made._file, size)
        except OSError as error:
            made.close()
            raise DataError(f"{path} cannot be written: {error.strerror or error}") from error
        return made

    @property
    def size(self) -> int:
        """Bytes that are written."""
        return os.fstat(self._file).st_size

    def step(self, step: Step) -> None:
        """One more step, on disk when this returns, without its secrets."""
        before = self._context[max(0, step.n_kept - SEEN) : step.n_kept]
        self._line({"step": _fields(redacted(step, self._to_bytes, before))})
        self._context = [*self._context[: step.n_kept], *(step.ids or ())]

    def end(self, end: End) -> None:
        """The last line; the file is closed."""
        self._line({"end": _fields(dataclasses.replace(end, summary=masked_json(end.summary)))})
        self.close()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _line(self, value: dict[str, Any]) -> None:
        data = (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode(errors="replace")
        try:
            while data:
                data = data[os.write(self._file, data) :]
            if self._sync:
                os.fsync(self._file)
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror or error}") from error


def redacted(step: Step, to_bytes: Callable[[int], bytes] | None, before: Sequence[int] = ()) -> Step:
    """The step without what looks like a secret, in its texts and in its ids; `before`: those it goes on
    with."""
    pieces = [b"" if id == REDACTED or to_bytes is None else to_bytes(id) for id in before]
    bare = dataclasses.replace(
        step, text=masked(step.text, b"".join(pieces).decode("utf-8", "replace")),
        content=masked(step.content), error=masked(step.error), name=masked(step.name),
        call_id=masked(step.call_id), calls=masked_json(step.calls), result=masked_json(step.result),
        decision=masked_json(step.decision),
    )  # fmt: skip
    ids, logprobs = step.ids, step.logprobs
    if ids is not None and to_bytes is not None:
        hidden = {i - len(pieces) for i in spelled([*pieces, *map(to_bytes, ids)])}
        ids = [REDACTED if i in hidden else id for i, id in enumerate(ids)]
        if logprobs is not None:
            logprobs = [None if i in hidden else p for i, p in enumerate(logprobs)]
    elif bare != step:
        ids = logprobs = None
    bare = dataclasses.replace(bare, ids=ids, logprobs=logprobs)
    return bare if bare == step else dataclasses.replace(bare, redacted=True)


def hash_of(value: Any) -> str:
    """SHA-256 of a value as JSON, the same whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def read(path: Path) -> Trajectory:
    """A file of either version. A last line that is not whole is counted; DataError says what else is
    wrong, and where."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    lines = io.StringIO(text, newline="\n").readlines()  # a text may hold other ends of lines
    try:
        first = table.parse(lines[0]) if lines else None
    except DataError:
        first = None
    if not isinstance(first, dict) or "atraj" not in first:
        return _version_1(path, text)
    if first["atraj"] != VERSION:
        raise DataError(f"{path} has version {first['atraj']!r}, known are 1 and {VERSION}")
    header = _typed(Header, {k: v for k, v in first.items() if k != "atraj"}, f"{path}:1")
    steps: list[Step] = []
    end: End | None = None
    lost = 0
    size: int | None = 0
    for number, line in enumerate(lines[1:], 2):
        where = f"{path}:{number}"
        try:
            value = table.parse(line) if line.endswith("\n") else None
        except DataError:
            value = None
        if not isinstance(value, dict):
            if number < len(lines):
                raise DataError(f"{where} is no JSON object", hint="only the last line may be cut off")
            lost += 1
        elif "step" in value:
            steps.append(step := _step(value["step"], where))
            if step.ids is None or size is None:
                size = None  # nothing more is known of the context
            elif not 0 <= step.n_kept <= size:
                raise DataError(f"{where}: 'n_kept' is {step.n_kept} of a context of {size} ids")
            else:
                size = step.n_kept + len(step.ids)
        elif "end" in value:
            end = _typed(End, value["end"], where)
        else:
            raise DataError(f"{where} is neither a step nor an end")
    return Trajectory(header, steps, end, lost)


def _version_1(path: Path, text: str) -> Trajectory:
    """The original's: one object; ids of what users said and of answers alone, in no common context."""
    try:
        found = table.parse(text)
    except DataError as error:
        raise DataError(f"{path} is no trajectory: {error.message}") from error
    if not isinstance(found, dict) or found.get("version") != 1 or not isinstance(found.get("steps"), list):
        raise DataError(f"{path} is no trajectory", hint="a header with 'atraj', or version 1 with 'steps'")
    model = {"path": found.get("checkpoint_path"), "hash": found.get("model_fingerprint")}
    header = Header(
        id=str(found.get("id") or path.stem), source="v1", task=str(found.get("task") or ""),
        model={k: str(v) for k, v in model.items() if v},
    )  # fmt: skip
    steps: list[Step] = []
    for i, one in enumerate(found["steps"]):
        where = f"{path}: steps[{i}]"
        if not isinstance(one, dict):
            raise DataError(f"{where} must be an object, got {kind_of(one)}")
        given: dict[str, Any] = {"role": one.get("role"), "content": one.get("content") or ""}
        if call := _object(one, "tool_call", where):
            try:
                arguments = table.parse(call.get("arguments_json") or "{}")
            except (DataError, TypeError) as error:
                raise DataError(f"{where}: 'arguments_json' is not JSON") from error
            given["calls"] = [{"name": call.get("name"), "arguments": arguments}]
        if result := _object(one, "tool_result", where):
            kept = {k: result[k] for k in ("stdout", "stderr", "exit_code") if k in result}
            given |= {"name": result.get("name") or "", "result": kept}
            given["seconds"] = result.get("duration_sec") or 0.0
        if isinstance(one.get("reward"), int | float):
            given["reward"] = {"reward": float(one["reward"])}
        steps.append(_step(given, where))
    summary = _object(found, "summary", str(path))
    return Trajectory(header, steps, End(outcome=str(summary.get("outcome") or "unknown"), summary=summary))


def _object(value: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """What a key holds; nothing where it is not there."""
    found = value.get(key) or {}
    if not isinstance(found, dict):
        raise DataError(f"{where}: '{key}' must be an object, got {kind_of(found)}")
    return found


def _step(value: Any, where: str) -> Step:
    step = _typed(Step, value, where)
    if step.role not in ROLES:
        raise DataError(f"{where}: unknown role {step.role!r}", hint=f"roles: {', '.join(ROLES)}")
    if step.logprobs is not None and (step.ids is None or len(step.ids) != len(step.logprobs)):
        raise DataError(f"{where}: {len(step.logprobs)} log-probabilities for {len(step.ids or [])} ids")
    return step


def _typed(kind: type[T], value: Any, where: str) -> T:
    if not isinstance(value, dict):
        raise DataError(f"{where} must be an object, got {kind_of(value)}")
    known = list(kind.__annotations__)
    if (odd := next((key for key in value if key not in known), None)) is not None:
        raise DataError(f"{where}: unknown key '{odd}'.{nearest(odd, known)}")
    import pydantic

    try:
        return _adapter(kind).validate_json(json.dumps(value), strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise DataError(f"{where}: '{at}': {first['msg'].lower()}") from error


@functools.cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    import pydantic

    return pydantic.TypeAdapter(kind)


def _fields(value: Any) -> dict[str, Any]:
    """Its fields but those that say nothing."""
    found: dict[str, Any] = {}
    for f in dataclasses.fields(value):
        one = getattr(value, f.name)
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        if one != default or isinstance(one, bool) != isinstance(default, bool):
            found[f.name] = one
    return found
