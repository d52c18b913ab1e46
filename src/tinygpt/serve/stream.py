"""What a model writes, taken apart while it grows: reasoning, text, and tool calls.

A part is given out once nothing that may follow can change it, so the parts of a stream join to those of the
whole answer, however tokens cut it. No mark gets into the text: what could be the beginning of one waits.

Where a form has its arguments as JSON, they are given out as they are written, from when the call's name is
there and they begin; where the JSON breaks they are what was written, and whoever reads them sees it. Calls
of other forms are given out when they are whole. What looks like a call and never gets so far is text, with
its marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinygpt.core.errors import DataError
from tinygpt.data.template._calls import to_json
from tinygpt.serve.calls import CLOSERS, Form, Tools, Unfinished, name_of

BLANK = " \t\r\n"


@dataclass(frozen=True)
class Part:
    """kind: "text", "reasoning", "call" (then text is the name), or "arguments" (a piece of the JSON of the
    call before)."""

    kind: str
    text: str


class Parser:
    """Takes an answer's text in pieces; `feed` and `finish` give the parts that became certain.

    think:    the marks around reasoning, which stands at the answer's beginning; None: there is none.
    opened:   the prompt holds the first mark already.
    forms:    how calls are written; none: they are text.
    parallel: more than one call is kept.
    """

    def __init__(
        self,
        think: tuple[str, str] | None = None,
        *,
        opened: bool = False,
        forms: Sequence[Form] = (),
        tools: Tools = (),
        parallel: bool = True,
    ) -> None:
        self._think, self._tools, self._parallel = think, tools, parallel
        self._names = set(map(name_of, tools))
        self._marked = [form for form in forms if form.begin]
        self._bare = next((form for form in forms if form.begins), None)
        self._state = "reasoning" if opened else "begin" if think else "content"
        self._held = ""
        self._skip = opened  # blanks that come next are nobody's
        self._form: Form | None = None
        self._before = ""  # blanks before the call that is being read
        self._seen = 0  # so far no end of this call was found
        self._fresh = True  # no content was given out
        self._at = self._depth = (
            0  # of arguments: how far in `_held` they were looked at, and how deep that is
        )
        self._quoted = self._broken = False  # there is inside of a text; it holds a line end, which none has
        self.n_calls = 0

    @property
    def reasoning(self) -> bool:
        """Whether what comes next is reasoning."""
        return self._state == "reasoning"

    @property
    def full(self) -> bool:
        """Whether nothing that follows counts."""
        return self.n_calls > 0 and not self._parallel and self._state != "arguments"

    def feed(self, text: str) -> list[Part]:
        """More of the answer."""
        self._held += text
        return self._run(last=False)

    def finish(self) -> list[Part]:
        """The answer is whole."""
        parts = self._run(last=True)
        if self._held and not self.full:
            if self._state == "reasoning":
                parts += self._give("reasoning", self._held.rstrip(BLANK))
            elif not (self.n_calls and not self._held.strip(BLANK)):
                parts += self._give("text", self._held)
        self._held = ""
        return parts

    def _run(self, last: bool) -> list[Part]:
        parts: list[Part] = []
        while not self.full:
            before = (self._state, len(self._held))
            parts += getattr(self, f"_{self._state}")(last)
            if (self._state, len(self._held)) == before:
                break
        return parts

    def _begin(self, last: bool) -> list[Part]:
        assert self._think is not None
        text, mark = self._held.lstrip(BLANK), self._think[0]
        if text.startswith(mark):
            self._state, self._held, self._skip = "reasoning", text[len(mark) :], True
        elif last or not mark.startswith(text):
            self._state = "content"
        return []

    def _reasoning(self, last: bool) -> list[Part]:
        assert self._think is not None
        self._strip()
        at = self._held.find(self._think[1])
        if at >= 0:
            text, self._held = self._held[:at].rstrip(BLANK), self._held[at + len(self._think[1]) :]
            self._state, self._skip = "content", True
            return self._give("reasoning", text)
        keep = len(self._held[: len(self._held) - _risk(self._held, [self._think[1]])].rstrip(BLANK))
        text, self._held = self._held[:keep], self._held[keep:]
        return self._give("reasoning", text)

    def _content(self, last: bool) -> list[Part]:
        self._strip()
        if not self._marked and not self._bare:
            text, self._held = self._held, ""
            return self._give("text", text)
        if self._bare is not None and self._fresh and self._bare.begins is not None:
            text = self._held.lstrip(BLANK)
            if self._bare.begins(text) if text else not last:
                self._form, self._before = self._bare, ""
                parts = self._begins(0, len(self._held))
                if parts is None and last:
                    self._state = "call"
                return parts or []
            self._fresh = not text  # once it is text it stays text
        found = [(at, form) for form in self._marked if (at := self._held.find(form.begin)) >= 0]
        if found:
            at, form = min(found, key=lambda pair: pair[0])
            text = self._held[:at].rstrip(BLANK)
            self._before, self._held = self._held[len(text) : at], self._held[at + len(form.begin) :]
            self._state, self._form, self._seen = "call", form, 0
            return self._give("text", text)
        risk = 0 if last else _risk(self._held, [form.begin for form in self._marked])
        keep = len(self._held[: len(self._held) - risk].rstrip(BLANK))
        text, self._held = self._held[:keep], self._held[keep:]
        return self._give("text", text)

    def _call(self, last: bool) -> list[Part]:
        form = self._form
        assert form is not None
        if (parts := self._begins(0, len(self._held))) is not None:
            return parts
        while form.end and (at := self._held.find(form.end, self._seen)) >= 0:
            end = at + len(form.end)
            parts = self._read(form, self._held[:at])
            if parts is None:
                self._seen = end
                continue
            body, self._held, self._state = self._held[:end], self._held[end:], "content"
            if parts:
                self._skip = True
                return parts
            return self._give("text", self._before + form.begin + body)
        self._seen = max(self._seen, len(self._held) - len(form.end) + 1) if form.end else 0
        if not last:
            return []
        body, self._held, self._state = self._held, "", "content"
        return self._read(form, body) or self._give("text", self._before + form.begin + body)

    def _begins(self, start: int, end: int) -> list[Part] | None:
        """The name of a call whose arguments come next; None where there is none in these bounds, or none
        yet."""
        assert self._form is not None
        found = self._form.head.match(self._held, start, end) if self._form.head else None
        if found is None:
            return None
        name = next(filter(None, found.groups()))
        if self._form.begins and name not in self._names:
            return None
        self._held, self._state = self._held[found.end() :], "arguments"
        self._at, self._depth, self._quoted, self._broken = 0, 0, False, False
        self.n_calls += 1
        return [Part("call", name)]

    def _arguments(self, last: bool) -> list[Part]:
        """Arguments up to their last bracket, or to the mark that ends the call: inside of a text it ends it
        only where that text is broken, or never ends."""
        assert self._form is not None
        text, end = self._held, self._form.end
        mark = text.find(end) if end else -1
        while self._at < len(text):
            if 0 <= mark <= self._at and (self._broken or not self._quoted):
                return self._leave(mark)
            letter = text[self._at]
            if self._quoted:
                if letter == "\\":
                    if self._at + 1 == len(text):
                        break
                    self._at += 1
                elif letter == '"':
                    self._quoted = self._broken = False
                    mark = text.find(end, self._at) if mark >= 0 else mark
                elif letter == "\n":
                    self._broken = True
            elif letter == '"':
                self._quoted = True
            elif letter in "{[":
                self._depth += 1
            elif letter in "}]":
                self._depth -= 1
                if not self._depth:
                    self._held, self._state = text[self._at + 1 :], "tail"
                    return [Part("arguments", text[: self._at + 1])]
            self._at += 1
        if last:
            return self._leave(mark)
        sure = mark if mark >= 0 else len(text) - (_risk(text, [end]) if end else 0)
        sure = min(sure, self._at)
        self._held, self._at = text[sure:], self._at - sure
        return [Part("arguments", text[:sure])] if sure else []

    def _leave(self, mark: int) -> list[Part]:
        """The arguments end before they are whole: at a mark, or (-1) with the answer."""
        assert self._form is not None
        at = mark if mark >= 0 else len(self._held)
        text, self._held = self._held[:at], self._held[at + len(self._form.end) :]
        self._state, self._skip = "content", True
        return [Part("arguments", text)] if text else []

    def _tail(self, last: bool) -> list[Part]:
        """What follows a call's arguments: brackets, further calls, the mark at the end."""
        form = self._form
        assert form is not None
        mark = self._held.find(form.end) if form.end else -1
        end = mark if mark >= 0 else len(self._held)
        closed = CLOSERS.match(self._held, 0, end)
        start = closed.end() if closed else 0
        if (parts := self._begins(start, end)) is not None:
            return parts
        if mark < 0 and not last:
            return []
        body, self._held = self._held[start:end].strip(BLANK), self._held[end + len(form.end) :]
        self._state, self._skip = "content", True
        return (self._read(form, body) or self._give("text", body)) if body else []

    def _read(self, form: Form, body: str) -> list[Part] | None:
        """The calls of a block: none where there are none, None where it goes on."""
        try:
            calls = form.read(body, self._tools)
        except Unfinished:
            return None
        except (ValueError, RecursionError, DataError):
            return []
        if form.begins and not {call["name"] for call in calls} <= self._names:
            return []
        calls = calls if self._parallel else calls[: 1 - self.n_calls]
        self.n_calls += len(calls)
        return [
            part
            for call in calls
            for part in (Part("call", call["name"]), Part("arguments", to_json(call["arguments"])))
        ]

    def _give(self, kind: str, text: str) -> list[Part]:
        if text and kind == "text":
            self._fresh = False
        return [Part(kind, text)] if text else []

    def _strip(self) -> None:
        if self._skip:
            self._held = self._held.lstrip(BLANK)
            self._skip = not self._held


def _risk(text: str, marks: Sequence[str]) -> int:
    """Length of the longest tail that a mark starts with."""
    for n in range(min(len(text), max(map(len, marks), default=1) - 1), 0, -1):
        if any(len(mark) > n and text.endswith(mark[:n]) for mark in marks):
            return n
    return 0
