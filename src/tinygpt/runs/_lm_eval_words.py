"""Text to ids as lm-eval's `hf` backend makes them, so that scores of both agree.

Control tokens in a text are control tokens, and the ids that a tokenizer's authors put before a text (often
bos) come first, unless the text begins with that token or it was decided otherwise."""

from __future__ import annotations

from typing import Any

from tinygpt.core.files import peek_json
from tinygpt.data.tokenizer._protocol import Tokenizer


class Words:
    """A tokenizer in the words of lm-eval. add_bos: whether bos comes before a text; None: as its authors
    have it. prefix: the id that comes before a text without a context; None: bos, or eos."""

    def __init__(self, tokenizer: Tokenizer, add_bos: bool | None = None, prefix: int | None = None) -> None:
        self.tokenizer, self.add_bos = tokenizer, add_bos
        self.eot = tokenizer.eos_id
        bos = own_bos(tokenizer)
        self.prefix = prefix if prefix is not None else self.eot if bos is None else bos
        self._usual, self._bos = before(tokenizer), [] if bos is None else [bos]
        self._begins = tokenizer.decode([self.prefix])
        written = tokenizer.control - tokenizer.tags
        self.hidden = {id for name, id in tokenizer.special.items() if name in written}

    def encode(self, text: str, special: bool | None = None) -> list[int]:
        """Ids of a text; `special`: whether ids are put before it, None: as usual."""
        if special is None and text.startswith(self._begins):
            special = False
        elif special is None:
            special = self.add_bos
        first = self._usual if special is None else (self._bos or self._usual) if special else []
        return [*first, *self.tokenizer.encode(text, special=True)]

    def decode(self, ids: list[int]) -> str:
        """Text of ids, without control tokens; tags of thoughts and the like are text."""
        return self.tokenizer.decode(id for id in ids if id not in self.hidden)


def own_bos(tokenizer: Tokenizer) -> int | None:
    """The bos that a tokenizer itself names: one that config.json alone names is none to transformers."""
    return tokenizer.special.get(tokenizer.names.get("bos_token", ""))


def before(tokenizer: Tokenizer) -> list[int]:
    """The ids that transformers puts before a text: what tokenizer_config.json says in so many words, else
    the template in tokenizer.json."""
    folder, definition = getattr(tokenizer, "folder", None), getattr(tokenizer, "definition", {})
    settings = {} if folder is None else peek_json(folder / "tokenizer_config.json")
    if "add_bos_token" in settings or "add_eos_token" in settings:
        bos = own_bos(tokenizer)
        return [bos] if settings.get("add_bos_token") and bos is not None else []
    processor: dict[str, Any] = definition.get("post_processor") or {}
    found: list[int] = []
    for part in processor.get("processors", [processor]):
        for piece in part.get("single") or []:
            if "SpecialToken" not in piece:
                break
            found += part["special_tokens"][piece["SpecialToken"]["id"]]["ids"]
    return found
