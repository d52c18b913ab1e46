"""From a conversation to the ids that a model reads: its own template, and what clients do beside it.

What a template does not know is said in what it knows: a developer is a system; a system message, where
there is no such role, stands before the first request; tools, where there is no form for them, are a
paragraph of the system message. Nothing is cut: a prompt that is too long is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data.template import _calls, chatml
from tinygpt.data.template._spans import Span, encode, join
from tinygpt.serve.calls import Tools

if TYPE_CHECKING:
    from tinygpt.data.template._choice import Template
    from tinygpt.infer.engine import Engine

Message = dict[str, Any]
ROLES = ("system", "developer", "user", "assistant", "tool")
THINK = ("<think>", "</think>")
# What models write around their reasoning; the first that a template or a tokenizer knows.
MARKS = (
    ("[THINK]", "[/THINK]"), ("<longcat_think>", "</longcat_think>"), ("<seed:think>", "</seed:think>"),
    ("<|think:start|>", "<|think:end|>"), ("<|channel>thought", "<channel|>"), THINK,
)  # fmt: skip
PROBE = "\u2402"  # a request that nobody makes


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """think: the marks around reasoning. opened: the prompt ends inside of it. thinks: the template knows of
    reasoning. boundaries: see Request. source: the template's Jinja text, with a form for tools."""

    ids: list[int]
    think: tuple[str, str] = THINK
    opened: bool = False
    thinks: bool = False
    boundaries: tuple[int, ...] = ()
    source: str = ""


def source_of(template: Template) -> str:
    """Everything that a model's templates say."""
    return "\n".join([template.source, *getattr(template, "sources", {}).values()])


def of_chat(
    engine: Engine,
    messages: Sequence[Message],
    tools: Tools = (),
    *,
    think: bool | None = None,
    prefill: bool = False,
    bare: bool = False,
    answer: bool = True,
) -> Prompt:
    """The prompt of a conversation. `prefill`: the last message is the answer's beginning. `bare`: the answer
    is under a grammar, which knows of reasoning in <think> alone. `answer`: it ends where an answer begins.

    ConfigError where the conversation cannot be written."""
    template = engine.template
    if template is None:
        raise ConfigError("this model has no chat template", hint="send plain text to /v1/completions")
    if not messages:
        raise ConfigError("a conversation needs a message")
    begun = ""
    if prefill:
        *messages, last = messages
        if last.get("role") != "assistant" or last.get("tool_calls"):
            raise ConfigError("only an assistant's text can be continued", hint="it is the last message")
        begun = str(last.get("content") or "")
    source = source_of(template)
    variables = _variables(source, False if begun else think)
    writer = _Writer(template, source, tools, variables, answer)
    spans = writer.spans(messages)
    marks = next((m for m in MARKS if m[1] in source or set(m) <= engine.tokenizer.special.keys()), THINK)
    opened = join(spans).rstrip().endswith(marks[0])
    if opened and (begun or (bare and marks != THINK)):
        spans, opened = [*spans, *_tag(engine, "\n", marks[1], "\n\n")], False
    if begun:
        blank = writer.blank(messages, spans, begun)
        spans.append(Span(blank + begun, learn=True))  # its own piece, as an answer is in training
    ids = encode(spans, engine.tokenizer)[0]
    return Prompt(
        ids=ids, think=marks, opened=opened, thinks=marks[1] in source and think is not False and not begun,
        source=chatml.CHAT_TEMPLATE if writer.formless else source,
        boundaries=writer.boundaries(messages, ids, engine),
    )  # fmt: skip


