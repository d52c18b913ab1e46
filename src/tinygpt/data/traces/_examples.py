"""Mended traces as rows that train: for sft conversations or tokens, for dpo pairs, for kto labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tinygpt.data.message import Message
from tinygpt.data.traces import _ids
from tinygpt.data.traces._mend import Mended, split
from tinygpt.data.traces._spool import Spool
from tinygpt.data.traces._trace import Trace, openai


class Example(NamedTuple):
    """What counts as one: its rows, the text by which it is compared, and the kind that it is compared
    within."""

    rows: list[dict[str, Any]]
    text: str
    kind: str = ""

    @staticmethod
    def of(value: Sequence[Any]) -> Example:
        return Example(value[0], value[1], value[2])


def sft(trace: Trace, left: Mended) -> Example:
    """A conversation with its tools."""
    row = {"messages": openai(left.messages), **_tools(trace)}
    return Example([row | _about(trace)], said(left.messages), kind(trace, left.messages))


def exact(trace: Trace, left: Mended) -> Example:
    """The same as tokens; no rows where there are none."""
    found = _ids.rows(trace, left.whole & set(left.places))
    return Example([row | _about(trace) for row in found], said(left.messages), kind(trace, left.messages))


def kto(trace: Trace, left: Mended, good: bool) -> Example:
    """A prompt, what was said to it, and whether that was good."""
    prompt, reply = split(left.messages)
    row = {"prompt": openai(prompt), "completion": openai(reply), "label": good, **_tools(trace)}
    return Example([row | _about(trace)], said(left.messages), f"{good} {kind(trace, left.messages)}")


def text_of(trace: Trace, left: Mended) -> str:
    """What two traces with equal tokens of the conversation and equal tools have in common."""
    return f"{kind(trace, left.messages)} {trace.task} {said(left.messages)}"


def kind(trace: Trace, messages: Sequence[Message]) -> str:
    """Of what many conversations share, as system prompts and tools: only those with the same are
    compared."""
    system = [m["content"] for m in messages if m["role"] == "system"]
    told = json.dumps([system, trace.tools], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def said(messages: Sequence[Message]) -> str:
    """All that was said and done, but for system prompts, as one text."""
    lines: list[str] = []
    for message in messages:
        calls = "".join(
            f"\n{call['name']} {json.dumps(call['arguments'], sort_keys=True, ensure_ascii=False)}"
            for call in message.get("tool_calls") or ()
        )
        if message["role"] != "system":
            lines.append(f"{message['role']}: {message['content']}{calls}")
    return "\n\n".join(lines)


class Pairs:
    """Traces of one task and prompt side by side. Each is in one pair at most: the best with the worst, the
    second best with the second worst, and so on, as long as one is better than the other by the margin."""

    def __init__(self, kept: Spool, margin: float) -> None:
        self._kept, self._margin = kept, margin
        self._groups: dict[bytes, list[tuple[float, int]]] = {}
        self.n_alone = self.n_close = 0

    def add(self, trace: Trace, left: Mended, score: float) -> None:
        """One more."""
        prompt, reply = split(left.messages)
        told = json.dumps([trace.task, said(prompt), kind(trace, prompt)]).encode()
        row = {"prompt": openai(prompt), "reply": openai(reply), "said": said(left.messages), **_tools(trace)}
        number = self._kept.add(row | {"kind": kind(trace, prompt), "about": _about(trace)})
        self._groups.setdefault(hashlib.sha256(told).digest()[:16], []).append((score, number))

    def made(self) -> Iterator[Example]:
        """The pairs, by the order in which their prompts came."""
        for group in self._groups.values():
            ordered = sorted(group, key=lambda one: -one[0])
            n_paired = 0
            for (best, i), (worst, j) in zip(ordered[: len(ordered) // 2], reversed(ordered)):
                better, worse = self._kept[i], self._kept[j]
                if best - worst < self._margin or best == worst or better["reply"] == worse["reply"]:
                    break
                n_paired += 2
                yield _pair(better, worse, best, worst)
            if len(group) == 1:
                self.n_alone += 1
            else:
                self.n_close += len(group) - n_paired


def _pair(better: Mapping[str, Any], worse: Mapping[str, Any], best: float, worst: float) -> Example:
    about = {"task": better["about"]["task"]} if "task" in better["about"] else {}
    origins = {"chosen": better["about"]["_meta"], "rejected": worse["about"]["_meta"]}
    row = {
        "prompt": better["prompt"], "chosen": better["reply"], "rejected": worse["reply"],
        **({"tools": better["tools"]} if "tools" in better else {}), **about,
        "_meta": {**origins, "scores": [best, worst]},
    }  # fmt: skip
    return Example([row], f"{better['said']}\n\n{worse['said']}", better["kind"])


def _tools(trace: Trace) -> dict[str, Any]:
    return {"tools": trace.tools} if trace.tools else {}


def _about(trace: Trace) -> dict[str, Any]:
    """Where a row is from; what trains does not read it."""
    meta = {"trace": trace.id, "file": trace.place.replace("\\", "/").rpartition("/")[2]}
    meta |= {"outcome": trace.outcome}
    more = {"success": trace.success, "reward": trace.reward or None}
    found = {"_meta": meta | {k: v for k, v in more.items() if v is not None}}
    return ({"task": trace.task} if trace.task else {}) | found
