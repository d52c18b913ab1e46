"""The loop: the model writes, its calls are made, their results are read, until it answers in words.

A turn that is no turn (a call that is not JSON, or was cut off) is asked for once more with what was wrong,
and reported if that is none either. Nothing is ever cut blindly: see keep.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from tinygpt.agent import keep
from tinygpt.agent.policy import REFUSED, Decision
from tinygpt.agent.recorder import Recorder
from tinygpt.agent.tool import Cancel, Outcome
from tinygpt.agent.turn import KEPT, REPAIR, Hands, Listener, Message, Said, Turn, Writer, is_request
from tinygpt.core.errors import ConfigError, RemoteError, TooLongError
from tinygpt.data.message import to_call

UNKNOWN = "The run was interrupted here: it is not known whether this call was made."
CANCELLED = "Not made, since the person wants no more of it."
BESIDE = "Not made, since the conversation was to be handed on."
SUMMARISE = "Summarise in a few sentences:\n\n"
EARLIER = "Earlier in this conversation: "
AT_ONCE = 8  # calls that only read and run beside each other


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a request may be worked on."""

    max_steps: Annotated[int, "Turns that the model may write for one request."] = 8
    max_tokens: Annotated[int, "Longest turn in tokens."] = 256
    budget: Annotated[int, "Tokens that the model may write for one request; 0: no bound."] = 0

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.max_tokens < 1 or self.budget < 0:
            raise ConfigError("--max-steps and --max-tokens must be at least 1, --budget not negative")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a request came to. outcome: answered, escalated, steps, budget, context (which it does not fit),
    unparsable or cancelled; fallback: the text is what the model wrote where an answer should have been."""

    text: str
    outcome: str
    fallback: bool = False
    steps: int = 0


class Route(Protocol):
    """A router: the names of the tools that a request may begin with, None where it does not know."""

    def __call__(self, request: str, tell: Callable[..., None]) -> list[str] | None: ...


class Escalation(Protocol):
    """A stronger model. `entry` is the tool by which it is asked for; `wanted` gives the reason where a turn
    asks for it, else None; `ask` its answer, or None where the person refuses."""

    entry: dict[str, Any]

    def wanted(self, message: Message) -> str | None: ...

    def ask(
        self, messages: Sequence[Message], reason: str, on_text: Callable[[str], None], cancel: Cancel
    ) -> str | None: ...


class Agent:
    """One conversation of a model with tools. `messages` grows with it; the first may be a system message."""

    def __init__(
        self,
        writer: Writer,
        hands: Hands,
        limits: Limits,
        listener: Listener,
        cancel: Cancel,
        *,
        messages: Sequence[Message] = (),
        show_tools: bool = True,
        recorder: Recorder | None = None,
        route: Route | None = None,
        escalation: Escalation | None = None,
        summarise: bool = False,
    ) -> None:
        self.writer, self.hands, self.limits, self.listener = writer, hands, limits, listener
        self.cancel, self.recorder, self.route, self.escalation = cancel, recorder, route, escalation
        self.summarise = summarise
        self.messages: list[Message] = []
        self.counts: Counter[str] = Counter()
        self._written_before = 0  # tokens of earlier requests
        entries = [*hands.entries, *([escalation.entry] if escalation is not None else [])]
        self.shown = entries if show_tools else []
        for message in messages:
            self._add(message)

    def ask(self, request: str) -> Answer:
        """Work on what the person asks until there is an answer, or a limit is reached."""
        self.counts["requests"] += 1
        self.listener.tell("user", content=request)
        self._add({"role": "user", "content": request})
        return self._work(request)

    def go_on(self, messages: Sequence[Message], recorded: Sequence[int]) -> Answer | None:
        """Take up a conversation where it was cut off, whose tokens are `recorded`; None where it waits for a
        request. Calls without a result are not made again."""
        self.messages = list(messages)
        if self.recorder is not None:
            self.recorder.context = list(recorded)
        last = max((i for i, m in enumerate(self.messages) if m["role"] == "assistant"), default=-1)
        calls = (self.messages[last].get("tool_calls") or ()) if last >= 0 else ()
        # Only results behind it are its own: ids may be those of earlier calls again.
        answered = [m.get("tool_call_id") for m in self.messages[last + 1 :] if m["role"] == "tool"]
        for call in calls:
            if call["id"] in answered:
                answered.remove(call["id"])
            else:
                self._refused(call, "interrupted", UNKNOWN)
        request = next((m["content"] for m in reversed(self.messages) if is_request(m)), "")
        if not self.messages or self.messages[-1]["role"] == "system":
            return None
        if (final := self.messages[-1])["role"] == "assistant":
            if (reason := self._deferred(final)) is None:
                return None
            answer = self._escalated(final, reason)  # it was to be handed over, and was not yet
            if answer is not None:
                return self._answered(answer, "escalated", 0)
        return self._work(request)

    def _work(self, request: str) -> Answer:
        allowed = self.route(request, self.listener.tell) if self.route is not None else None
        step, self._written_before = 0, self.counts["written_tokens"]
        for step in range(1, self.limits.max_steps + 1):
            if self._most() <= 0:
                return self._ended("budget", step - 1)
            try:
                said = self._turn(allowed)
            except TooLongError as error:
                self.listener.tell("full", error=error.message)
                return self._ended("context", step - 1)
            allowed = None  # a router knows what a request begins with
            if said.finish_reason == "cancelled" or self.cancel.is_set():
                for call in said.message.get("tool_calls") or ():
                    self._refused(call, "cancelled", CANCELLED)
                return self._ended("cancelled", step)
            if said.error:
                return self._answered(said.message["content"], "unparsable", step)
            if (reason := self._deferred(said.message)) is not None:
                answer = self._escalated(said.message, reason)
                if self.cancel.is_set():
                    return self._ended("cancelled", step)
                if answer is not None:
                    return self._answered(answer, "escalated", step)
                continue
            calls = said.message.get("tool_calls") or []
            if not calls:
                return self._answered(said.message["content"], "answered", step)
            for call, (decision, outcome) in zip(calls, self._made(calls), strict=True):
                self._result(call, decision, outcome)
            if self.cancel.is_set():
                return self._ended("cancelled", step)
        return self._ended("steps", step)

    # Turns

    def _most(self) -> int:
        """Tokens that the next turn may have."""
        if not self.limits.budget:
            return self.limits.max_tokens
        written = self.counts["written_tokens"] - self._written_before
        return min(self.limits.max_tokens, self.limits.budget - written)

    def _turn(self, allowed: list[str] | None) -> Said:
        """One turn of the model; where it is none, a second one that knows why, if the budget has room."""
        said = self._written(self._most(), allowed)
        if said.error and said.finish_reason != "cancelled" and self._most() > 0:
            self.counts["repairs"] += 1
            self.listener.tell("repair", error=said.error, content=said.message["content"])
            self._add({"role": "user", "content": REPAIR.format(error=said.error)})
            return self._written(self._most(), allowed)
        return said

    def _written(self, most: int, allowed: list[str] | None) -> Said:
        choice = "none" if allowed == [] else "auto"
        said = None
        while said is None:
            room = self.writer.room(most)
            try:
                self._fit(most)
                said = self.writer.write(
                    Turn(
                        messages=self.messages, tools=self.shown, choice=choice, first=allowed or (),
                        max_tokens=most, on_text=self.listener.text, cancel=self.cancel,
                    )
                )  # fmt: skip
            except TooLongError:
                if self.writer.room(most) == room:
                    raise
        self.counts.update(
            turns=1, prompt_tokens=said.n_prompt, cached_tokens=said.n_cached, written_tokens=said.n_written
        )
        self.messages.append(said.message)
        if self.recorder is not None:
            self.recorder.said(said)
        calls = [to_call(call) for call in said.message.get("tool_calls") or ()]
        self.listener.tell(
            "assistant", content=said.message["content"], finish_reason=said.finish_reason,
            tokens=said.n_written, **({"tool_calls": calls} if calls else {}),
        )  # fmt: skip
        return said

    def _fit(self, most: int) -> None:
        """Let go of what has no room any more."""
        room = self.writer.room(most)
        if room is None:
            return

        def size(messages: Sequence[Message]) -> int:
            return self.writer.size(messages, self.shown)

        kept = keep.fitted(self.messages, size, room)
        if kept.dropped or kept.n_cut:
            summary = self._summary(kept.dropped, most) if self.summarise and kept.dropped else ""
            self.counts["dropped_messages"] += len(kept.dropped)
            self.listener.tell("dropped", messages=len(kept.dropped), letters=kept.n_cut)
            self.messages = kept.messages
            if summary:
                with contextlib.suppress(TooLongError):  # it has no room itself
                    self.messages = keep.fitted(_told(kept.messages, summary), size, room).messages

    def _summary(self, dropped: Sequence[Message], most: int) -> str:
        """What the model itself says of messages that leave, and of those that left before; "" where it says
        nothing, or not even their beginning has room."""
        _, earlier, _ = _parted(self.messages)
        said = [f"{m['role']}: {m['content'] or _calls_of(m)}" for m in dropped]
        text = "\n".join([f"{EARLIER}{earlier}", *said] if earlier else said)
        room = self.writer.room(most) or 0
        while True:
            asked = [{"role": "user", "content": SUMMARISE + text}]
            n = self.writer.size(asked, [])
            if n <= room or not text:
                break
            text = keep.shortened(text, len(text) * room // (n + room))
        if not text:
            return ""
        found = self.writer.write(
            Turn(messages=asked, tools=[], choice="none", max_tokens=most, cancel=self.cancel)
        )
        self.counts["written_tokens"] += found.n_written
        return found.message["content"].strip()

    # Calls

    def _made(self, calls: Sequence[Message]) -> Iterator[tuple[Decision, Outcome]]:
        """What each call came to, in their order, each before the next is made; those that only read run
        beside each other."""

        def make(call: Message) -> tuple[Decision, Outcome]:
            if self.cancel.is_set():
                return _not_made(call, "cancelled", CANCELLED)
            found = to_call(call)
            return self.hands.run(found["name"], found["arguments"], self.cancel)

        for call in calls:
            self.listener.tell("tool_call", id=call["id"], **to_call(call))
        if len(calls) > 1 and all(self.hands.harmless(to_call(call)["name"]) for call in calls):
            with ThreadPoolExecutor(min(AT_ONCE, len(calls))) as threads:
                yield from threads.map(make, calls)
        else:
            yield from map(make, calls)

    def _refused(self, call: Message, rule: str, why: str) -> None:
        """A call that the loop itself does not make."""
        self._result(call, *_not_made(call, rule, why))

    def _result(self, call: Message, decision: Decision, outcome: Outcome) -> None:
        name = to_call(call)["name"]
        self.counts.update(calls=1, refused_calls=int(not decision.allowed))
        self.listener.tell(
            "tool_result", id=call["id"], name=name, stdout=outcome.stdout, stderr=outcome.stderr,
            exit_code=outcome.exit_code, seconds=round(outcome.seconds, 6), rule=decision.rule,
            allowed=decision.allowed,
        )  # fmt: skip
        message = {"role": "tool", "tool_call_id": call["id"], "name": name, "content": shown(outcome)}
        self._add(message, decision, outcome)

    # Ends

    def _deferred(self, message: Message) -> str | None:
        return None if self.escalation is None else self.escalation.wanted(message)

    def _escalated(self, message: Message, reason: str) -> str | None:
        """The stronger model's answer; None where the person keeps the conversation here, and the model is
        told so."""
        assert self.escalation is not None
        answer, why = None, KEPT
        try:
            answer = self.escalation.ask(self.messages[:-1], reason, self.listener.text, self.cancel)
        except (RemoteError, TooLongError) as error:
            why = f"No answer came ({error.message}). {KEPT}"
        self.counts["escalations"] += 1
        told = {"error": why.removesuffix(KEPT).strip()} if why != KEPT else {}
        self.listener.tell("escalation", reason=reason, answered=answer is not None, **told)
        own = self.escalation.entry["function"]["name"]
        for call in message.get("tool_calls") or ():
            known = to_call(call)
            if known["name"] != own:
                self._refused(call, own, BESIDE)
            elif answer is None:
                self._refused(call, own, why)
            else:
                decision = Decision(tool=own, arguments=known["arguments"], rule=own, allowed=True)
                self._result(call, decision, Outcome(stdout=answer))
        if not message.get("tool_calls"):
            self._add(
                {"role": "user", "content": why}
                if answer is None
                else {"role": "assistant", "content": answer}
            )
        return answer

    def _answered(self, text: str, outcome: str, steps: int) -> Answer:
        fallback = outcome == "unparsable"
        self.listener.tell("answer", content=text, fallback=fallback, outcome=outcome)
        return Answer(text=text, outcome=outcome, fallback=fallback, steps=steps)

    def _ended(self, outcome: str, steps: int) -> Answer:
        said = [m["content"] for m in self.messages if m["role"] == "assistant"]
        text = said[-1] if said else ""
        self.listener.tell("answer", content=text, fallback=True, outcome=outcome)
        return Answer(text=text, outcome=outcome, fallback=True, steps=steps)

    def _add(
        self, message: Message, decision: Decision | None = None, outcome: Outcome | None = None
    ) -> None:
        self.messages.append(message)
        if self.recorder is not None:
            self.recorder.message(self.messages, decision, outcome)


def _not_made(call: Message, rule: str, why: str) -> tuple[Decision, Outcome]:
    known = to_call(call)
    decision = Decision(
        tool=known["name"], arguments=known["arguments"], rule=rule, allowed=False, message=why
    )
    return decision, Outcome(stderr=why, exit_code=REFUSED)


def shown(outcome: Outcome) -> str:
    """A call's result as the model reads it: what it printed, and, where it failed, that it did."""
    parts = [outcome.stdout.rstrip("\n"), outcome.stderr.rstrip("\n")]
    if outcome.exit_code:
        parts.append(f"exit code {outcome.exit_code}")
    return "\n".join(part for part in parts if part)


def _parted(messages: Sequence[Message]) -> tuple[str, str, list[Message]]:
    """What the system message says by itself, the summary behind it, and the other messages."""
    if not messages or messages[0]["role"] != "system":
        return "", "", list(messages)
    own, _, earlier = messages[0]["content"].partition(EARLIER)
    return own.removesuffix("\n\n"), earlier, list(messages[1:])


def _told(messages: list[Message], summary: str) -> list[Message]:
    """The messages with a summary of what left in the system message."""
    own, _, rest = _parted(messages)
    return [{"role": "system", "content": f"{own}\n\n{EARLIER}{summary}".lstrip("\n")}, *rest]


def _calls_of(message: Message) -> str:
    return json.dumps([to_call(call) for call in message.get("tool_calls") or ()], ensure_ascii=False)
