"""Which text of a rendered conversation the assistant wrote, for templates that do not say.

A template with `generation` tags says it. Of others it is found by rendering again and comparing:

    content   what changes when the message changes
    begin     where the prompt for this answer ends (add_generation_prompt on the messages before it)
    end       the first stop token after the content, before the next message's text

so what is learned is what the model has to write when it is asked: what stands between the prompt and the
stop token, and that token. Templates may strip, merge turns, add a system prompt, drop earlier thoughts or
put calls before text; where the three places cannot be told for certain, the row is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from os.path import commonprefix
from typing import Any, NamedTuple

from tinygpt.core.errors import DataError

Message = dict[str, Any]
Write = Callable[[Sequence[Message], bool], tuple[str, list[tuple[int, int]]]]

OTHER = "choose another with --template NAME"
THOUGHT = re.compile(r".*</think>\s*", re.DOTALL)
# Private use: no text holds them but by intent. Names of control tokens in people's text stand between two.
UNUSED = "".join(chr(code) for code in range(0xF0000, 0xF0040))
PLAIN = {"role": "assistant"}
PROBES = ("aQq0b", "cZz1d", "eXx2f")  # differ in their first and in their last letter
MOST_SKELETONS = 4096


class Learned(NamedTuple):
    """text[begin:end] is learned, for the assistant's message of this number."""

    begin: int
    end: int
    message: int


class _Part(NamedTuple):
    """Of a skeleton: a fixed text, or the content of message `slot`; learned for `message`, or -1."""

    text: str
    slot: int
    message: int


def learned(
    text: str,
    messages: Sequence[Message],
    write: Write,
    stops: Sequence[str],
    tagged: list[tuple[int, int]] | None,
    skeletons: dict[Any, list[_Part] | None],
    tools: Any,
) -> list[Learned]:
    """What of `text` is learned, in order. `tagged`: the blocks that the template names itself. DataError
    where that cannot be told."""
    if not any(m["role"] == "assistant" for m in messages):
        return []
    if tagged:
        try:
            found = _compare(text, messages, write, stops)
        except DataError:
            return _tagged(text, messages, stops, tagged)
        return _both(text, found, tagged, stops)
    if any(m.get("tool_calls") or set(m) - {"role", "content"} for m in messages):
        return _compare(text, messages, write, stops)
    key = (tuple((m["role"], bool(m["content"])) for m in messages), json.dumps(tools))
    if key not in skeletons:
        if len(skeletons) >= MOST_SKELETONS:
            skeletons.clear()
        skeletons[key] = _skeleton(messages, write, stops)
    parts = skeletons[key]
    found = _fill(parts, text, messages) if parts else None
    return found or _compare(text, messages, write, stops)


def _tagged(
    text: str, messages: Sequence[Message], stops: Sequence[str], blocks: list[tuple[int, int]]
) -> list[Learned]:
    numbers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    found: list[Learned] = []
    for i, (begin, end) in enumerate(blocks):
        kept = text[begin:end].rstrip()
        if kept.endswith(tuple(stops)):
            end = begin + len(kept)  # blanks after the stop token are nobody's
        if begin < end <= len(text):
            which = numbers[i] if len(blocks) == len(numbers) else numbers[0] + i
            found.append(Learned(begin, end, which))
    _ordered(found)
    if not found or not any(stop in text[found[-1].begin : found[-1].end] for stop in stops):
        raise DataError("the chat template marks no answer that ends with a stop token", hint=OTHER)
    return found


def _both(
    text: str, found: Sequence[Learned], blocks: Sequence[tuple[int, int]], stops: Sequence[str]
) -> list[Learned]:
    """What the template names and the model has to write: some templates name headers and line ends too, or
    leave out the stop token."""
    kept: list[Learned] = []
    for at in found:
        parts = [(max(at.begin, b), min(at.end, e)) for b, e in blocks if b < at.end and e > at.begin]
        if parts and text[parts[-1][1] : at.end].strip() in stops:
            parts[-1] = parts[-1][0], at.end
        kept += [Learned(begin, end, at.message) for begin, end in parts if begin < end]
    if not kept:
        raise DataError("the chat template marks no answer of this conversation", hint=OTHER)
    return kept


