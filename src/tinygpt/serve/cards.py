"""What a model can do, as clients of Ollama ask, and its card once it is in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygpt.serve import fim
from tinygpt.serve.job import Desk, ModelCard
from tinygpt.serve.leaving import stay
from tinygpt.serve.prompts import MARKS, source_of

if TYPE_CHECKING:
    from fastapi import Request

    from tinygpt.infer.engine import Engine

SIZES = (
    "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "num_key_value_heads",
    "vocab_size",
)  # fmt: skip


def facts(engine: Engine) -> dict[str, Any]:
    """What only an open model tells: `capabilities`, in Ollama's words, control tokens, and sizes."""
    source = source_of(engine.template) if engine.template else ""
    special = engine.tokenizer.special
    can = ["completion"]
    if source:
        can.append("tools")  # where a template has no form for them, a paragraph says them
    if any(all(name in special for name in names if name) for names in fim.SETS):
        can.append("insert")
    if any(mark in source for marks in MARKS for mark in marks):
        can.append("thinking")
    config = engine.model.config
    sizes = {name: getattr(config, name) for name in SIZES if isinstance(getattr(config, name, None), int)}
    return {"capabilities": [*can, "embedding"], **engine.tokenizer.names, **sizes}


def capabilities(card: ModelCard) -> list[str]:
    """What a model can do; what every model can where it is not open yet."""
    return list(card.details.get("capabilities", ("completion", "tools", "embedding")))


async def opened(request: Request, desk: Desk, name: str) -> ModelCard:
    """The card of a model that is in memory now; UnknownModel. One that is already keeps its time."""
    card = await desk.card(name)
    if card.loaded:
        return card
    await stay(request, desk.load(card.name))
    return await desk.card(card.name)


async def width(request: Request, desk: Desk, name: str) -> int:
    """How many numbers a model's embeddings have; where its sizes do not say so, a short one tells."""
    card = await opened(request, desk, name)
    if said := card.details.get("hidden_size"):
        return said
    vectors, _ = await stay(request, desk.embed(card.name, ["a"]))
    return len(vectors[0])
