"""Models, embeddings, and the tokenizer: what is asked once and answered at once."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING, Any

from tinygpt.serve.cards import opened, width
from tinygpt.serve.fields import Fields
from tinygpt.serve.job import Desk, ModelCard
from tinygpt.serve.leaving import stay
from tinygpt.serve.limits import Settings
from tinygpt.serve.openai import ask
from tinygpt.serve.openai.answers import reply
from tinygpt.serve.openai.completions import texts

if TYPE_CHECKING:
    from fastapi import Request, Response

POOLING = "mean"  # how a text's hidden states become one; said with every embedding
EMBEDDINGS = {
    "model": "string", "input": "string|array", "encoding_format": "string", "dimensions": "integer",
    "user": "string",
}  # fmt: skip
TOKENIZE = {"model": "string", "prompt": "string", "content": "string", "add_special_tokens": "boolean",
            "parse_special": "boolean"}  # fmt: skip
DETOKENIZE = {"model": "string", "tokens": "array"}
NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")


def shown(card: ModelCard) -> dict[str, Any]:
    """A model as OpenAI lists it, and what vLLM's clients look for beside it."""
    return {
        "id": card.name,
        "object": "model",
        "created": card.created,
        "owned_by": "tinygpt",
        "root": card.base or card.name,
        "parent": card.base or None,
        "max_model_len": card.context,
        "details": {
            "family": card.family,
            "n_parameters": card.n_parameters,
            "quantization": card.quantization,
            "adapters": list(card.adapters),
            "loaded": card.loaded,
            "embedding_pooling": POOLING,
        },
    }


async def models(desk: Desk) -> Response:
    return reply({"object": "list", "data": [shown(card) for card in desk.models()]})


async def model(desk: Desk, name: str) -> Response:
    return reply(shown(await desk.card(name)))


async def embeddings(request: Request, f: Fields, desk: Desk, settings: Settings) -> Response:
    """The mean of each input's last hidden states."""
    encoding = f.choice("encoding_format", ("float", "base64"), "float")
    wide = f.integer("dimensions", 1, ask.LONGEST)
    inputs = texts(f, "input", settings.limits.prompts)
    if "" in inputs:
        raise f.wrong("input", "holds an empty text")
    card = await desk.card(f.text("model", ""))
    if wide is not None and wide != (known := await width(request, desk, card.name)):
        raise f.wrong("dimensions", f"must be {known}, the width of this model")
    vectors, n_tokens = await stay(request, desk.embed(f.text("model", ""), inputs))
    data = [
        {"object": "embedding", "index": i, "embedding": _base64(v) if encoding == "base64" else v}
        for i, v in enumerate(vectors)
    ]
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    shape = {"object": "list", "data": data, "model": card.name, "usage": usage}
    return reply(shape, **{"X-Embedding-Pooling": POOLING})


def _base64(vector: list[float]) -> str:
    """float32, the lowest byte first."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


async def tokenize(request: Request, f: Fields, desk: Desk, settings: Settings) -> Response:
    """vLLM's `prompt` or llama.cpp's `content` as ids. Where the tokenizer has a bos it comes first, unless
    `add_special_tokens` is false; a control token's name is that token, unless `parse_special` is false."""
    for name in ("return_token_strs", "with_pieces"):
        f.refuse(name, "cannot be done: only ids are given")
    text = f.text("prompt", f.text("content", "")) if "prompt" in f or "content" in f else None
    if text is None:
        f.refuse("messages", "cannot be tokenized: only 'prompt' or 'content' can")
        raise f.wrong("prompt", "is required")
    card = await desk.card(f.text("model", ""))
    special, control = f.flag("add_special_tokens", True), f.flag("parse_special", True)
    ids = await desk.tokenize(f.text("model", ""), text, special=special, control=control)
    return reply({"tokens": ids, "count": len(ids), "max_model_len": card.context})


async def detokenize(request: Request, f: Fields, desk: Desk, settings: Settings) -> Response:
    """Ids as text, under vLLM's name for it and llama.cpp's."""
    ids = f.any("tokens")
    if not isinstance(ids, list) or not all(ask.is_id(id) for id in ids):
        raise f.wrong("tokens", "must be a list of token ids")
    text = await desk.detokenize(f.text("model", ""), ids)
    return reply({"prompt": text, "content": text})


async def tokenizer_info(request: Request, desk: Desk) -> Response:
    """What lm-eval's remote tokenizer asks; null where the tokenizer has no such token."""
    card = await opened(request, desk, request.query_params.get("model", ""))
    named = {key: card.details.get(key) for key in NAMES}
    told = {"tokenizer_class": "tinygpt", "model_max_length": card.context, **named}
    return reply(told | {"chat_template": card.template or None})
