"""What every tokenizer offers; incremental decoding; the sizes of tokens in bytes."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Tokenizer(Protocol):
    """Text to ids and back. `special` maps the names of control tokens to ids; `stop_ids` end an answer."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    @property
    def bos_id(self) -> int | None: ...
    @property
    def pad_id(self) -> int: ...
    @property
    def stop_ids(self) -> tuple[int, ...]: ...
    @property
    def special(self) -> dict[str, int]: ...
    @property
    def chat_template(self) -> str | None:
        """The Jinja source of the template that conversations are written with; None where it names none."""
        ...

    @property
    def chat_templates(self) -> dict[str, str]:
        """All of them by name: "default", and for example "tool_use" for conversations with tools."""
        ...

    @property
    def control(self) -> frozenset[str]:
        """Names that only a template may write. Other added tokens (runs of spaces, HTML tags) are text."""
        ...

    @property
    def tags(self) -> frozenset[str]:
        """Those of `control` that a model writes as part of its text, as <think>."""
        ...

    @property
    def names(self) -> dict[str, str]:
        """Control tokens by their part, as templates know them: bos_token, eos_token, pad_token, ..."""
        ...

    @property
    def swallows(self) -> dict[str, tuple[bool, bool]]:
        """Control tokens that take the white space (before, after) them away."""
        ...

    def with_template(self, source: str | None) -> Tokenizer:
        """The same tokenizer, saved with another chat template."""
        ...

    @property
    def hash(self) -> str:
        """SHA-256 of everything that decides how text becomes ids."""
        ...

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Ids of a text, without bos or eos. Control tokens named in it are plain text, unless `special`."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts, on all cores."""
        ...

    def encode_inside(self, texts: Sequence[str], *, after_control: bool) -> list[list[int]]:
        """`encode_batch` of pieces from inside a text, where some tokenizers put no space before the first
        word. `after_control`: the pieces follow a control token; otherwise other text."""
        ...

    def encode_arrays(self, texts: Sequence[str]) -> list[NDArray[np.integer[Any]]]:
        """`encode_batch` as numpy arrays: what a corpus is tokenised with."""
        ...

    def decode(self, ids: Iterable[int], special: bool = True) -> str:
        """Text of ids; bytes that are not UTF-8 become U+FFFD. `special`: control tokens are spelled out."""
        ...

    def id_to_bytes(self, id: int) -> bytes:
        """The bytes an id stands for."""
        ...

    def save(self, directory: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, which transformers and mlx_lm open as they lie."""
        ...

    def stream(self, special: bool = True) -> Stream:
        """A decoder that takes ids one by one."""
        ...


class Stream:
    """Incremental decoding: the pieces of `add` and `flush` join to what `decode` gives for all ids.

    A piece never ends inside a UTF-8 character: its first bytes wait until the rest arrives.
    """

    def __init__(self, to_bytes: Callable[[int], bytes], strip: bool = False) -> None:
        self._to_bytes = to_bytes
        self._strip = strip  # SentencePiece puts a space before the first word; decoding takes it away
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, id: int) -> str:
        """The text that became certain with this id; often empty inside a character of several bytes."""
        return self._out(self._utf8.decode(self._to_bytes(id)))

    def flush(self) -> str:
        """What still waits, once no id will follow: at most one U+FFFD for a character that was cut."""
        return self._out(self._utf8.decode(b"", final=True))

    def _out(self, text: str) -> str:
        if self._strip and text:
            self._strip = False
            return text.removeprefix(" ")
        return text


def byte_lengths(tokenizer: Tokenizer) -> NDArray[np.int32]:
    """(V,) bytes of every id, 0 for control tokens: what turns loss per token into bits per byte."""
    import numpy as np

    control = set(tokenizer.special.values())
    sizes = [0 if id in control else len(tokenizer.id_to_bytes(id)) for id in range(tokenizer.vocab_size)]
    return np.array(sizes, dtype=np.int32)
