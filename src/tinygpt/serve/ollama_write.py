"""What Ollama's clients read: lines of an answer, and models as /api/tags, show and ps list them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from tinygpt.infer.config import SampleConfig
from tinygpt.serve.cards import capabilities
from tinygpt.serve.job import CallPart, Done, Event, ModelCard, Token

NEVER = "9999-12-31T23:59:59Z"  # of a model that stays
LEAST = -9999.0  # stands for a log-probability of minus infinity, which JSON does not have
Line = dict[str, Any]

# Our config's names of sizes, and GGUF's, which clients look for behind the architecture's name.
SIZES = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "vocab_size": "vocab_size",
}


def stamp(seconds: float | None = None) -> str:
    """A time as RFC 3339 in UTC; by default now."""
    at = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e9))


# Models


def details(card: ModelCard) -> dict[str, Any]:
    family = card.family or "tinygpt"
    return {
        "parent_model": card.base,
        "format": "safetensors",
        "family": family,
        "families": [family],
        "parameter_size": human(card.n_parameters),
        "quantization_level": card.quantization or str(card.details.get("dtype", "")),
    }


def human(n: int) -> str:
    """A count of parameters as Ollama writes it: 8.0B, 268.1M, 12.3K."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if n >= size:
            return f"{n / size:.1f}{unit}"
    return str(n)


def listed(card: ModelCard) -> Line:
    """A model in /api/tags."""
    return {
        "name": card.name,
        "model": card.name,
        "modified_at": stamp(card.created),
        "size": card.size_bytes,
        "digest": card.digest.removeprefix("sha256:"),
        "details": details(card),
    }


def running(card: ModelCard) -> Line:
    """A model in /api/ps. All of its memory is the accelerator's: it has no part on another device."""
    size = card.memory_bytes or card.size_bytes
    line = {key: value for key, value in listed(card).items() if key != "modified_at"}
    return line | {
        "size": size,
        "size_vram": size,
        "expires_at": NEVER if card.expires is None else stamp(card.expires),
        "context_length": card.context,
    }


def shown(card: ModelCard) -> Line:
    """A model in /api/show. Continue reads `parameters` line by line and takes ".Suffix" in the template for
    filling in the middle, so it is there exactly where that works."""
    can = capabilities(card)
    parameters = f"num_ctx {card.context}\ntemperature {SampleConfig().temperature}"
    template = card.template.replace(".Suffix", ". Suffix")
    if "insert" in can:
        template += "{# .Suffix #}"
    family = card.family or "tinygpt"
    info: dict[str, Any] = {
        "general.architecture": family,
        "general.basename": card.name,
        "general.parameter_count": card.n_parameters,
        f"{family}.context_length": card.context,
    }
    info |= {f"{family}.{theirs}": card.details[our] for our, theirs in SIZES.items() if our in card.details}
    settings = "\n".join(f"PARAMETER {line}" for line in parameters.split("\n"))
    return {
        "license": "",
        "modelfile": f'FROM {card.name}\nTEMPLATE """{template}"""\n{settings}',
        "parameters": parameters,
        "template": template,
        "details": details(card),
        "model_info": info,
        "capabilities": can,
        "modified_at": stamp(card.created),
    }


# Answers


def _token(token: Token, logprob: float | None) -> Line:
    return {
        "token": token.text,
        "logprob": LEAST if logprob is None or logprob == -math.inf else logprob,
        "bytes": list(token.bytes),
    }


def logprobs(tokens: Iterable[Token]) -> list[Line]:
    return [
        _token(token, token.logprob) | {"top_logprobs": [_token(other, p) for other, p in token.top]}
        for token in tokens
    ]


class Calls:
    """Puts the parts of tool calls together: this protocol sends a call whole, its arguments as an object."""

    def __init__(self) -> None:
        self._open: dict[int, CallPart] = {}

    def add(self, parts: Sequence[CallPart]) -> list[Line]:
        """The calls that are whole now: each is when the next one begins."""
        whole = []
        for part in parts:
            if part.index not in self._open:
                whole += self.end()[0]
            known = self._open.get(part.index, CallPart(index=part.index))
            self._open[part.index] = CallPart(
                index=part.index,
                id=part.id or known.id,
                name=part.name or known.name,
                arguments=known.arguments + part.arguments,
            )
        return whole

    def end(self) -> tuple[list[Line], str]:
        """The calls that are left, and the text of what was cut off before it became one."""
        whole, rest = [], ""
        for part in self._open.values():
            try:
                arguments = json.loads(part.arguments or "{}")
            except ValueError:
                arguments = None
            if isinstance(arguments, dict):
                function = {"index": part.index, "name": part.name, "arguments": arguments}
                whole.append({"id": part.id, "function": function})
            else:
                rest += part.arguments
        self._open.clear()
        return whole, rest


class Answer:
    """Writes the events of one answer as lines. chat: /api/chat's form, else /api/generate's."""

    def __init__(self, model: str, *, chat: bool, load_seconds: float = 0.0) -> None:
        self.model, self.chat, self.load_seconds = model, chat, load_seconds
        self.text = ""
        self._calls = Calls()

    def line(self, text: str = "", thinking: str = "", calls: list[Line] | None = None, **more: Any) -> Line:
        """One line; without `done` in `more` it is one of a stream."""
        said = {"thinking": thinking} if thinking else {}
        if calls:
            said["tool_calls"] = calls  # type: ignore[assignment]
        if self.chat:
            said = {"message": {"role": "assistant", "content": text, **said}}
        else:
            said = {"response": text, **said}
        return {"model": self.model, "created_at": stamp(), **said, "done": False, **more}

    def write(self, event: Event, seconds: float) -> list[Line]:
        """The lines of an event; `seconds` since the request came."""
        if isinstance(event, Done):
            calls, rest = self._calls.end()
            lines = [self.line(rest, "", calls)] if calls or rest else []
            return [*lines, self._done(event, seconds)]
        self.text += event.text
        calls = self._calls.add(event.calls)
        more = {"logprobs": logprobs(event.tokens)} if event.tokens else {}
        if not (event.text or event.reasoning or calls or more):
            return []
        return [self.line(event.text, event.reasoning, calls, **more)]

    def _done(self, event: Done, seconds: float) -> Line:
        usage = event.usage
        return self.line(
            done=True,
            done_reason="length" if event.finish_reason == "length" else "stop",
            total_duration=nanoseconds(seconds),
            load_duration=nanoseconds(self.load_seconds + usage.load_seconds),
            prompt_eval_count=usage.prompt_tokens,
            prompt_eval_duration=nanoseconds(usage.prompt_seconds),
            eval_count=usage.completion_tokens,
            eval_duration=nanoseconds(usage.write_seconds),
        )

    def joined(self, lines: Sequence[Line]) -> Line:
        """All lines as the one of an answer that is not streamed."""
        messages = [line["message"] if self.chat else line for line in lines]
        text = "".join(message["content" if self.chat else "response"] for message in messages)
        thinking = "".join(message.get("thinking", "") for message in messages)
        calls = [call for message in messages for call in message.get("tool_calls", ())]
        found = [entry for line in lines for entry in line.get("logprobs", ())]
        whole = self.line(text, thinking, calls)
        last = {key: value for key, value in lines[-1].items() if key not in ("message", "response")}
        return whole | last | ({"logprobs": found} if found else {})