def _skeleton(messages: Sequence[Message], write: Write, stops: Sequence[str]) -> list[_Part] | None:
    """The rendering of a conversation of this form with its contents left open; None where it has none."""
    names = [f"gQ{i}x{i}Qh" for i in range(len(messages))]
    probe = [{**m, "content": n if m["content"] else ""} for m, n in zip(messages, names, strict=True)]
    try:
        text, _ = write(probe, False)
        found = _compare(text, probe, write, stops)
    except DataError:
        return None  # the conversation itself is compared, and its own error told
    slots: list[tuple[int, int, int]] = []
    for i, name in enumerate(names):
        if probe[i]["content"]:
            if text.count(name) != 1:
                return None
            slots.append((text.index(name), text.index(name) + len(name), i))
    borders = {0, len(text), *(b for at in found for b in at[:2]), *(b for slot in slots for b in slot[:2])}
    edges = sorted(borders)
    parts: list[_Part] = []
    for begin, end in zip(edges, edges[1:]):
        slot = next((i for b, e, i in slots if b <= begin and end <= e), -1)
        message = next((at.message for at in found if at.begin <= begin and end <= at.end), -1)
        parts.append(_Part(text[begin:end], slot, message))
    return parts


def _fill(parts: Sequence[_Part], text: str, messages: Sequence[Message]) -> list[Learned] | None:
    """The learned text where `text` is this skeleton with the contents in it, stripped or not; else None."""
    at = 0
    found: list[Learned] = []
    for i, part in enumerate(parts):
        if part.slot < 0:
            size = len(part.text) if text.startswith(part.text, at) else -1
        else:
            content = messages[part.slot]["content"]
            after = parts[i + 1].text if i + 1 < len(parts) and parts[i + 1].slot < 0 else ""
            size = next(
                (
                    len(c)
                    for c in dict.fromkeys((content, content.strip(), content.rstrip(), content.lstrip()))
                    if text.startswith(c + after, at)
                ),
                -1,
            )
        if size < 0:
            return None
        if part.message >= 0 and size:
            if found and found[-1].message == part.message and found[-1].end == at:
                found[-1] = found[-1]._replace(end=at + size)
            else:
                found.append(Learned(at, at + size, part.message))
        at += size
    return found if at == len(text) else None


def _compare(text: str, messages: Sequence[Message], write: Write, stops: Sequence[str]) -> list[Learned]:
    found: list[Learned] = []
    bounds = [_bounds(text, messages, i, write) for i in range(len(messages))]
    asks: bool | None = None  # whether the template knows a prompt for an answer
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        here = bounds[i]
        if here is None:
            raise DataError(f"the chat template leaves out message {i + 1}, an answer", hint=OTHER)
        begin, prompt = _begin(text, messages, i, write, bounds, here[0])
        if asks is None:
            asks = _asks(messages[:i], prompt, write)
        if not asks:
            begin += len(_header(text, messages, i, write, begin))
        after = next((b[0] for b in bounds[i + 1 :] if b is not None), len(text))
        if any(_find(text, stop, begin, here[1]) >= 0 for stop in stops):
            raise DataError(
                f"the chat template writes message {i + 1}, an answer, more than once", hint=OTHER
            )
        ends = [at + len(stop) for stop in stops if (at := _find(text, stop, here[1], after)) >= 0]
        if not ends and (message.get("tool_calls") or i + 1 == len(messages)):
            raise DataError(
                f"the chat template writes no stop token after message {i + 1}, so a model would never learn "
                "to stop",
                hint=OTHER,
            )
        found.append(Learned(begin, min(ends, default=here[1]), i))
    _ordered(found)
    return found


def _find(text: str, stop: str, begin: int, end: int) -> int:
    """Where the template writes a stop token, -1 for nowhere; names of it in people's text are wrapped."""
    at = text.find(stop, begin, end)
    while at > 0 and text[at - 1] in UNUSED:
        at = text.find(stop, at + 1, end)
    return at


def _bounds(text: str, messages: Sequence[Message], i: int, write: Write) -> tuple[int, int] | None:
    """(begin, end) in `text` of what depends on message i; None where nothing does."""
    for probe in _probes(messages[i]):
        try:
            other, _ = write([*messages[:i], _changed(messages[i], probe), *messages[i + 1 :]], False)
        except DataError:
            return None
        if other != text:
            begin = len(commonprefix([text, other]))
            size = len(commonprefix([text[begin:][::-1], other[begin:][::-1]]))
            return begin, len(text) - size
    return None


def _probes(message: Message) -> list[str]:
    """The probes, those first that neither begin nor end as the message's text does: another moves a bound
    into the text, and one that is equal to it tells nothing."""
    said = (message["content"] or "").strip().lower()
    return sorted(PROBES, key=lambda probe: said[:1] == probe[0] or said[-1:] == probe[-1])


