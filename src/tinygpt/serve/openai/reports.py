"""Usage and log-probabilities in OpenAI's two forms: that of chats, and the older one of completions."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from typing import Any

from tinygpt.serve.job import Token, Usage

LOWEST = -9999.0  # what OpenAI says for an impossible token; JSON has no infinity


def usage(of_prompts: Sequence[Sequence[Usage]]) -> dict[str, Any]:
    """Tokens of a whole request: each inner list has the answers to one prompt, which counts once."""
    every = [one for answers in of_prompts for one in answers]
    prompt = sum(max((one.prompt_tokens for one in answers), default=0) for answers in of_prompts)
    cached = sum(max((one.cached_tokens for one in answers), default=0) for answers in of_prompts)
    written = sum(one.completion_tokens for one in every)
    accepted = sum(one.accepted_tokens for one in every)
    found: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {
            "reasoning_tokens": sum(one.reasoning_tokens for one in every),
            "accepted_prediction_tokens": accepted,
            "rejected_prediction_tokens": sum(one.drafted_tokens for one in every) - accepted,
        },
    }
    if hops := sum(one.tool_info_hops for one in every):
        found["get_tool_info_hops"] = hops
    return found


def of_chat(tokens: Iterable[Token]) -> dict[str, Any]:
    """`choices[].logprobs` of a chat."""
    return {"content": [_entry(token) for token in tokens], "refusal": None}


def _entry(token: Token) -> dict[str, Any]:
    top = [_plain(other, logprob) for other, logprob in token.top]
    return _plain(token, token.logprob) | {"top_logprobs": top}


def _plain(token: Token, logprob: float | None) -> dict[str, Any]:
    return {"token": token.text, "logprob": _number(logprob), "bytes": list(token.bytes)}


class Offsets:
    """Where each token begins, in characters of the choice's text; a token may be part of a character."""

    def __init__(self) -> None:
        self._decoder, self._at = codecs.getincrementaldecoder("utf-8")("replace"), 0

    def of(self, tokens: Sequence[Token]) -> list[int]:
        """Those of the next tokens."""
        found: list[int] = []
        for token in tokens:
            found.append(self._at)
            self._at += len(self._decoder.decode(token.bytes))
        return found


def of_text(tokens: Sequence[Token], offsets: Offsets, *, by_id: bool = False) -> dict[str, Any]:
    """`choices[].logprobs` of a completion. `top_logprobs` has the token itself beside its alternatives, and
    of two with the same text the likelier, so that the largest number is the argmax's. `by_id`: tokens are
    named "token_id:17" everywhere, as vLLM does, and no two are the same."""

    def name(token: Token) -> str:
        return f"token_id:{token.id}" if by_id else token.text

    tops: list[dict[str, float] | None] = []
    for token in tokens:
        if token.logprob is None:
            tops.append(None)
            continue
        named: dict[str, float] = {}
        for other, logprob in (*token.top, (token, token.logprob)):
            number = _number(logprob)
            assert number is not None
            named[name(other)] = max(number, named.get(name(other), number))
        tops.append(named)
    return {
        "tokens": [name(token) for token in tokens],
        "token_logprobs": [_number(token.logprob) for token in tokens],
        "top_logprobs": tops,
        "text_offset": offsets.of(tokens),
    }


def _number(logprob: float | None) -> float | None:
    return None if logprob is None else max(float(logprob), LOWEST)
