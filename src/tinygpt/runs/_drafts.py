"""Conversations while a model writes both sides of them, many at a time."""

from __future__ import annotations

import collections
from dataclasses import dataclass, field
from typing import Any

from tinygpt.data.alike import Seen
from tinygpt.data.message import Message
from tinygpt.data.template._ahead import ahead
from tinygpt.data.template._spans import encode
from tinygpt.runs._answerers import Ask, Told
from tinygpt.runs._asking import seed_of
from tinygpt.runs._magpie import Author, Config

CUT, ROOM = "cut off", "no room in the context"


@dataclass
class Draft:
    """A conversation while it is written; `fault` says why it is dropped."""

    number: int
    messages: list[Message]
    fault: str = ""
    score: float | None = None
    tokens: int = 0


@dataclass
class Kept:
    """What has become of the attempts so far."""

    seen: Seen
    numbers: list[int] = field(default_factory=list[int])
    dropped: collections.Counter[str] = field(default_factory=collections.Counter[str])
    tried: int = 0
    tokens: int = 0

    def take(self, number: int, line: dict[str, Any]) -> None:
        """One more line of the journal."""
        self.tried, self.tokens = number + 1, self.tokens + line["tokens"]
        if line["fault"]:
            self.dropped[line["fault"]] += 1
        else:
            self.numbers.append(number)
            self.seen.add(questions(line["messages"]))


def write_turn(config: Config, author: Author, drafts: list[Draft], turn: int) -> None:
    """A question and an answer more for each."""
    if not drafts:
        return
    found = [ahead(author.template, author.tokenizer, draft.messages) for draft in drafts]
    asks = [_ask(config, d, 2 * turn, one.ids) for d, one in zip(drafts, found, strict=True)]
    told = author.write(
        asks, max_tokens=config.max_user, temperature=config.temperature, stop=found[0].stop,
        stop_ids=found[0].stop_ids,
    )  # fmt: skip
    for draft in drafts:
        _add(config, draft, "user", told[draft.number], told[draft.number].text, config.min_user)
    drafts = [draft for draft in drafts if not draft.fault]
    prompts = [author.template.render(d.messages, None, True) for d in drafts]
    asks = [
        _ask(config, d, 2 * turn + 1, encode(spans, author.tokenizer)[0])
        for d, spans in zip(drafts, prompts, strict=True)
    ]
    heat = config.temperature if config.answer_temperature is None else config.answer_temperature
    ends = frozenset(author.tokenizer.stop_ids)
    told = author.write(asks, max_tokens=config.max_assistant, temperature=heat, stop_ids=ends)
    for draft in drafts:
        text = author.template.parse(told[draft.number].text)["content"]
        _add(config, draft, "assistant", told[draft.number], text, config.min_assistant)


def _add(config: Config, draft: Draft, role: str, told: Told, text: str, least: int) -> None:
    n, text = told.tokens or 0, text.strip()
    draft.tokens += n
    draft.messages.append({"role": role, "content": text})
    what = "question" if role == "user" else "answer"
    if told.error:
        draft.fault = ROOM
    elif told.finish_reason == "length":
        draft.fault = f"{what} {CUT}"
    elif fault := "too short" if n < least or not text else config.fault(text):
        draft.fault = f"{what} {fault}"


def _ask(config: Config, draft: Draft, part: int, ids: list[int]) -> Ask:
    seed = seed_of(config.seed, draft.number, part)
    return Ask(number=draft.number, sample=part, row={}, sha="", seed=seed, ids=ids)


def opening(config: Config) -> list[Message]:
    return [{"role": "system", "content": config.system}] if config.system else []


def questions(messages: list[Message]) -> str:
    """What is compared of a conversation: its questions."""
    return "\n".join(message["content"] for message in messages if message["role"] == "user")
