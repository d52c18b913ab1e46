"""From a conversation to its trajectory: each message is a step as soon as it is there.

The tokens of a step are those that its message added to what the model reads: the conversation is rendered
with it and without it. What is sampled is taken as it was sampled.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from tinygpt.agent.policy import Decision
from tinygpt.agent.tool import Outcome
from tinygpt.agent.turn import Message, Said, Writer
from tinygpt.data import atraj
from tinygpt.data.message import to_call


class Recorder:
    """Writes the steps of one run. `context` is what the model has read and written so far."""

    def __init__(self, file: atraj.Writer, writer: Writer, tools: Sequence[dict[str, Any]]) -> None:
        self._file, self._writer, self.tools = file, writer, tools
        self.context: list[int] = []

    def message(
        self, messages: Sequence[Message], decision: Decision | None = None, outcome: Outcome | None = None
    ) -> None:
        """The last of these messages is new; a tool's has the decision about its call and what it gave."""
        last = messages[-1]
        ids = self._writer.encode(messages, self.tools, answer=False)
        facts: dict[str, Any] = self._added(ids, ids)
        if decision is not None and outcome is not None:
            facts["result"] = {
                "stdout": outcome.stdout, "stderr": outcome.stderr, "exit_code": outcome.exit_code,
                "cut": outcome.cut,
            }  # fmt: skip
            facts["decision"] = decision.record
            facts["seconds"] = round(outcome.seconds, 6)
        self._file.step(
            atraj.Step(
                role=last["role"], content=last["content"], name=last.get("name", ""),
                call_id=last.get("tool_call_id", ""), started=time.time(), **facts,
            )
        )  # fmt: skip

    def said(self, said: Said) -> None:
        """The assistant has written."""
        whole = None if said.prompt is None else [*said.prompt, *said.ids]
        facts = self._added(said.prompt, whole)
        if said.prompt is not None:
            n = len(facts["ids"]) - len(said.ids)
            facts["logprobs"] = [*[None] * n, *said.logprobs]
        calls = [{"id": call["id"], **to_call(call)} for call in said.message.get("tool_calls") or ()]
        self._file.step(
            atraj.Step(
                role="assistant", content=said.message["content"], calls=calls, error=said.error,
                finish_reason=said.finish_reason, started=time.time() - said.seconds,
                seconds=round(said.seconds, 6), **facts,
            )
        )  # fmt: skip

    def end(self, end: atraj.End) -> None:
        self._file.end(end)

    def _added(self, read: list[int] | None, whole: list[int] | None) -> dict[str, Any]:
        """What a step adds to the context, which is `whole` afterwards: at least all of `whole` behind
        `read`."""
        if read is None or whole is None:
            return {}
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self.context, read)))
        self.context = whole
        ids = whole[same:]
        return {"ids": ids, "n_kept": same, "text": self._writer.decode(ids)}


def messages_of(steps: Sequence[atraj.Step]) -> list[Message]:
    """The conversation that steps tell of."""
    found: list[Message] = []
    for step in steps:
        message: Message = {"role": step.role, "content": step.content}
        if step.calls:
            message["tool_calls"] = [
                {
                    "id": call.get("id") or f"call_{len(found)}_{i}",
                    "type": "function",
                    "function": {"name": call["name"], "arguments": call["arguments"]},
                }
                for i, call in enumerate(step.calls)
            ]
        if step.role == "tool":
            message |= {"name": step.name, "tool_call_id": step.call_id}
        found.append(message)
    return found