class _Writer:
    """One template with the tools and variables of one conversation."""

    def __init__(
        self,
        template: Template,
        source: str,
        tools: Tools,
        variables: Mapping[str, Any] | None,
        answer: bool,
    ) -> None:
        self.template, self.variables, self.answer = template, variables, answer
        self.knows_developer = "developer" in source
        formless = "has no form for tools" in source or "tools" not in source
        self.formless = formless
        self.tools: list[dict[str, Any]] | None = [dict(tool) for tool in tools] or None
        self.told = _told(tools) if tools and formless else ""
        if formless:
            self.tools = None

    def spans(self, messages: Sequence[Message]) -> list[Span]:
        """The prompt. Where the template refuses a system message, its text stands before the first
        request."""
        given = self._said(messages)
        try:
            return self._render(given)
        except DataError as error:
            folded = _folded(given)
            if folded == given:
                raise ConfigError(error.message, hint=error.hint) from error
            try:
                return self._render(folded)
            except DataError:
                raise ConfigError(error.message, hint=error.hint) from error

    def blank(self, messages: Sequence[Message], spans: Sequence[Span], begun: str) -> str:
        """The space that the template writes between the prompt and an answer."""
        try:
            whole = join(
                self.template.render([*self._said(messages), {"role": "assistant", "content": begun}])
            )
        except DataError:
            return ""
        head, _, rest = whole.partition(join(spans))
        between = rest[: max(rest.find(begun.strip()), 0)] if not head else ""
        return between if between.isspace() and not begun.startswith(between) else ""

    def boundaries(self, messages: Sequence[Message], ids: Sequence[int], engine: Engine) -> tuple[int, ...]:
        """Where the part ends that conversations share: system message and tools."""
        n = next((i for i, m in enumerate(messages) if m.get("role") not in ("system", "developer")), 0)
        if not n and not self.tools and not self.told:
            return ()
        try:
            other = self.spans([*messages[:n], {"role": "user", "content": PROBE}])
        except ConfigError:
            return ()
        shared = len(commonprefix([list(ids), encode(other, engine.tokenizer)[0]]))
        return (shared,) if 0 < shared < len(ids) else ()

    def _render(self, messages: Sequence[Message]) -> list[Span]:
        if self.variables:
            render: Any = self.template.render
            return list(render(messages, self.tools, self.answer, self.variables))
        return list(self.template.render(messages, self.tools, self.answer))

    def _said(self, messages: Sequence[Message]) -> list[Message]:
        """The conversation in roles that the template knows, its first system messages as one."""
        said: list[Message] = []
        for i, message in enumerate(messages):
            role = message.get("role")
            if role not in ROLES:
                raise ConfigError(f"message {i + 1} has the role {role!r}", hint=f"known: {', '.join(ROLES)}")
            one = {**message, "content": message.get("content") or ""}
            if role == "developer" and not self.knows_developer:
                one["role"] = "system"
            if self.formless:
                one = _without_form(one)
            leads = all(m["role"] == "system" for m in said)
            if said and leads and one["role"] == "system":
                said[0] = {**said[0], "content": f"{said[0]['content']}\n\n{one['content']}"}
            else:
                said.append(one)
        if self.told:
            system = said.pop(0)["content"] if said and said[0]["role"] == "system" else ""
            said.insert(0, {"role": "system", "content": f"{system}\n\n{self.told}".strip()})
        return said


def _told(tools: Tools) -> str:
    """Tools as a paragraph, in the words of our ChatML."""
    listed = "".join(_calls.to_json(dict(tool)) + "\n" for tool in tools)
    return chatml.TOOLS_BEFORE + listed + chatml.TOOLS_AFTER


def _without_form(message: Message) -> Message:
    """Calls and results as text, for templates that have no form for them."""
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    if not message.get("tool_calls"):
        return message
    calls = [f"<tool_call>\n{_calls.written(call)}\n</tool_call>" for call in message["tool_calls"]]
    return {"role": "assistant", "content": "\n".join([c for c in [message["content"], *calls] if c])}


def _folded(messages: Sequence[Message]) -> list[Message]:
    """All that systems say before the first request, and neighbours of one role as one message."""
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    found: list[Message] = []
    for message in messages:
        if message["role"] == "system":
            continue
        alike = found and found[-1]["role"] == message["role"] == "user"
        if alike:
            found[-1] = {**found[-1], "content": f"{found[-1]['content']}\n\n{message['content']}"}
        else:
            found.append(message)
    first = next((i for i, m in enumerate(found) if m["role"] == "user"), None)
    if system and first is None:
        return [{"role": "user", "content": system}, *found]
    if system and first is not None:
        found[first] = {**found[first], "content": f"{system}\n\n{found[first]['content']}"}
    return found


def _variables(source: str, think: bool | None) -> dict[str, bool] | None:
    """What tells a template whether the model is to reason, where it asks."""
    if think is None:
        return None
    if "enable_thinking" in source:
        return {"enable_thinking": think}
    if re.search(r"\b(if|not|set|and|or)\s+thinking\b", source):
        return {"thinking": think}
    return None


def _tag(engine: Engine, before: str, name: str, after: str) -> list[Span]:
    return [Span(before), Span(name, special=name in engine.tokenizer.special), Span(after)]
