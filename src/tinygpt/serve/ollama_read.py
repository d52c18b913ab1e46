"""What Ollama's clients send, as jobs. What this server cannot do is an error; nulls are defaults."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tinygpt.infer.config import SampleConfig
from tinygpt.serve.fields import FieldError, Fields, function_tools, kind
from tinygpt.serve.job import Format, Message

MOST_MESSAGES = 4096
MOST_TOOLS = 512
MOST_STOPS = 64
MOST_ALTERNATIVES = 20
LEVELS = ("low", "medium", "high", "max")
ROLES = ("system", "user", "assistant", "tool")

# Options of how a model is laid out in memory. Clients send them unasked; an open model has its layout.
WITHOUT_EFFECT = {
    "numa": bool, "num_ctx": int, "num_batch": int, "num_gpu": int, "main_gpu": int, "low_vram": bool,
    "f16_kv": bool, "logits_all": bool, "vocab_only": bool, "use_mmap": bool, "use_mlock": bool,
    "embedding_only": bool, "num_thread": int, "num_keep": int, "penalize_newline": bool,
    "mirostat_tau": float, "mirostat_eta": float,
}  # fmt: skip
# Rules of sampling: Ollama's name, ours, the range.
RULES: dict[str, tuple[str, float | None, float | None]] = {
    "temperature": ("temperature", 0, None),
    "top_p": ("top_p", 0, 1),
    "min_p": ("min_p", 0, 1),
    "repeat_penalty": ("repetition_penalty", 1e-6, None),
    "presence_penalty": ("presence_penalty", None, None),
    "frequency_penalty": ("frequency_penalty", None, None),
    "typical_p": ("typical_p", 0, 1),
}
OFF: dict[str, float] = {"typical_p": 1, "tfs_z": 1, "mirostat": 0}  # values that ask for nothing
KNOWN = (*WITHOUT_EFFECT, *RULES, *OFF, "top_k", "seed", "num_predict", "repeat_last_n", "stop")
OURS = {field.name for field in dataclasses.fields(SampleConfig)}
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def model(body: Fields) -> str:
    """The model's name, in the field "model" or, from older clients, "name"."""
    if not body.text("model") and body.text("name"):
        return body.needed("name")
    return body.needed("model")


def config(body: Fields, context: int, most: int | None = None) -> SampleConfig:
    """`options`. Without `num_predict` an answer may have `most` tokens; None, -1 and -2: what the context
    holds."""
    options = body.object("options") or Fields({}, "options")
    options.only(KNOWN)
    for name, type_ in WITHOUT_EFFECT.items():
        _ = options.flag(name) if type_ is bool else options.number(name)
    found: dict[str, Any] = {}
    for name, (ours, low, high) in RULES.items():
        value = options.number(name, low, high)
        if value is not None and ours in OURS:
            found[ours] = value
    for name, off in OFF.items():
        if name not in found and options.number(name) not in (None, off):
            raise options.wrong(name, f"cannot be done by this server; leave it out, or send {off}")
    if (top_k := options.integer("top_k", 0)) is not None:
        found["top_k"] = top_k
    if (seed := options.integer("seed", -1)) is not None and seed >= 0:
        found["seed"] = seed
    last = options.integer("repeat_last_n", -1)
    if last == 0:
        found.pop("repetition_penalty", None)
    elif last not in (None, -1) and found.get("repetition_penalty", 1) != 1 and last < context:
        raise options.wrong(
            "repeat_last_n",
            f"cannot be {last} beside a 'repeat_penalty': the penalty reads prompt and answer as a whole",
            hint="leave it out, or send -1",
        )
    length = options.integer("num_predict", -2, default=most) or -1
    return SampleConfig(
        **found, max_tokens=context if length < 0 else length, stop=options.texts("stop", MOST_STOPS)
    )


def logprobs(body: Fields) -> int | None:
    """How many alternatives beside each token's log-probability; None: neither."""
    wanted, top = body.flag("logprobs"), body.integer("top_logprobs", 0, MOST_ALTERNATIVES, 0)
    if top and not wanted:
        raise body.wrong("top_logprobs", "needs 'logprobs': true")
    return top if wanted else None


def format_(body: Fields) -> Format | None:
    value = body.any("format")
    if value is None or value == "":
        return None
    if isinstance(value, dict):
        return Format(kind="schema", value=value)
    if value == "json":
        return Format(kind="json")
    shown = f'"{value[:80]}"' if isinstance(value, str) else kind(value)
    raise body.wrong("format", f'must be "json" or a JSON schema, got {shown}')


