"""What tokenizer files have in common: the byte table, control tokens, the config beside them, the hash."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def byte_letters() -> dict[int, str]:
    """The printable letter that stands for each byte in a byte-level tokenizer.json (GPT-2's table).

    Bytes that print in Latin-1 stand for themselves, the 68 others for U+0100, U+0101, ...
    """
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in shown]
    return {b: chr(b) for b in shown} | {b: chr(256 + i) for i, b in enumerate(hidden)}


def added_token(id: int, name: str, special: bool = True) -> dict[str, Any]:
    """A control token as tokenizer.json lists it. Other libraries hide the `special` ones when decoding."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": id, "content": name, **flags, "special": special}


def config_json(chat_template: str | None) -> dict[str, Any]:
    """The tokenizer_config.json that goes with ours."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "bos_token": None,
        "unk_token": None,
        "pad_token": "<|pad|>",
        "clean_up_tokenization_spaces": False,
        "chat_template": chat_template,
    }


def content_hash(tokenizer_json: dict[str, Any], *ids: int | None) -> str:
    """SHA-256 of a tokenizer.json, whatever its spacing and key order, and of the ids around texts."""
    text = json.dumps([tokenizer_json, ids], sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
