"""Spans of generative models by OpenTelemetry's semantic conventions, as OTLP's JSON or a span a line.

Read are the conventions of 1.37 and later (`gen_ai.input.messages`, `gen_ai.output.messages`,
`gen_ai.system_instructions`, `gen_ai.tool.definitions`, on the span or on the event
`gen_ai.client.inference.operation.details`); of 1.28 to 1.36 (an event for each message,
`gen_ai.user.message` to `gen_ai.choice`, of the span or as log records beside it); of 1.27 and before (the
events or attributes `gen_ai.prompt` and `gen_ai.completion`); and OpenLLMetry's numbered attributes
(`gen_ai.prompt.0.role`, `llm.request.functions.0.name`).

Spans of one trace belong together, wherever they are; what was evaluated (`gen_ai.evaluation.result`) is a
reward, the agent's name the task. Of spans that each hold the history so far, the last one is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.data.traces import _values
from tinygpt.data.traces._chains import Chains
from tinygpt.data.traces._spans import Event, Span, spans
from tinygpt.data.traces._spool import Spool
from tinygpt.data.traces._trace import (
    ANSWERED,
    UNKNOWN,
    Bad,
    Message,
    Trace,
    masked,
    messages_of,
    number,
    tools_of,
)
from tinygpt.data.traces._values import parsed

DETAILS, EVALUATION = "gen_ai.client.inference.operation.details", "gen_ai.evaluation.result"
SAID = re.compile(r"gen_ai\.(system|user|assistant|tool)\.message")
ENDS = {"stop": ANSWERED, "tool_call": ANSWERED, "tool_calls": ANSWERED, "function_call": ANSWERED}
CHATS = ("chat", "text_completion", "completion", "generate_content")
MARKS = ("resourceSpans", "resourceLogs", "resource_spans", "resource_logs")


def knows(value: Any) -> bool:
    """Whether a value is an export, a span or a log record."""
    if not isinstance(value, dict):
        return False
    named = "traceId" in value or "trace_id" in value or "trace_id" in (value.get("context") or ())
    return any(mark in value for mark in MARKS) or (named and "attributes" in value)


def read(paths: Sequence[Path], bad: Bad, *, score: str = "") -> Iterator[Trace]:
    """The conversations of all traces, in the order of their first spans. `score` is an attribute of a span
    that is a reward."""
    with contextlib.closing(Spool()) as kept:
        traces: dict[str, list[int]] = {}
        for path in paths:
            for span in _each(path, bad):
                traces.setdefault(span.trace, []).append(kept.add({"place": str(path), **span.plain()}))
        chains = Chains()
        for numbers in traces.values():
            for trace in _traces([kept[i] for i in numbers], lambda place, why: None, score):
                chains.add(trace.messages)
        for numbers in traces.values():
            for trace in _traces([kept[i] for i in numbers], bad, score):
                if not chains.goes_on(trace.messages):
                    yield masked(trace)


def _each(path: Path, bad: Bad) -> Iterator[Span]:
    """Spans of a file that say anything of a generative model."""
    n = n_ours = 0
    try:
        for place, value in _values.values(path):
            try:
                for span in spans(value()):
                    n += 1
                    if any(n.startswith("gen_ai.") for n in (*span.about, *(e.name for e in span.events))):
                        n_ours += 1
                        yield span
            except (DataError, AttributeError, TypeError, KeyError, ValueError) as error:
                bad(place, error.message if isinstance(error, DataError) else "it is no span")
    except DataError as error:
        bad(str(path), _values.why(path, error))
    if n and not n_ours:
        bad(str(path), "no span says anything by the conventions for generative models (gen_ai.*)")


def _traces(given: Sequence[dict[str, Any]], bad: Bad, score: str) -> Iterator[Trace]:
    """The conversations of one trace, from the first."""
    merged: dict[str, Span] = {}
    place = given[0]["place"]
    for value in given:
        span = Span.of({k: v for k, v in value.items() if k != "place"})
        other = merged.get(span.span)
        if other is not None:  # its log records lie elsewhere
            named, more = (span, other) if span.name else (other, span)
            span = Span.of({**named.plain(), "events": [*named.plain()["events"], *more.plain()["events"]]})
        merged[span.span] = span
    found: list[tuple[Span, Trace]] = []
    mute: list[str] = []
    for span in sorted(merged.values(), key=lambda one: one.at):
        try:
            trace = _conversation(span, place)
        except (DataError, AttributeError, TypeError, KeyError, ValueError) as error:
            bad(
                f"{place} span {span.span}", error.message if isinstance(error, DataError) else "odd messages"
            )
            continue
        if trace is not None:
            found.append((span, trace))
        elif span.about.get("gen_ai.operation.name", span.about.get("llm.request.type")) in CHATS:
            mute.append(span.span)
    for id in mute if not found else ():  # else another span tells what was said
        bad(f"{place} span {id}", "its messages were not recorded")
    mine = {span.span for span, _ in found}
    evaluated = [(s.span, e) for s in merged.values() for e in s.events if e.name == EVALUATION]
    agents = [str(s.about["gen_ai.agent.name"]) for s in merged.values() if s.about.get("gen_ai.agent.name")]
    for span, trace in found:
        trace.reward.update(_rewards([e for of, e in evaluated if of == span.span or of not in mine]))
        if score and (value := number(span.about.get(score))) is not None:
            trace.reward[score] = value
        name = str(span.about.get("gen_ai.agent.name") or (agents[0] if agents else ""))
        yield dataclasses.replace(trace, task=name)


def _rewards(evaluated: Sequence[Event]) -> dict[str, float]:
    found: dict[str, float] = {}
    for event in evaluated:
        value = number(event.about.get("gen_ai.evaluation.score.value"))
        if value is not None:
            found[str(event.about.get("gen_ai.evaluation.name") or "reward")] = value
    return found


def _conversation(span: Span, place: str) -> Trace | None:
    """What a span says of a chat; None where it is about something else, or tells no texts."""
    about = dict(span.about)
    for event in span.events:
        if event.name in (DETAILS, "gen_ai.content.prompt", "gen_ai.content.completion"):
            about |= event.about | (event.body if isinstance(event.body, dict) else {})
    events = sorted(
        (e for e in span.events if SAID.fullmatch(e.name) or e.name == "gen_ai.choice"), key=_when
    )
    if "gen_ai.output.messages" in about:
        asked, said = _parted(about.get("gen_ai.input.messages")), _parted(about["gen_ai.output.messages"])
    elif any(e.name == "gen_ai.choice" for e in events):
        asked = [_of_event(e) for e in events if e.name != "gen_ai.choice"]
        said = [_of_event(e) for e in events if e.name == "gen_ai.choice"]
    elif "gen_ai.completion" in about:
        asked = _listed(about.get("gen_ai.prompt"), "user")
        said = _listed(about["gen_ai.completion"], "assistant")
    elif "gen_ai.completion.0.role" in about or "gen_ai.completion.0.content" in about:
        asked, said = _numbered(about, "gen_ai.prompt."), _numbered(about, "gen_ai.completion.")
    else:
        return None
    if not said or not asked:
        raise DataError("it has no request" if said else "it has no answer")
    instructions = parsed(about.get("gen_ai.system_instructions"))
    if instructions and not any(m["role"] == "system" for m in asked):
        text = instructions if isinstance(instructions, str) else _text(instructions)
        asked.insert(0, {"role": "system", "content": text})
    reasons = about.get("gen_ai.response.finish_reasons")
    reason = said[0].pop("finish_reason", None) or (
        reasons[0] if isinstance(reasons, list) and reasons else ""
    )
    model = about.get("gen_ai.response.model") or about.get("gen_ai.request.model")
    answer = {"role": "assistant", **{k: v for k, v in said[0].items() if k != "role"}}
    return Trace(
        id=f"{span.trace}/{span.span}", place=place, messages=messages_of([*asked, answer], "messages"),
        tools=tools_of(parsed(about.get("gen_ai.tool.definitions")) or _functions(about)), reward={},
        outcome="error" if span.failed else ENDS.get(str(reason), str(reason)) if reason else UNKNOWN,
        model={"name": str(model)} if model else {},
    )  # fmt: skip


def _when(event: Event) -> float:
    return event.at


def _parted(value: Any) -> list[Message]:
    """Messages in parts; a result has a message of its own."""
    found: list[Message] = []
    for message in parsed(value) or ():
        parts = message.get("parts") or []
        if not parts and "content" in message:
            parts = [{"type": "text", "content": message["content"]}]
        results = [p for p in parts if p.get("type") == "tool_call_response"]
        calls = [p for p in parts if p.get("type") == "tool_call"]
        rest = [p for p in parts if p.get("type") not in ("tool_call_response", "tool_call", "reasoning")]
        for part in results:
            said = part.get("response", part.get("result"))
            found.append({"role": "tool", "tool_call_id": str(part.get("id") or ""), "content": _said(said)})
        if rest or calls or not results:
            one: Message = {"role": message["role"], "content": _text(rest)}
            if calls:
                known = ("id", "name", "arguments")
                one["tool_calls"] = [{k: c[k] for k in known if c.get(k) is not None} for c in calls]
            found.append(one | {k: message[k] for k in ("finish_reason",) if message.get(k)})
    return found


def _text(parts: Sequence[Mapping[str, Any]]) -> str:
    odd = next((p.get("type") for p in parts if p.get("type") != "text"), None)
    if odd is not None:
        raise DataError(f"a part of type '{odd}' cannot be learned, only text")
    return "\n".join(str(p.get("content") or "") for p in parts)


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _of_event(event: Event) -> Message:
    """The message of an event: in its body, in one attribute as JSON, or in attributes of their own."""
    told = parsed(event.body) or parsed(event.about.get("gen_ai.event.content")) or event.about
    told = told if isinstance(told, dict) else {"content": told}
    kind = SAID.fullmatch(event.name)
    inner = parsed(told.get("message"))
    said = inner if isinstance(inner, dict) else {} if inner is None else {"content": inner}
    said = {**{k: told[k] for k in ("content", "tool_calls", "finish_reason", "id") if k in told}, **said}
    found: Message = {"role": kind[1] if kind else "assistant", "content": _or_parts(said.get("content"))}
    if calls := parsed(said.get("tool_calls")):
        found["tool_calls"] = calls
    if found["role"] == "tool" and said.get("id"):
        found["tool_call_id"] = str(said["id"])
    return found | {k: said[k] for k in ("finish_reason",) if said.get(k)}


def _or_parts(value: Any) -> Any:
    """Content as text, or as OpenAI's parts where it is a list of them."""
    told = parsed(value)
    return (
        told if isinstance(told, list) and all(isinstance(p, dict) and "type" in p for p in told) else value
    )