def think(body: Fields) -> bool | None:
    """Whether to reason first. A level is a yes: no model here is told how long."""
    value = body.any("think")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and value in LEVELS:
        return True
    shown = f'"{value[:80]}"' if isinstance(value, str) else kind(value)
    levels = ", ".join(f'"{level}"' for level in LEVELS)
    raise body.wrong("think", f"must be true, false or one of {levels}, got {shown}")


def keep_alive(body: Fields) -> float | None:
    """Seconds that the model stays after this: a number of them or "5m"; -1: for ever; None: not said."""
    value = body.any("keep_alive")
    if value is None:
        return None
    if isinstance(value, str):
        value = _duration(value)
        if value is None:
            raise body.wrong("keep_alive", 'must be seconds or a duration such as "5m" or "1h30m"')
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise body.wrong("keep_alive", f"must be a number or a duration, got {kind(value)}")
    return -1.0 if value < 0 else float(min(value, 1e9))


def _duration(text: str) -> float | None:
    """Seconds of a duration as Go writes it ("1h30m", "-1m", "0"), or of a bare number; None for others."""
    number = r"\d+(?:\.\d*)?|\.\d+"
    if re.fullmatch(rf"[+-]?(?:{number})", text, re.ASCII):
        return float(text)
    units = "|".join(sorted(UNITS, key=len, reverse=True))
    if not re.fullmatch(rf"[+-]?(?:(?:{number})(?:{units}))+", text, re.ASCII):
        return None
    parts = re.findall(rf"({number})({units})", text, re.ASCII)
    seconds = sum(float(amount) * UNITS[unit] for amount, unit in parts)
    return -seconds if text.startswith("-") else seconds


def refuse_images(body: Fields) -> None:
    body.refuse("images", "cannot be read: the models of this server read text only")


def tools(body: Fields) -> list[dict[str, Any]]:
    """Function tools in OpenAI's form, which Ollama's is."""
    found = []
    for tool in body.objects("tools", MOST_TOOLS):
        if tool.text("type", "function") != "function":
            raise tool.wrong("type", "must be 'function': there are no other tools here")
        function = tool.object("function")
        if function is None:
            raise tool.wrong("function", "is required")
        function.needed("name")
        _ = function.text("description"), function.object("parameters")
        found.append({"type": "function", "function": _without_nulls(function.data)})
    return function_tools(found)


def _without_nulls(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value is not None}


def messages(body: Fields) -> list[Message]:
    """Messages as templates take them."""
    return [_message(fields) for fields in body.objects("messages", MOST_MESSAGES)]


def _message(fields: Fields) -> Message:
    role = fields.needed("role").lower()
    if role not in ROLES:
        raise fields.wrong("role", f"must be one of {', '.join(ROLES)}, got '{role[:80]}'")
    refuse_images(fields)
    message: Message = {"role": role, "content": fields.text("content", "")}
    if thinking := fields.text("thinking"):
        message["reasoning_content"] = thinking
    calls = [_call(call) for call in fields.objects("tool_calls", MOST_TOOLS)]
    if calls and role != "assistant":
        raise fields.wrong("tool_calls", f"are an assistant's, this message is of role '{role}'")
    if calls:
        message["tool_calls"] = calls
    if name := fields.text("tool_name") or fields.text("name"):
        message["name"] = name
    if id := fields.text("tool_call_id"):
        message["tool_call_id"] = id
    return message


def _call(fields: Fields) -> dict[str, Any]:
    function = fields.object("function")
    if function is None:
        raise fields.wrong("function", "is required")
    arguments = function.object("arguments")
    call = {"name": function.needed("name"), "arguments": dict(arguments.data) if arguments else {}}
    id = fields.text("id")
    return {"type": "function", "function": call, **({"id": id} if id else {})}


def context(body: Fields) -> list[int]:
    """`context`: ids that an earlier answer gave back."""
    value = body.any("context")
    if value is None:
        return []
    if not isinstance(value, list) or any(type(id) is not int or not 0 <= id < 2**31 for id in value):
        raise body.wrong("context", "must be the list of ids that an earlier answer gave back")
    return value


def inputs(body: Fields, most: int) -> Sequence[str]:
    """`input` of /api/embed: one text or several; an empty one alone is none."""
    texts = body.texts("input", most, empty=True)
    return () if body.any("input") == "" else texts


def only_empty(body: Fields, name: str, why: str) -> None:
    """An error for a text that asks for what cannot be done."""
    if body.text(name):
        raise FieldError(f"'{name}' {why}", param=name)
