"""Hardware addresses of network cards: six pairs between colons or dashes, or three fours between dots.

Longer rows of pairs, which are fingerprints, and the addresses of all and of none stay. Six pairs of digits
alone between dashes are taken for a date and a time.
"""

from __future__ import annotations

import re

_FORMS = (
    re.compile(
        r"(?<![\w:-])[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![\w]|[:-][0-9A-Fa-f])"
    ),
    re.compile(r"(?<![\w.])[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}(?![\w]|\.\w)"),
)


def find(text: str) -> list[tuple[int, int]]:
    """(start, end) of every address, in order."""
    return sorted(one.span() for form in _FORMS for one in form.finditer(text) if _is_one(one[0]))


def _is_one(said: str) -> bool:
    digits = re.sub(r"[:.-]", "", said).lower()
    return not digits.isdigit() and len(set(digits)) > 1 if ":" not in said else len(set(digits)) > 1
