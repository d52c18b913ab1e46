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
_NATIONAL = re.compile(r"(?<![\w+/=@#$€£.-])(?<!\d )\(?\d[\d \u00a0()./-]{6,16}\d" + _EXT + r"(?!\w)")
_TELEPHONE = says(
    r"tel|telephone|phones?|ph|mobile|cell|cellphone|fax|whatsapp|telefon|handy|rufnummer|téléphone|teléfono|"
    r"móvil|telefone|celular|telefono|phone_number|phonenumber|landline"
)
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
        end = _longest(library, text, one, _SAYS.search(before(text, one.start())) is not None)
        if end:
            found.append((one.start(), end))
    for one in _NANP.finditer(text):
        said = _SAYS.search(before(text, one.start())) is not None
        marked = one[1] is not None or (one[3] == one[5] and one[3] in ("-", "."))
        if said or (marked and not is_thing(text, one.start()) and _valid(library, one[0], "US")):
            found.append(one.span())
    for one in _NATIONAL.finditer(text):
        front = before(text, one.start())
        word = _SAYS if one[0].startswith(("0", "(0")) else _TELEPHONE
        if word.search(front) and any(_valid(library, one[0], region) for region in REGIONS):
            found.append(one.span())
    kept: list[tuple[int, int]] = []
    for span in sorted(found, key=lambda span: (span[0], -span[1])):
        if not kept or span[0] >= kept[-1][1]:
            kept.append(span)
    return kept


def _longest(library: Any, text: str, one: re.Match[str], said_so: bool) -> int:
    """Where the longest number ends that begins here; 0 where there is none: digits of something else may
    follow it. After a word that says so it is enough that a number can be as long."""
    said = one[0]
    while True:
        if _valid(library, "+" + said[2:] if said.startswith("00") else said, None, said_so):
            return one.start() + len(said)
        cut = max(said.rfind(mark) for mark in " \u00a0()./-")
        if cut < 7:
            return 0
        said = said[:cut].rstrip(" \u00a0()./-")


def _valid(library: Any, said: str, region: str | None, possible: bool = False) -> bool:
    try:
        number = library.parse(said, region)
        return library.is_possible_number(number) if possible else library.is_valid_number(number)
    except library.NumberParseException:
        return False


def phonenumbers() -> Any:
    """The package phonenumbers; DependencyError where it is not installed."""
    try:
        import phonenumbers  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DependencyError("phonenumbers", "filter", "finding telephone numbers") from error
    return phonenumbers