def _changed(message: Message, probe: str) -> Message:
    """The same message with other words in it; a thought stays, since templates ask whether there is one."""
    other = dict(message)
    calls, content = message.get("tool_calls"), message.get("content")
    if content or not calls:
        thought = THOUGHT.match(content or "")
        other["content"] = (thought[0] if thought else "") + probe
    if calls:
        other["tool_calls"] = [
            {**call, "function": {"name": probe, "arguments": _probe_arguments(call, probe)}}
            for call in calls
        ]
    return other


def _probe_arguments(call: Message, probe: str) -> Any:
    arguments = call["function"]["arguments"]
    if isinstance(arguments, str):
        return json.dumps({"key": probe})
    return {key: probe for key in arguments} or {}


def _begin(
    text: str,
    messages: Sequence[Message],
    i: int,
    write: Write,
    bounds: Sequence[tuple[int, int] | None],
    content: int,
) -> tuple[int, str]:
    """Where the prompt for message i ends in `text`, and that prompt; the content begins there or later."""
    where = f"where the answer in message {i + 1} begins"
    try:
        prompt, _ = write(messages[:i], True)
    except DataError as error:
        raise DataError(f"the chat template does not show {where}: {error.message}", hint=OTHER) from error
    if text.startswith(prompt):
        at = len(prompt)
    else:
        # The template writes what came before in another way than in the prompt (earlier thoughts are
        # dropped), or the prompt opens a thought: what follows the message before it is compared.
        before = bounds[i - 1] if i else (0, 0)
        own = _bounds_in_prompt(prompt, messages[:i], write) if i else 0
        if before is None or own is None:
            raise DataError(f"the chat template does not show {where}", hint=OTHER)
        tail = prompt[own:]
        same = len(commonprefix([tail, text[before[1] :]]))
        tag = tail.rfind("<", 0, same)
        if tag >= 0 and ">" not in tail[tag:same]:
            same = tag  # <think> and <tool_call> are not one tag that begins alike
        rest = tail[same:].strip()
        at = before[1] + same
        if at > content:
            at = content
        elif rest and not (tail[:same].strip() and rest.startswith("<")):
            raise DataError(f"the chat template does not show {where}", hint=OTHER)
    if at > content:
        raise DataError(f"the chat template does not show {where}", hint=OTHER)
    return at, prompt


def _header(text: str, messages: Sequence[Message], i: int, write: Write, at: int) -> str:
    """What stands in `text` before an answer though no prompt asks for it: the template's own header, where
    it knows no prompt for answers. Blanks are none."""
    after = messages[i + 1 :]
    try:
        others = [write([*messages[:i], {**PLAIN, "content": p}, *after], False)[0] for p in PROBES]
    except DataError:
        return ""
    header = commonprefix([other[at:] for other in others])
    return header if header.strip() and text.startswith(header, at) else ""


def _asks(messages: Sequence[Message], prompt: str, write: Write) -> bool:
    """Whether the template knows a prompt for an answer."""
    try:
        return write(messages, False)[0] != prompt
    except DataError:
        return True


def header_of(before: Sequence[Message], prompt: str, write: Write) -> str:
    """What a template without a prompt for answers writes before an answer; "" for others."""
    if _asks(before, prompt, write):
        return ""
    try:
        answers = [write([*before, {**PLAIN, "content": p}], False)[0] for p in PROBES]
    except DataError:
        return ""
    whole = commonprefix(answers)
    header = whole[len(prompt) :] if whole.startswith(prompt) else ""
    return header if header.strip() else ""


def _bounds_in_prompt(prompt: str, messages: Sequence[Message], write: Write) -> int | None:
    """Where the last message's text ends in the prompt that follows it."""
    for probe in _probes(
        messages[-1]
    ):  # as in `_bounds`, whose place in the conversation this is compared to
        other, _ = write([*messages[:-1], _changed(messages[-1], probe)], True)
        if other != prompt:
            begin = len(commonprefix([prompt, other]))
            return len(prompt) - len(commonprefix([prompt[begin:][::-1], other[begin:][::-1]]))
    return None


def _ordered(found: Sequence[Learned]) -> None:
    for one, other in zip(found, found[1:]):
        if one.end > other.begin:
            raise DataError("the chat template mixes the text of two answers", hint=OTHER)
