"""Spans and events of OpenTelemetry as plain values, from OTLP's JSON and from what SDKs print."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tinygpt.core.errors import DataError

GROUPS = {
    "resourceSpans": ("scopeSpans", "instrumentationLibrarySpans", "spans"),
    "resourceLogs": ("scopeLogs", "instrumentationLibraryLogs", "logRecords"),
}


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something told of a span. `body` is that of a log record."""

    name: str
    at: float
    about: dict[str, Any] = field(default_factory=dict[str, Any])
    body: Any = None


@dataclass(frozen=True, kw_only=True)
class Span:
    """A span, or (without a name) only events of one. Times are seconds since the epoch."""

    trace: str
    span: str
    name: str = ""
    at: float = 0.0
    failed: bool = False
    about: dict[str, Any] = field(default_factory=dict[str, Any])
    events: list[Event] = field(default_factory=list[Event])

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of(value: Mapping[str, Any]) -> Span:
        """What `plain` gave."""
        given: dict[str, Any] = {**value, "events": [Event(**one) for one in value["events"]]}
        return Span(**given)


def spans(value: Any) -> Iterator[Span]:
    """All spans and log records of a value: an export, or one of them by itself. DataError where there is
    none in it."""
    if not isinstance(value, dict):
        raise DataError("it is no JSON object")
    grouped = False
    for outer, (middle, older, inner) in GROUPS.items():
        for group in value.get(outer) or value.get(_snake(outer)) or ():
            grouped = True
            for scope in group.get(middle) or group.get(_snake(middle)) or group.get(older) or ():
                for one in scope.get(inner) or scope.get(_snake(inner)) or ():
                    yield _one(one)
    if not grouped:
        yield _one(value)


def _one(value: Any) -> Span:
    if not isinstance(value, dict):
        raise DataError("a span must be an object")
    context = value.get("context") or {}
    trace = _id(value.get("traceId") or value.get("trace_id") or context.get("trace_id"))
    if not trace:
        raise DataError("a span without a trace's id")
    id = _id(value.get("spanId") or value.get("span_id") or context.get("span_id"))
    about = _attributes(value.get("attributes"))
    if "body" in value or "logRecord" in value:
        return Span(trace=trace, span=id, events=[_event(value, about)])
    status = value.get("status") or {}
    code = status.get("code", status.get("status_code")) if isinstance(status, dict) else status
    return Span(
        trace=trace, span=id, name=str(value.get("name") or "span"),
        at=_time(value, "startTimeUnixNano", "start_time_unix_nano", "start_time"),
        failed=code in (2, "2", "ERROR", "STATUS_CODE_ERROR"), about=about,
        events=[_event(one, _attributes(one.get("attributes"))) for one in value.get("events") or ()],
    )  # fmt: skip


def _event(value: Mapping[str, Any], about: dict[str, Any]) -> Event:
    name = value.get("name") or value.get("eventName") or value.get("event_name") or about.get("event.name")
    at = _time(
        value, "timeUnixNano", "time_unix_nano", "observedTimeUnixNano", "timestamp", "observed_timestamp"
    )
    return Event(name=str(name or ""), at=at, about=about, body=_any(value.get("body")))


def _attributes(given: Any) -> dict[str, Any]:
    """Attributes as OTLP lists them, or as a plain object."""
    if isinstance(given, list):
        given = {one.get("key"): one.get("value") for one in given if isinstance(one, dict)}
    pairs = given.items() if isinstance(given, dict) else ()
    return {str(k): _any(v) for k, v in pairs}


def _any(value: Any) -> Any:
    """OTLP's AnyValue as what it holds; any other value as it is."""
    if not isinstance(value, dict) or len(value) != 1:
        return value
    ((kind, inner),) = value.items()
    kind = _snake(kind)
    if kind in ("string_value", "bool_value", "double_value", "bytes_value"):
        return inner
    if kind == "int_value":
        return int(inner)
    if kind == "array_value":
        return [_any(one) for one in (inner or {}).get("values") or ()]
    if kind == "kvlist_value":
        return {one["key"]: _any(one.get("value")) for one in (inner or {}).get("values") or ()}
    return value


def _time(value: Mapping[str, Any], *names: str) -> float:
    """Seconds since the epoch, of nanoseconds or of a date; 0 for what is neither."""
    found = str(next((value[name] for name in names if value.get(name)), 0))
    if found.replace(".", "", 1).isdigit():
        return float(found) / 1e9 if float(found) > 1e12 else float(found)
    try:
        return datetime.datetime.fromisoformat(found).timestamp()
    except ValueError:
        return 0.0


def _id(value: Any) -> str:
    return str(value or "").removeprefix("0x")


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
