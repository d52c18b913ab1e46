"""What chats and completions ask in the same words: sampling, stopping, and what an answer must be."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from tinygpt.infer.config import XTC_THRESHOLD, SampleConfig
from tinygpt.serve.fields import FieldError, Fields
from tinygpt.serve.job import Format
from tinygpt.serve.limits import Limits

LONGEST = 2**31 - 1  # no context is longer
SEEDS = 2**63
FORMATS = ("text", "json_object", "json_schema", "grammar")
# Rules that OpenAI has not: field -> (low, high, what changes nothing).
MORE_RULES = {
    "typical_p": (0, 1, 1.0), "xtc_probability": (0, 1, 0.0), "xtc_threshold": (0, 1, XTC_THRESHOLD),
    "top_n_sigma": (0, 100, 0.0),
}  # fmt: skip
# What changes answers of vLLM or llama.cpp and is not here -> values that change nothing, beside 0.
UNDONE = {
    "use_beam_search": (), "length_penalty": (1,), "min_tokens": (), "bad_words": (), "prompt_logprobs": (),
    "allowed_token_ids": (), "include_stop_str_in_output": (), "truncate_prompt_tokens": (),
    "logits_processors": (), "n_predict": (-1,), "mirostat": (), "dry_multiplier": (), "dynatemp_range": (),
}  # fmt: skip
GUIDES = ("json", "regex", "choice", "grammar", "json_object")
SAMPLED = {  # what `sampling` reads
    "temperature": "number", "top_p": "number", "top_k": "integer", "min_p": "number",
    "repetition_penalty": "number", "presence_penalty": "number", "frequency_penalty": "number",
    "seed": "integer", "logit_bias": "object", "stop": "string|array", **dict.fromkeys(MORE_RULES, "number"),
}  # fmt: skip
SAMPLING = {
    **SAMPLED, "stop_token_ids": "array", "ignore_eos": "boolean", "n": "integer", "user": "string",
    "guided_json": "object|string|boolean", "guided_regex": "string", "guided_choice": "array",
    "guided_grammar": "string", "grammar": "string", "json_schema": "object",
    "structured_outputs": "object", "response_format": "object",
}  # fmt: skip


def common(f: Fields, limits: Limits, max_tokens: int, id: str) -> dict[str, Any]:
    """The fields of a Job that every kind of request has."""
    return {
        "model": f.text("model", ""),
        "config": sampling(f, limits, max_tokens),
        "n": f.integer("n", 1, limits.answers, 1),
        "format": wanted(f, limits),
        "stop_ids": _ids(f, "stop_token_ids", limits),
        "ignore_stop_ids": f.flag("ignore_eos"),
        "stream": f.flag("stream"),
        "request_id": id,
        "user": f.text("user", "") or f.text("safety_identifier", ""),
    }


def sampling(f: Fields, limits: Limits, max_tokens: int) -> SampleConfig:
    """How tokens are chosen; what is not said is as OpenAI's reference says it."""
    top_k = f.integer("top_k", -1, LONGEST, 0) or 0
    seed = f.integer("seed", -SEEDS, 2 * SEEDS - 1)
    more: dict[str, Any] = {name: _number(f, name, *rule) for name, rule in MORE_RULES.items()}
    for name, neutral in UNDONE.items():
        f.refuse(name, "cannot be done by this server", but=neutral)
    return SampleConfig(
        temperature=_number(f, "temperature", 0, 2, 1.0),
        top_p=_number(f, "top_p", 0, 1, 1.0),
        top_k=max(0, top_k),  # vLLM's clients say -1 for all
        min_p=_number(f, "min_p", 0, 1, 0.0),
        repetition_penalty=_number(f, "repetition_penalty", 0.01, 100, 1.0),
        presence_penalty=_number(f, "presence_penalty", -2, 2, 0.0),
        frequency_penalty=_number(f, "frequency_penalty", -2, 2, 0.0),
        logit_bias=_biases(f, limits),
        seed=None if seed is None else seed % SEEDS,
        max_tokens=max_tokens,
        stop=f.texts("stop", limits.stops),
        **more,
    )


def _number(f: Fields, name: str, low: float, high: float, default: float) -> float:
    value = f.number(name, low, high)
    return default if value is None else value


