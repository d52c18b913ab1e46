"""POST /v1/completions, and /v1/fim/completions as Continue and Mistral know it."""

from __future__ import annotations

import dataclasses
import time
import uuid
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from tinygpt.serve.fields import Fields, kind
from tinygpt.serve.job import Desk, Done, Event, ModelCard, Text
from tinygpt.serve.limits import Settings
from tinygpt.serve.openai import ask, reports
from tinygpt.serve.openai.answers import Heard, hear, respond, said
from tinygpt.serve.openai.chat import ChatForm, budget, fingerprint, wants_usage

if TYPE_CHECKING:
    from fastapi import Request, Response

MAX_TOKENS = 16  # OpenAI's default
FIM_TOKENS = 256
DOCUMENT = {
    "model": "string", "prompt": "string|array", "suffix": "string", "max_tokens": "integer",
    "echo": "boolean", "logprobs": "integer|boolean", "return_tokens_as_token_ids": "boolean",
    "best_of": "integer", "stream": "boolean",
    "stream_options": "object", **ask.SAMPLING,
}  # fmt: skip
FIM_DOCUMENT = {
    "model": "string", "prompt": "string", "suffix": "string", "max_tokens": "integer", "stream": "boolean",
    "stream_options": "object", **ask.SAMPLING,
}  # fmt: skip


def texts(f: Fields, name: str, most: int) -> list[str | list[int]]:
    """A text, a list of texts, a list of ids, or a list of such lists, which may differ in length."""
    value = f.any(name)
    if value is None:
        raise f.wrong(name, "is required")
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise f.wrong(name, f"must be text or token ids, got {kind(value)}")
    if not value:
        raise f.wrong(name, "is empty")
    if all(ask.is_id(id) for id in value):
        return [value]
    if len(value) > most:
        raise f.wrong(name, f"may have at most {most} entries, got {len(value)}")
    for i, each in enumerate(value):
        ids = isinstance(each, list) and bool(each) and all(ask.is_id(id) for id in each)
        if not (ids or isinstance(each, str)):
            raise f.wrong(f"{name}[{i}]", "must be text or a list of token ids that is not empty")
    return value


def job(f: Fields, settings: Settings, id: str) -> Text:
    """The body as a job whose prompt is to be put in. FieldError names the field that is wrong."""
    f.refuse("max_completion_tokens", "is of chats: here it is 'max_tokens'")
    echo = f.flag("echo")
    most = f.integer("max_tokens", 0, ask.LONGEST, MAX_TOKENS)
    if most == 0 and not echo:
        raise f.wrong("max_tokens", "may be 0 only with 'echo'")
    suffix = f.text("suffix") or None
    if suffix is not None and echo:
        raise f.wrong("suffix", "and 'echo' exclude each other")
    common = ask.common(f, settings.limits, most or 1, id)
    best_of = f.integer("best_of", 1, settings.limits.answers)
    if best_of is not None and best_of < common["n"]:
        raise f.wrong("best_of", f"must be at least 'n', which is {common['n']}")
    if f.flag("stream") and best_of is not None and best_of > common["n"]:
        raise f.wrong("best_of", "cannot be streamed: the best is known at the end")
    return Text(
        prompt="", suffix=suffix, echo=echo, score_only=most == 0, best_of=best_of,
        logprobs=_alternatives(f, settings.limits.alternatives), **common,
    )  # fmt: skip


def _alternatives(f: Fields, most: int) -> int | None:
    """`logprobs`: how many alternatives, or as chats say it, whether."""
    if isinstance(f.any("logprobs"), bool):
        return 0 if f.flag("logprobs") else None
    return f.integer("logprobs", 0, most)


async def answer(request: Request, f: Fields, desk: Desk, settings: Settings) -> Response:
    """Every prompt of one request gone on with."""
    streamed = f.flag("stream")
    with_usage = wants_usage(f, streamed)
    card = await desk.card(f.text("model", ""))
    id = f"cmpl-{uuid.uuid4().hex}"
    asked = job(f, settings, id)
    prompts = texts(f, "prompt", settings.limits.prompts)
    jobs = [desk.text(dataclasses.replace(asked, prompt=prompt)) for prompt in prompts]
    told, by_id = asked.logprobs is not None, f.flag("return_tokens_as_token_ids")
    form = TextForm(id, card, n=asked.n, usage=with_usage, logprobs=told, by_id=by_id)
    return await respond(request, jobs, form, streamed=streamed)


async def fill(request: Request, f: Fields, desk: Desk, settings: Settings) -> Response:
    """What stands between prompt and suffix, written as a chat's answer is."""
    streamed = f.flag("stream")
    with_usage = wants_usage(f, streamed)
    card = await desk.card(f.text("model", ""))
    id = f"chatcmpl-{uuid.uuid4().hex}"
    prompt = f.text("prompt")
    if prompt is None:
        raise f.wrong("prompt", "is required")
    for name in ("logprobs", "echo", "best_of"):
        f.refuse(name, "is of completions", but=(1,) if name == "best_of" else ())
    common = ask.common(f, settings.limits, budget(f, FIM_TOKENS), id)
    asked = Text(prompt=prompt, suffix=f.text("suffix") or None, **common)
    form = ChatForm(id, card, n=asked.n, usage=with_usage, logprobs=False)
    return await respond(request, [desk.text(asked)], form, streamed=streamed)


class TextForm:
    """Completions and their chunks; answer j to prompt i is choice i n + j."""

    def __init__(
        self, id: str, card: ModelCard, *, n: int, usage: bool, logprobs: bool, by_id: bool = False
    ) -> None:
        self.heard: dict[tuple[int, int], Heard] = {}
        self._n, self._usage, self._logprobs, self._by_id = n, usage, logprobs, by_id
        self._offsets: dict[int, reports.Offsets] = defaultdict(reports.Offsets)
        self._head = {
            "id": id,
            "object": "text_completion",
            "created": int(time.time()),
            "model": card.name,
            "system_fingerprint": fingerprint(card),
        }

    def chunks(self, job: int, event: Event) -> list[dict[str, Any]]:
        hear(self, job, event)
        index = job * self._n + event.index
        if isinstance(event, Done):
            choice = {"index": index, "text": "", "logprobs": None, "finish_reason": event.finish_reason}
        elif said(event) and (event.text or self._logprobs):
            logprobs = None
            if self._logprobs and event.tokens:
                logprobs = reports.of_text(event.tokens, self._offsets[index], by_id=self._by_id)
            choice = {"index": index, "text": event.text, "logprobs": logprobs, "finish_reason": None}
        else:
            return []
        return [self._head | {"choices": [choice]} | ({"usage": None} if self._usage else {})]

    def last(self) -> list[dict[str, Any]]:
        return [self._head | {"choices": [], "usage": self._used()}] if self._usage else []

    def whole(self) -> dict[str, Any]:
        choices = [
            {
                "index": job * self._n + index,
                "text": heard.text,
                "logprobs": self._told(heard),
                "finish_reason": heard.done.finish_reason if heard.done else "stop",
            }
            for (job, index), heard in sorted(self.heard.items())
        ]
        return self._head | {"choices": choices, "usage": self._used()}

    def _told(self, heard: Heard) -> dict[str, Any] | None:
        return reports.of_text(heard.tokens, reports.Offsets(), by_id=self._by_id) if self._logprobs else None

    def _used(self) -> dict[str, Any]:
        jobs = sorted({job for job, _ in self.heard})
        return reports.usage(
            [[h.done.usage for (job, _), h in self.heard.items() if job == one and h.done] for one in jobs]
        )