def _listed(value: Any, role: str) -> list[Message]:
    """Messages as JSON text, or one text."""
    told = parsed(value)
    told = told if isinstance(told, list) else [told] if told else []
    return [m if isinstance(m, dict) else {"role": role, "content": str(m)} for m in told]


def _numbered(about: Mapping[str, Any], prefix: str) -> list[Message]:
    """Messages whose fields are attributes with numbers in their names."""
    nested = _nested(about, prefix)
    found: list[Message] = []
    for message in nested:
        one = {k: v for k, v in message.items() if k in ("role", "tool_call_id", "finish_reason")}
        one |= {"role": one.get("role", "assistant"), "content": _or_parts(message.get("content") or "")}
        calls = [v for _, v in sorted((int(k), v) for k, v in (message.get("tool_calls") or {}).items())]
        found.append(one | ({"tool_calls": calls} if calls else {}))
    return found


def _functions(about: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = _nested(about, "llm.request.functions.")
    return [{**one, "parameters": parsed(one.get("parameters")) or {}} for one in found]


def _nested(about: Mapping[str, Any], prefix: str) -> list[dict[str, Any]]:
    """Objects whose fields are `prefix` + number + names with dots."""
    tree: dict[str, Any] = {}
    for name, value in about.items():
        if name.startswith(prefix):
            *path, last = name.removeprefix(prefix).split(".")
            at = tree
            for part in path:
                at = at.setdefault(part, {})
            at[last] = value
    return [v for _, v in sorted((int(k), v) for k, v in tree.items() if k.isdigit() and isinstance(v, dict))]
