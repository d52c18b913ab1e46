"""Telephone numbers that a numbering plan has: international ones, and national ones as people write them.

`+` or 00 and a country's code make a number international. Of the North American plan, groups between dashes
or dots and codes in parentheses are taken as they are; groups between spaces, digits that run on, and the
national forms of other countries (a 0 in front) need a word before them that speaks of a telephone. What a
plan has is said by the package phonenumbers (extra `filter`).

Paper: ITU-T E.164.
"""

from __future__ import annotations

import re
from typing import Any

from tinygpt.core.errors import DependencyError
from tinygpt.data.pii._near import before, is_thing, says

# Whose national forms are tried after such a word.
REGIONS = (
    "GB",
    "DE",
    "FR",
    "IN",
    "IT",
    "ES",
    "NL",
    "CH",
    "AT",
    "BE",
    "PL",
    "SE",
    "AU",
    "BR",
    "JP",
    "ZA",
    "NG",
)
_EXT = r"(?:,?[ ]{0,2}(?:ext\.?|extension|x|#)[ ]?\d{1,6})?"
_PLUS = re.compile(r"(?<![\w+])(?:\+|00(?=[1-9]))[ ]?\d[\d \u00a0()./-]{5,20}\d" + _EXT + r"(?!\w)")
_NANP = re.compile(
    r"(?<![\w+/=@#$€£.-])(?<!\d )(?:1[ .-]?)?(?:\((\d{3})\)[ .-]?|(\d{3})([ .-]?))(\d{3})([ .-]?)(\d{4})"
    + _EXT + r"(?![\w]|[-./]\d|[.,]\d| \d)"
)  # fmt: skip
_ZERO = re.compile(r"(?<![\w+/=@#$€£.-])(?<!\d )\(?0\d[\d \u00a0()./-]{6,16}\d" + _EXT + r"(?!\w)")
_SAYS = says(
    r"tel|telephone|phones?|ph|call|calls|called|mobile|cell|cellphone|fax|whatsapp|text|sms|dial|ring|contact|"
    r"reach|hotline|helpline|telefon|handy|rufnummer|téléphone|portable|teléfono|móvil|telefone|celular|telefono|"
    r"phone_number|phonenumber|landline|voicemail|number'?s"
)


def find(text: str) -> list[tuple[int, int]]:
    """(start, end) of every number, in order. DependencyError without the package phonenumbers."""
    library = phonenumbers()
    if sum(map(text.count, "0123456789")) < 7:
        return []
    found: list[tuple[int, int]] = []
    for one in _PLUS.finditer(text):
        end = _longest(library, text, one)
        if end:
            found.append((one.start(), end))
    for one in _NANP.finditer(text):
        said = _SAYS.search(before(text, one.start())) is not None
        marked = one[1] is not None or (one[3] == one[5] and one[3] in ("-", "."))
        if (said or marked) and (said or not is_thing(text, one.start())) and _valid(library, one[0], "US"):
            found.append(one.span())
    for one in _ZERO.finditer(text):
        if _SAYS.search(before(text, one.start())) and any(_valid(library, one[0], r) for r in REGIONS):
            found.append(one.span())
    kept: list[tuple[int, int]] = []
    for span in sorted(found):
        if not kept or span[0] >= kept[-1][1]:
            kept.append(span)
    return kept


def _longest(library: Any, text: str, one: re.Match[str]) -> int:
    """Where the longest number ends that begins here; 0 where there is none: digits of something else may
    follow it."""
    said = one[0]
    while True:
        if _valid(library, "+" + said[2:] if said.startswith("00") else said, None):
            return one.start() + len(said)
        cut = max(said.rfind(mark) for mark in " \u00a0()./-")
        if cut < 7:
            return 0
        said = said[:cut].rstrip(" \u00a0()./-")


def _valid(library: Any, said: str, region: str | None) -> bool:
    try:
        return library.is_valid_number(library.parse(said, region))
    except library.NumberParseException:
        return False


def phonenumbers() -> Any:
    """The package phonenumbers; DependencyError where it is not installed."""
    try:
        import phonenumbers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DependencyError("phonenumbers", "filter", "finding telephone numbers") from error
    return phonenumbers
