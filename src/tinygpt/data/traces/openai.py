"""Logs of chat completions in OpenAI's form, as proxies and clients write them: a request and its answer.

    {"request": {"messages", "tools"?}, "response": {"choices"}}      the body of either may be in a "body"
    {"messages", "tools"?, "response" | "choices"}                    `response` may be the answer's text
    {"messages", "tools"?}                                            a conversation that ends in its answer

so litellm's standard payload (tools are in its `model_parameters`), OpenAI's stored completions with their
messages, and its batches. Beside them, where given: id, task, success (true, false), reward or rewards (a
number, or numbers by name), any of them in `metadata`, too. Each choice is a conversation. Of a chain of
requests, each with the history so far, the last one is read. Failed requests, streamed chunks and the
Responses API are no conversations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.errors import DataError
from tinygpt.data.traces import _values
from tinygpt.data.traces._chains import Chains
from tinygpt.data.traces._trace import (
    ANSWERED,
    UNKNOWN,
    Bad,
    Message,
    Trace,
    linked,
    masked,
    messages_of,
    number,
    rewards,
    tools_of,
)
from tinygpt.data.traces._values import parsed
from tinygpt.data.where import column

ENDS = {"stop": ANSWERED, "tool_calls": ANSWERED, "function_call": ANSWERED, "end_turn": ANSWERED}
INSIDE = ("request", "body", "kwargs")  # where what was asked may be


def knows(value: Any) -> bool:
    """Whether a value is an exchange of such a log."""
    if not isinstance(value, dict):
        return False
    return "messages" in value or any("messages" in _object(value.get(name)) for name in INSIDE)


def read(paths: Sequence[Path], bad: Bad, *, score: str = "") -> Iterator[Trace]:
    """The conversations of logs. They are read twice: first to see which go on in another. `score` is a
    column that is a reward."""
    chains = Chains()
    for trace in _each(paths, lambda place, why: None, ""):
        chains.add(trace.messages)
    for trace in _each(paths, bad, score):
        if not chains.goes_on(trace.messages):
            yield masked(trace)


def _each(paths: Sequence[Path], bad: Bad, score: str) -> Iterator[Trace]:
    for path in paths:
        try:
            for place, value in _values.values(path):
                try:
                    yield from _traces(value(), path, place, score)
                except DataError as error:
                    bad(place, error.message)
        except DataError as error:
            bad(str(path), _values.why(path, error))


def _traces(row: Any, path: Path, place: str, score: str) -> Iterator[Trace]:
    if not isinstance(row, dict):
        raise DataError("it is no JSON object")
    if row.get("error") or row.get("status") == "failure":
        raise DataError("the request failed")
    asked = next((found for name in INSIDE if "messages" in (found := _object(row.get(name)))), row)
    if "messages" not in asked:
        raise DataError("there are no 'messages' in it")
    given = parsed(asked["messages"])
    history = messages_of(given.get("data") if isinstance(given, dict) else given, "messages")
    about = _object(row.get("metadata")) | row
    reward = rewards(about.get("reward"), "reward") | rewards(about.get("rewards"), "reward")
    if score and (value := number(column(row, score))) is not None:
        reward[score] = value
    answers = _answers(row)
    if not answers:
        if not history or history[-1]["role"] != "assistant":
            raise DataError("there is no answer in it")
        answers = [(history.pop(), UNKNOWN)]
    id = next(
        (str(about[k]) for k in ("id", "request_id", "custom_id", "trace_id") if about.get(k)),
        Path(place).name,
    )
    success = about.get("success")
    model = asked.get("model") or row.get("model")
    for i, (message, outcome) in enumerate(answers):
        yield Trace(
            id=f"{id}/{i}" if len(answers) > 1 else id, place=str(path), messages=linked([*history, message]),
            tools=tools_of(_tools(row, asked)), task=str(about.get("task") or ""), outcome=outcome,
            success=success if isinstance(success, bool) else None, reward=reward,
            model={"name": str(model)} if model else {},
        )  # fmt: skip


def _answers(row: Mapping[str, Any]) -> list[tuple[Message, str]]:
    """The message and the outcome of each choice; none where nothing is said of an answer."""
    told = row.get("response")
    if isinstance(told, str) and not {"choices", "body"} & _object(told).keys():  # an answer may be JSON
        return [(messages_of([{"role": "assistant", "content": told}], "response")[0], UNKNOWN)]
    whole = _object(told) if told is not None else row
    whole = _object(whole.get("body")) if "choices" in _object(whole.get("body")) else whole
    if whole.get("error"):
        raise DataError("the request failed")
    if "choices" not in whole:
        if told is not None:
            raise DataError("the response has no 'choices'")
        return []
    if not isinstance(choices := whole["choices"], list) or not choices:
        raise DataError("there is no choice in the response")
    found: list[tuple[Message, str]] = []
    for i, choice in enumerate(choices):
        if not isinstance(_object(choice).get("message"), dict):
            raise DataError(f"choices[{i}] has no message")
        reason = str(choice.get("finish_reason") or UNKNOWN)
        said = {"role": "assistant", **choice["message"]}
        found.append((messages_of([said], f"choices[{i}].message")[0], ENDS.get(reason, reason)))
    return found


def _tools(row: Mapping[str, Any], asked: Mapping[str, Any]) -> Any:
    """What the model could call, wherever it is told."""
    places = (asked, row, *(_object(row.get(k)) for k in ("model_parameters", "optional_params")))
    return next((parsed(p[k]) for p in places for k in ("tools", "functions") if p.get(k)), None)


def _object(value: Any) -> dict[str, Any]:
    found = parsed(value)
    return found if isinstance(found, dict) else {}
