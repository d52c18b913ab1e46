"""N-grams of many texts at once are those of each, and equal texts are equal whatever their form."""

from __future__ import annotations

import random

import pytest

from tinygpt.data import ngram

TEXTS = (
    "a b c d e f g", "x", "", "b c d e f", "\n \t", "Ünï cödé words of several kinds here", "a  b\tc\nd e",
    "你好世界 and 世界你好 again", "x" * 10_000 + " long", "x" * 10_001 + " long", "ab c", "a bc",
)  # fmt: skip


def grams(text: str, n: int, whole: bool) -> list[tuple[str, ...]]:
    """The same by hand: characters of scripts without spaces are words."""
    spaced = "".join(f" {c} " if "\u4e00" <= c <= "\u9fff" else c for c in text)
    words = spaced.split()
    found = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return found or ([tuple(words)] if whole and words else [])


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("whole", [False, True])
def test_hashes_are_equal_where_the_words_are(n: int, whole: bool) -> None:
    draw = random.Random(0)
    texts = [*TEXTS, *(" ".join(draw.choices("abcd", k=draw.randrange(12))) for _ in range(200))]
    hashes, offsets = ngram.hashes(texts, n, whole=whole)
    known: dict[tuple[str, ...], int] = {}
    for i, text in enumerate(texts):
        expected, found = grams(text, n, whole), hashes[offsets[i] : offsets[i + 1]].tolist()
        assert len(found) == len(expected), text
        for gram, value in zip(expected, found, strict=True):
            assert known.setdefault(gram, value) == value
    assert len(set(known.values())) == len(known)


def test_a_text_has_the_same_hashes_alone() -> None:
    hashes, offsets = ngram.hashes(TEXTS, 2, whole=True)
    for i, text in enumerate(TEXTS):
        assert ngram.hashes([text], 2, whole=True)[0].tolist() == hashes[offsets[i] : offsets[i + 1]].tolist()
    assert ngram.hashes([], 2)[1].tolist() == [0]


def test_normal_forms() -> None:
    assert ngram.normal("  Ｆull\u00a0WIDTH \n STRASSE", ("nfkc", "case", "space")) == "full width strasse"
    assert ngram.normal("A  b", ("case",)) == "a  b"
    assert ngram.normal("A  b", ("space",)) == "A b"
    assert ngram.normal("A, b!", ("marks",)) == "A b"
    assert ngram.normal(" A, b!", ("none",)) == " A, b!"
    assert ngram.words("Forty-Two, 世界!") == "forty two 世 界"


def test_ascii_words_are_those_of_the_pattern() -> None:
    text = "".join(map(chr, range(128))) + " it's x_y 3.14"
    assert ngram.words(text).split() == ngram.WORD.findall(text.lower())


def test_fingerprints() -> None:
    assert ngram.fingerprint("a") == ngram.fingerprint("a") != ngram.fingerprint("b")
    assert len(ngram.fingerprint("\ud800")) == 16
