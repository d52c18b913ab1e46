"""A desk over a real registry, worker, lane and engine, and what is heard from it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import nano
from tinygpt.core.backend import mx
from tinygpt.data.template import _choice
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane, Limits
from tinygpt.infer.worker import Worker
from tinygpt.serve.desk import FrontDesk
from tinygpt.serve.job import Delta, Done, Event, ModelCard
from tinygpt.serve.registry import Opened, Registry
from unlearned import Unlearned

TOKENIZER = ByteTokenizer()
GREEDY = SampleConfig(temperature=0, max_tokens=16)
HI = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
END = TOKENIZER.special["<|im_end|>"]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city.\nSecond line.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 5}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Scripted(Unlearned):
    """A model that writes the script of a prompt: the n-th, when n results of tools are in it. Answers of
    different turns must not overlap."""

    def __init__(self, scripts: Sequence[str], context: int = 4096) -> None:
        super().__init__(context)
        self._scripts = [[*s.encode(), END] for s in scripts]
        self._left: list[int] = []
        self.prompts: list[str] = []

    def __call__(self, tokens_BL: mx.array, cache: Any = None, *, last: int = 0) -> mx.array:
        if tokens_BL.shape[1] > 1:
            self.prompts.append(TOKENIZER.decode(tokens_BL[0].tolist()))
            self._left = list(self._scripts[self.prompts[-1].count("<tool_response>")])
        id = self._left.pop(0) if self._left else END
        row_V = (mx.arange(260) == id).astype(mx.float32) * 9
        return mx.broadcast_to(row_V, (tokens_BL.shape[0], last or tokens_BL.shape[1], 260))


def tiny() -> Any:
    return nano.model(vocab_size=260, max_position_embeddings=1024)


@contextlib.asynccontextmanager
async def opened(
    model: Callable[[], Any] = tiny,
    tokenizer: Any = TOKENIZER,
    limits: Limits | None = None,
    template: str = "auto",
    **options: Any,
) -> AsyncGenerator[tuple[FrontDesk, Engine]]:
    made: list[Engine] = []

    def open_(name: str, base: Engine | None) -> Opened:
        made.append(Engine(model(), tokenizer, _choice.of(tokenizer, template)))
        return Opened(engine=made[0], lane=Lane(made[0], limits), card=CARD, own_bytes=0)

    with Worker() as worker:
        registry = Registry(worker, open_, lambda: {"tiny": CARD})
        await registry.load("tiny")
        desk = FrontDesk(registry, **options)
        try:
            yield desk, made[0]
        finally:
            desk.close()
            await registry.close()


CARD = ModelCard(name="tiny", created=0, context=1024, size_bytes=0, n_parameters=0, digest="")


async def heard(events: Any) -> list[Event]:
    return [event async for event in events]


def text_of(events: Sequence[Event], index: int = 0) -> str:
    return "".join(e.text for e in events if isinstance(e, Delta) and e.index == index)


def done_of(events: Sequence[Event], index: int = 0) -> Done:
    (found,) = [e for e in events if isinstance(e, Done) and e.index == index]
    return found


def calls_of(events: Sequence[Event]) -> list[tuple[str, Any]]:
    parts = [p for e in events if isinstance(e, Delta) for p in e.calls]
    written = {p.index: "".join(q.arguments for q in parts if q.index == p.index) for p in parts}
    return [(p.name, json.loads(written[p.index])) for p in parts if p.id]


async def on(desk: FrontDesk, work: Callable[[], Any]) -> Any:
    """Something of the engine's, on the thread that owns it."""
    return await asyncio.wrap_future(desk.registry.worker.call(work))
