"""What the grammar engine must know of a tokenizer: the bytes of every id, and which ids end an answer.

It is made once for each tokenizer and kept as long as the tokenizer: a vocabulary of 150,000 ids takes about a
second.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import DependencyError

if TYPE_CHECKING:
    from types import ModuleType

    import llguidance

    from tinygpt.data.tokenizer._protocol import Tokenizer

KEPT = 4  # sets of stop ids a tokenizer has a bridge for: requests may bring their own

_lock = threading.Lock()
_bridges: weakref.WeakKeyDictionary[Tokenizer, OrderedDict[frozenset[int], Bridge]] = (
    weakref.WeakKeyDictionary()
)


@dataclass
class Bridge:
    """One tokenizer with one set of stop ids.

    words:  32-bit words of a mask.
    strips: decoding takes a space before the first word away, as SentencePiece-like tokenizers do.
    special: ids of control tokens by name; they stand for no text.
    """

    library: llguidance.LLTokenizer
    words: int
    strips: bool
    special: dict[str, int]
    compiled: OrderedDict[str, llguidance.LLMatcher] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)


def engine() -> ModuleType:
    """The grammar engine; DependencyError where it is not installed."""
    try:
        import llguidance
    except ImportError as error:
        raise DependencyError("llguidance", "serve", "constrained decoding") from error
    return llguidance


def of(tokenizer: Tokenizer, stop_ids: frozenset[int]) -> Bridge:
    """The bridge of a tokenizer whose answers end with these ids."""
    with _lock:
        kept = _bridges.setdefault(tokenizer, OrderedDict())
        if stop_ids not in kept:
            kept[stop_ids] = _made(tokenizer, stop_ids)
            while len(kept) > KEPT:
                kept.popitem(last=False)
        kept.move_to_end(stop_ids)
        return kept[stop_ids]


def _made(tokenizer: Tokenizer, stop_ids: frozenset[int]) -> Bridge:
    library = engine()
    wrapped = library.TokenizerWrapper(_Vocabulary(tokenizer, stop_ids))
    return Bridge(
        library.LLTokenizer(wrapped, eos_token=sorted(stop_ids)),
        words=-(-tokenizer.vocab_size // 32),
        strips=_strips(tokenizer),
        special={name: id for name, id in tokenizer.special.items() if name in tokenizer.control},
    )


class _Vocabulary:
    """A tokenizer in the words of llguidance.TokenizerWrapper. Control tokens and stop ids stand for no text,
    so no text can be made of them; neither can it of ids without bytes."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: frozenset[int]) -> None:
        control = {tokenizer.special[name]: name for name in tokenizer.control}
        control |= {id: control.get(id, f"<|stop {id}|>") for id in stop_ids}
        self._tokenizer = tokenizer
        self.eos_token_id, self.bos_token_id = min(stop_ids), tokenizer.bos_id
        self.special_token_ids = sorted(control)
        self.tokens = [
            control[id].encode() if id in control else tokenizer.id_to_bytes(id)
            for id in range(tokenizer.vocab_size)
        ]

    def __call__(self, text: Any) -> list[int]:
        """Ids of a text inside an answer: what is forced is written in the tokens a model knows it in."""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        return self._tokenizer.encode_inside([text], after_control=False)[0]


def _strips(tokenizer: Tokenizer) -> bool:
    """Whether the first space of an answer is not part of its text."""
    control = {tokenizer.special[name] for name in tokenizer.control}
    for id in range(tokenizer.vocab_size):
        if id not in control and tokenizer.id_to_bytes(id)[:1] == b" ":
            return not tokenizer.decode([id]).startswith(" ")
    return False