def _biases(f: Fields, limits: Limits) -> tuple[str, ...]:
    given = f.object("logit_bias")
    if given is None:
        return ()
    if len(given.data) > limits.biases:
        raise f.wrong("logit_bias", f"may have at most {limits.biases} entries")
    found: list[str] = []
    for id in given.data:
        if not (id.isascii() and id.isdigit() and len(id) < 10):
            raise given.wrong(id[:40], "is no token id")
        found.append(f"{int(id)}={given.number(id, -100, 100, 0.0)}")
    return tuple(found)


def _ids(f: Fields, name: str, limits: Limits) -> list[int] | None:
    value = f.any(name)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > limits.stops or not all(is_id(id) for id in value):
        raise f.wrong(name, f"must be a list of at most {limits.stops} token ids")
    return value


def is_id(value: Any) -> bool:
    """Whether a JSON value can be a token id."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LONGEST


def wanted(f: Fields, limits: Limits) -> Format | None:
    """What the answer must be, in OpenAI's words, vLLM's or llama.cpp's; at most one of them."""
    found: dict[str, Format | None] = {}
    if (asked := f.object("response_format")) is not None:
        found["response_format"] = _response_format(asked)
    _guided(f, limits, found, "guided_", "guided_grammar")
    if (asked := f.object("structured_outputs")) is not None:
        for name in asked.data:
            if name not in GUIDES:  # structural_tag, or options of how white space is written
                asked.refuse(name, "cannot be done by this server")
        _guided(asked, limits, found, "", "grammar")
        if asked.flag("json_object"):
            found["structured_outputs.json_object"] = Format(kind="json")
    if "grammar" in f:
        found["grammar"] = _grammar(f, "grammar")
    if "json_schema" in f:
        found["json_schema"] = _schema(f, "json_schema")
    said = {name: format for name, format in found.items() if format is not None}
    if len(said) > 1:
        names = list(said)
        raise FieldError(f"'{names[0]}' and '{names[1]}' cannot both say what the answer is", param=names[1])
    for name, format in said.items():
        if (size := len(json.dumps(format.value))) > limits.schema_bytes:
            raise FieldError(f"'{name}' has {size} bytes, at most {limits.schema_bytes} may be", param=name)
        return dataclasses.replace(format, param=name)
    return None


def _guided(f: Fields, limits: Limits, found: dict[str, Format | None], prefix: str, grammar: str) -> None:
    if (name := f"{prefix}json") in f:
        found[f.where(name)] = _schema(f, name)
    if (name := f"{prefix}regex") in f:
        found[f.where(name)] = Format(kind="regex", value=f.needed(name))
    if (name := f"{prefix}choice") in f:
        if not isinstance(f.any(name), list):
            raise f.wrong(name, "must be a list of strings")
        texts = f.texts(name, limits.prompts)
        if not texts:
            raise f.wrong(name, "is empty: no answer is possible")
        found[f.where(name)] = Format(kind="choice", value=list(texts))
    if grammar in f:
        found[f.where(grammar)] = _grammar(f, grammar)


def _response_format(f: Fields) -> Format | None:
    match f.choice("type", FORMATS, ""):
        case "json_object":  # llama.cpp and Together put a schema beside it
            return _schema(f, "schema") if "schema" in f else Format(kind="json")
        case "json_schema":
            inner = f.object("json_schema")
            if inner is None:
                raise f.wrong("json_schema", "is required")
            inner.needed("name")
            inner.flag("strict")  # a schema is kept to either way
            return _schema(inner, "schema") if "schema" in inner else Format(kind="json")
        case "grammar":
            return _grammar(f, "grammar")
        case _:
            return None


def _schema(f: Fields, name: str) -> Format:
    """A JSON Schema, as an object, as true, or as text that is one of these."""
    value = f.any(name)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as problem:
            raise f.wrong(name, f"is no JSON Schema: {problem}") from None
    if not isinstance(value, dict) and value is not True:
        raise f.wrong(name, "must be a JSON Schema, which is an object")
    return Format(kind="schema", value=value)


def _grammar(f: Fields, name: str) -> Format:
    """A grammar, as --grammar reads files: a JSON Schema where it begins with a brace, GBNF where its rules
    are written with ::=, otherwise Lark."""
    text = f.needed(name)
    if text.lstrip().startswith("{"):
        return _schema(f, name)
    return Format(kind="gbnf" if "::=" in text else "lark", value=text)
