"""The chat template that a model brings: rendered as transformers renders it, with what is learned marked.

People's text never becomes a control token: in what they wrote, names of control tokens are wrapped in two
characters that the conversation does not hold before the template sees it, and what comes out wrapped is
text. In an answer, tags that are ordinary added tokens (<think>, <tool_call>) are tokens, as the model writes
them. Which text is learned: `_learned.py`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tinygpt.core.errors import DataError
from tinygpt.data.template import _calls
from tinygpt.data.template._learned import UNUSED, Learned, header_of, learned
from tinygpt.data.template._sandbox import Compiled, Refused, compiled
from tinygpt.data.template._spans import Span

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer

Message = dict[str, Any]
OTHER = "choose another with --template NAME"
ID = re.compile("[A-Za-z0-9]{9}")  # Mistral's; others take these too


class _Calls(NamedTuple):
    """How a template wants tool calls: arguments as an object or as text; no content as "" or as None; with
    ids of any form, or only such as `ID`."""

    text: bool = False
    empty: str | None = ""
    any_id: bool = True


class Own:
    """The template of a tokenizer; see `Template`."""

    name = "base"
    note = ""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.sources = dict(tokenizer.chat_templates)
        first = self.sources.get("default") or next(iter(self.sources.values()))
        self.source = first
        ids = tokenizer.stop_ids
        self.stops = tuple(name for name, id in tokenizer.special.items() if id in ids)
        self._special = _pattern(tokenizer.control)
        self._hard = _pattern(tokenizer.control - tokenizer.tags)
        self._skeletons: dict[Any, Any] = {}

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> list[Span]:
        """The conversation as spans, or the prompt up to where the assistant begins to write. `variables`:
        what the template may ask for beside the conversation, as enable_thinking."""
        chosen = self._choose(tools)
        marks = _marks(messages, tools)
        given = self.prepared(messages, tools)
        safe = [self._wrapped(message, marks) for message in given]
        listed = None if not tools else _wrap([dict(tool) for tool in tools], self._special, marks)
        changed = safe != given or listed != (list(tools) if tools else None)

        def write(some: Sequence[Message], ask: bool) -> tuple[str, list[tuple[int, int]]]:
            return self._write(chosen, some, listed, ask, variables)

        text, blocks = write(safe, add_generation_prompt)
        if changed:
            plain = list(tools) if tools else None
            bare, _ = self._write(chosen, given, plain, add_generation_prompt, variables)
            if text.translate(dict.fromkeys(map(ord, marks))) != bare:
                raise DataError(
                    "the chat template does something else with text that spells control tokens",
                    hint=f"leave such rows out, or {OTHER}",
                )
        if add_generation_prompt:
            if "add_generation_prompt" not in chosen.source:
                text += header_of(safe, text, write)
            return self._spans(text, marks, [])
        tagged = blocks if chosen.marks_generation else None
        found = learned(text, safe, write, self.stops, tagged, self._skeletons, listed)
        return self._spans(text, marks, found)

    def text(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] | None = None,
        add_generation_prompt: bool = False,
    ) -> str:
        """The conversation as the template writes it, as one string."""
        given = self.prepared(messages, tools)
        return self._write(self._choose(tools), given, list(tools) if tools else None, add_generation_prompt)[
            0
        ]

    def parse(self, text: str) -> Message:
        """What a model wrote, as {"role", "content", "tool_calls"}, and "error" where a call is malformed."""
        for stop in self.stops:
            text = text.split(stop, 1)[0]
        return self._parser(text)

    @functools.cached_property
    def _parser(self) -> Any:
        return _calls.parser("\n".join(self.sources.values()))

    def prepared(self, messages: Sequence[Message], tools: Any = None) -> list[Message]:
        """Messages as other libraries hand them to templates: calls under "function" and with an id."""
        shape = self._shape if any(m.get("tool_calls") for m in messages) else _Calls()
        made: list[Message] = []
        waiting: list[tuple[str, str, str]] = []  # (the row's id, id, name) of calls without a result yet
        n = 0
        for message in messages:
            one = {k: v for k, v in message.items() if v is not None}
            one.setdefault("content", "")
            if calls := message.get("tool_calls"):
                one["tool_calls"] = []
                for call in calls:
                    n += 1
                    function = call.get("function") or call
                    given = id = call.get("id") or f"call{n:05d}"
                    if not shape.any_id and not ID.fullmatch(id):
                        id = f"call{n:05d}"
                    arguments = _arguments(function.get("arguments"), shape.text)
                    about = {"name": function["name"], "arguments": arguments}
                    one["tool_calls"].append({"id": id, "type": "function", "function": about})
                    waiting.append((given, id, function["name"]))
                if not one["content"]:
                    one["content"] = shape.empty
            elif "tool_calls" in one:
                del one["tool_calls"]
            if one["role"] == "tool" and waiting:
                # A result says whose it is, or they come in the order of the calls.
                named = one.get("tool_call_id")
                given, id, name = waiting.pop(next((i for i, w in enumerate(waiting) if w[0] == named), 0))
                if named in (None, given):
                    one["tool_call_id"] = id
                one.setdefault("name", name)
            made.append(one)
        return made

    @functools.cached_property
    def _shape(self) -> _Calls:
        """How this template wants tool calls, found by trying; the first way that it writes them in."""
        name, value = "probe_name", "probe_value"
        for empty in ("", None):
            for text in (False, True):
                arguments = _arguments({"key": value}, text)
                call = {"id": "call00001", "type": "function"}
                call |= {"function": {"name": name, "arguments": arguments}}
                probe = [
                    {"role": "user", "content": "q"},
                    {"role": "assistant", "content": empty, "tool_calls": [call]},
                ]
                schema = {"type": "function", "function": {"name": name, "description": "", "parameters": {}}}
                for listed in ([schema], None):
                    if self._writes(probe, listed, value):
                        call["id"] = "call_of_any_form"
                        return _Calls(text, empty, self._writes(probe, listed, value))
        raise DataError("the model's chat template cannot write tool calls", hint=OTHER)

    def _writes(self, messages: Sequence[Message], tools: Any, text: str) -> bool:
        """Whether this text is in what the template makes of a conversation."""
        try:
            return text in self._write(self._choose(tools), messages, tools, False)[0]
        except DataError:
            return False

    def _choose(self, tools: Any) -> Compiled:
        if tools and "tool_use" in self.sources:
            return compiled(self.sources["tool_use"])
        if "default" not in self.sources and len(self.sources) > 1:
            raise DataError(
                f"none of the model's chat templates is the default: {', '.join(self.sources)}", hint=OTHER
            )
        return compiled(self.source)

    def _write(
        self,
        template: Compiled,
        messages: Sequence[Message],
        tools: Any,
        ask: bool,
        variables: Mapping[str, Any] | None = None,
    ) -> tuple[str, list[tuple[int, int]]]:
        try:
            return template.render(
                **self.tokenizer.names, messages=list(messages), tools=tools, documents=None,
                add_generation_prompt=ask, **(variables or {}),
            )  # fmt: skip
        except Refused as refusal:
            raise DataError(
                f"the model's chat template refuses the conversation: {refusal}",
                hint=f"change the rows, or {OTHER}",
            ) from refusal

    def _wrapped(self, message: Message, marks: str) -> Message:
        """The message with control tokens in its text wrapped; in an answer, tags are tokens."""
        names = self._hard if message["role"] == "assistant" else self._special
        return {k: v if k == "role" else _wrap(v, names, marks) for k, v in message.items()}

    def _spans(self, text: str, marks: str, found: Sequence[Learned]) -> list[Span]:
        """The text in pieces. Wrapped names are text; others are control tokens."""
        begin, end = map(re.escape, marks)
        pattern = re.compile(
            f"{begin}[^{begin}{end}]*{end}|[{begin}{end}]|(?P<token>{self._special.pattern})"
        )
        spans: list[Span] = []
        borders = [(at.begin, at.end, at.message) for at in found]
        for start, stop, message in _stretches(len(text), borders):
            part, last = text[start:stop], 0
            learn = message >= 0
            for hit in pattern.finditer(part):
                spans.append(Span(part[last : hit.start()], learn, False, message))
                special = hit["token"] is not None
                name = hit[0] if special else hit[0].strip(marks)
                spans.append(Span(name, learn, special, message))
                last = hit.end()
            spans.append(Span(part[last:], learn, False, message))
        return [span for span in spans if span.text]


def _stretches(n: int, found: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The whole of a text of n characters: (begin, end, message), -1 between the found ones."""
    result: list[tuple[int, int, int]] = []
    at = 0
    for begin, end, message in found:
        result += [(at, begin, -1), (begin, end, message)]
        at = end
    return [*result, (at, n, -1)]


def _pattern(names: frozenset[str]) -> re.Pattern[str]:
    """Any of the names, the longest first."""
    listed = sorted(names, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, listed)) or "(?!)")


def _wrap(value: Any, names: re.Pattern[str], marks: str) -> Any:
    if isinstance(value, str):
        return names.sub(lambda hit: f"{marks[0]}{hit[0]}{marks[1]}", value)
    if isinstance(value, dict):
        return {_wrap(k, names, marks): _wrap(v, names, marks) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_wrap(v, names, marks) for v in value]
    return value


def _marks(messages: Any, tools: Any) -> str:
    """Two characters that are nowhere in the conversation."""
    text = json.dumps([list(messages), tools], ensure_ascii=False)
    free = [c for c in UNUSED if c not in text][:2]
    if len(free) < 2:
        raise DataError("the conversation holds every character that could mark its text")
    return "".join(free)


def _arguments(value: Any, as_text: bool) -> Any:
    if as_text:
        return value if isinstance(value, str) else json.dumps(value or {}, ensure_ascii=False)
    if isinstance(value, str):
        try:
            return json.loads(value or "{}")
        except ValueError:
            return value
    return value or {}
