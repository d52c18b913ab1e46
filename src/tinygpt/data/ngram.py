"""Words of texts, and hashes of all their n-grams, for many texts at a time.

Comparing data sets means comparing runs of words: shingles of near duplicates (Broder 1997), 13-grams of
evaluation examples (Brown et al. 2020, arXiv:2005.14165, appendix C). Words are what stands between spaces;
in scripts that write without spaces each character is one. The hash of a word is a multilinear one of its
characters, that of an n-gram one of its words (Carter and Wegman 1979), both modulo 2^64 and then mixed.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint64]

NORMAL = ("nfkc", "case", "space", "marks")
# Scripts without spaces: Thai, Lao, Burmese, Khmer, kana, Han.
SPACELESS = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3134F),
)  # fmt: skip
_ALONE = "".join(f"{chr(first)}-{chr(last)}" for first, last in SPACELESS)
WORD = re.compile(rf"(?=[{_ALONE}])\w|(?:(?![{_ALONE}])\w)+")
_MARKS = {i: " " for i in range(128) if not WORD.fullmatch(chr(i))}
PLACES = 1 << 12  # characters of a word that have a factor of their own; beyond, factors come again


def normal(text: str, how: Collection[str] = ("nfkc", "case", "space")) -> str:
    """The text made alike: compatibility forms of characters, lower case, one space for any, no marks."""
    if "nfkc" in how and not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    if "case" in how:
        text = text.casefold()
    if "marks" in how:
        return " ".join(text.translate(_MARKS).split() if text.isascii() else WORD.findall(text))
    return " ".join(text.split()) if "space" in how else text


def words(text: str) -> str:
    """The words of a text without case and marks, with one space between."""
    return normal(text, ("nfkc", "case", "marks"))


def fingerprint(text: str) -> bytes:
    """16 bytes that are equal for equal texts."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def hashes(texts: Sequence[str], n: int, *, whole: bool = False) -> tuple[Hashes, NDArray[np.int64]]:
    """The hashes of all n-grams, those of texts[i] from offsets[i] to offsets[i + 1], in their order.

    A text of fewer than n words has none; with `whole` it has one, of all its words."""
    import numpy as np

    joined = "\n".join(" ".join(text.split()) for text in texts)
    letters = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), "<u4")
    word, first = _words(letters, len(texts))
    n_words = np.diff(first)
    counts = np.maximum(n_words - n + 1, ((n_words > 0) & whole).astype(np.int64))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    found = np.empty(offsets[-1], np.uint64)
    factors = _factors(n + 1)
    text_of = np.repeat(np.arange(len(texts)), n_words)
    if len(word) >= n:
        last = len(word) - n + 1
        sums = word[:last] * factors[1]
        for j in range(1, n):
            sums += word[j : last + j] * factors[j + 1]
        inside = text_of[:last] == text_of[n - 1 :]
        found_in = text_of[:last][inside]
        at = np.arange(last)[inside]
        found[offsets[found_in] + at - first[found_in]] = sums[inside]
    if whole and (short := (n_words > 0) & (n_words < n)).any():
        mine = short[text_of]
        places = np.arange(len(word)) - first[text_of]
        ends = np.concatenate([[0], np.cumsum(n_words[short])[:-1]])
        found[offsets[:-1][short]] = np.add.reduceat(word[mine] * factors[places[mine] + 1], ends)
    return _mixed(found), offsets


def joined(parts: NDArray[np.unsignedinteger[Any]]) -> Hashes:
    """One hash of the numbers along the last axis."""
    import numpy as np

    return _mixed((parts.astype(np.uint64) * _factors(parts.shape[-1])).sum(axis=-1))


def _words(letters: NDArray[np.uint32], n_texts: int) -> tuple[Hashes, NDArray[np.int64]]:
    """The hash of every word, and where those of each text begin, with the end. Texts end at a line's end."""
    import numpy as np

    ends = np.flatnonzero(letters == 10)
    space = letters == 32
    space[ends] = True
    begins = ~space
    alone = _alone(letters)
    begins[1:] &= space[:-1] if alone is None else (space[:-1] | alone[1:] | alone[:-1])
    starts = np.flatnonzero(begins)
    first = np.searchsorted(starts, np.concatenate([[0], ends, [len(letters)]])[: n_texts + 1])
    if not len(starts):
        return np.empty(0, np.uint64), first
    lengths = np.diff(starts, append=len(letters))
    places = np.arange(starts[0], len(letters), dtype=np.int32)
    places -= np.repeat(starts.astype(np.int32), lengths)
    if lengths.max() > PLACES:
        places %= PLACES
    values = _factors(PLACES)[places]
    values *= letters[starts[0] :]
    values *= ~space[starts[0] :]
    return _mixed(np.add.reduceat(values, starts - starts[0])), first


def _alone(letters: NDArray[np.uint32]) -> NDArray[np.bool_] | None:
    """Which characters are words by themselves; None where none is."""
    import numpy as np

    if not len(letters) or letters.max() < SPACELESS[0][0]:
        return None
    bounds = np.array(SPACELESS, np.uint32)
    at = np.searchsorted(bounds[:, 0], letters, side="right")
    return (at > 0) & (letters <= bounds[at - 1, 1])


def _mixed(values: Hashes) -> Hashes:
    """The finaliser of MurmurHash3, a bijection whose every output bit hangs on every input bit. In place."""
    import numpy as np

    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        values ^= values >> np.uint64(33)
        values *= np.uint64(factor)
    values ^= values >> np.uint64(33)
    return values


@functools.cache
def _factors(n: int) -> Hashes:
    """n fixed odd numbers that look random."""
    import numpy as np

    return _mixed(np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)
