"""Bytes: 256 ids, one for each byte, and a few control tokens after them.

Needs no training, knows every text, copies anything, and a sequence is as long as its UTF-8 bytes. Good for
tests and very small models; BPE reads 3-4 bytes a token. It is saved as a BPE without merges, so other
libraries open it too.
Paper: Xue et al., TACL 2022, arXiv:2105.13626 (ByT5)
Differs: control tokens come after the bytes, so that an id below 256 is its byte; no encoder-decoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.core.files import write_json
from tinygpt.data.tokenizer._files import added_token, byte_letters, config_json, content_hash
from tinygpt.data.tokenizer._protocol import Stream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")


class ByteTokenizer:
    """See `Tokenizer`."""

    special = {name: 256 + i for i, name in enumerate(SPECIAL)}
    vocab_size = 256 + len(SPECIAL)
    eos_id = special["<|endoftext|>"]
    bos_id = None
    pad_id = special["<|pad|>"]
    stop_ids = (eos_id, special["<|im_end|>"])

    control = frozenset(SPECIAL)
    tags: frozenset[str] = frozenset()
    names = {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}
    swallows: dict[str, tuple[bool, bool]] = {}

    def __init__(self, template: str | None = None) -> None:
        self._template = template

    @property
    def chat_template(self) -> str | None:
        from tinygpt.data.template.chatml import CHAT_TEMPLATE

        return self._template or CHAT_TEMPLATE

    @property
    def chat_templates(self) -> dict[str, str]:
        return {"default": self.chat_template} if self.chat_template else {}

    def with_template(self, source: str | None) -> ByteTokenizer:
        return ByteTokenizer(source)

    @property
    def hash(self) -> str:
        return content_hash(_tokenizer_json(), self.eos_id, self.bos_id, self.pad_id)

    def encode(self, text: str, special: bool = False) -> list[int]:
        if special:
            import re

            parts = re.split(f"({'|'.join(map(re.escape, SPECIAL))})", text)
            return [id for p in parts for id in ([self.special[p]] if p in self.special else p.encode())]
        return list(text.encode())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def encode_inside(self, texts: Sequence[str], *, after_control: bool) -> list[list[int]]:
        return self.encode_batch(texts)

    def encode_arrays(self, texts: Sequence[str]) -> list[NDArray[np.integer[Any]]]:
        import numpy as np

        return [np.frombuffer(text.encode(), np.uint8) for text in texts]

    def decode(self, ids: Iterable[int], special: bool = True) -> str:
        kept = (id for id in ids if special or id < 256)
        return b"".join(map(self.id_to_bytes, kept)).decode("utf-8", "replace")

    def id_to_bytes(self, id: int) -> bytes:
        # A model may have more outputs than there are ids; the surplus stands for nothing.
        return bytes([id]) if id < 256 else "".join(SPECIAL[id - 256 : id - 255]).encode()

    def stream(self, special: bool = True) -> Stream:
        return Stream(lambda id: self.id_to_bytes(id) if special or id < 256 else b"")

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / "tokenizer.json", _tokenizer_json())
        write_json(directory / "tokenizer_config.json", config_json(self.chat_template))


def load(path: Path | None = None) -> ByteTokenizer:
    """The byte tokenizer; there is nothing to read, so `path` is not used."""
    return ByteTokenizer()


def _tokenizer_json() -> dict[str, Any]:
    """The byte tokenizer as a tokenizer.json: byte-level BPE without a merge."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(id, name) for name, id in ByteTokenizer.special.items()],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {letter: byte for byte, letter in sorted(byte_letters().items())}
            | ByteTokenizer.special,
            "merges": [],
        },
    }
