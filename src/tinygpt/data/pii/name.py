"""Names of people: after a title, or a first name of a list with a family name behind it.

The least certain recogniser, so it acts when it is asked for: people of novels and of history are found like
anybody, some places are people's names, and first names that the list of 1,055 lacks are found after a title
alone. Of names as they are drawn for the United States it finds 84 in a hundred without a title, of British
ones 76, of others 12 to 62; after a title 97 to 100.
"""

from __future__ import annotations

import re

from tinygpt.data.pii._first_names import FIRST, NO_FAMILY, PLACES

_WORD = r"(?:[A-Z]['’])?[A-ZÀ-ÖØ-ÞĀ-Ž][^\W\d_]+(?:[-'’][A-ZÀ-ÖØ-ÞĀ-Ž]['’]?[^\W\d_]+)*"
_SPACE = r"[ \u00a0]"
_PARTS = (
    rf"(?:(?:van|von|de|da|dos|das|di|del|della|der|den|la|le|bin|ibn|al|el|ten|ter|zu|y)"
    rf"{_SPACE}|al-|el-){{0,3}}"
)
_LAST = rf"{_PARTS}{_WORD}"
_INITIAL = rf"(?:[A-Z]\.{_SPACE}?){{1,3}}"
_TITLE = re.compile(
    r"(?<!\w)(?:(?:Mr|Mrs|Ms|Mx|Dr|Prof|Rev|Hon|Sr|Sra|Srta|Sig|Dott|Mme|Mlle|Fr|Capt|Lt|Sgt|Col|Gen)\.?|Miss|"
    r"Professor|Doctor|Herr|Frau|Monsieur|Madame|Mademoiselle|Señora?|Señorita|Senhora?|Signora?|Sir|Dame|"
    rf"Shri|Smt)(?:{_SPACE}(?:Dr|Prof)\.?)?{_SPACE}((?:{_INITIAL})?{_LAST}(?:{_SPACE}{_LAST}){{0,2}})"
)
_FULL = re.compile(
    rf"(?<![\w@#/-])({_WORD}){_SPACE}((?:{_INITIAL}{_SPACE}?)?)((?:{_LAST}{_SPACE})?)({_LAST})(?!\w)"
)
_SPLIT = re.compile(r"[\s-]+")


def find(text: str) -> list[tuple[int, int]]:
    """(start, end) of every name, without its title, in order."""
    found: list[tuple[int, int]] = []
    for one in _TITLE.finditer(text):
        words = one[1].split()
        while words and words[-1] in NO_FAMILY:
            words.pop()
        if words:
            found.append((one.start(1), one.start(1) + one[1].rindex(words[-1]) + len(words[-1])))
    at = 0
    while one := _FULL.search(text, at):
        at = one.end(1)
        first = _SPLIT.split(one[1])[0]
        front = text[max(0, one.start() - 12) : one.start()].split()
        if first not in FIRST or (front and front[-1] in PLACES and text[one.start() - 1] in " \u00a0"):
            continue
        middle, last = one[3].strip(), one[4]
        if middle in NO_FAMILY or (not middle and last in NO_FAMILY):
            continue
        if last in NO_FAMILY:
            if middle not in FIRST and _follows(text, one):
                continue  # "David Thornton Hospital" is a hospital
            end = one.end(3) - 1
        else:
            end = one.end()
        if not any(a < end and one.start() < b for a, b in found):
            found.append((one.start(), end))
        at = max(at, end)
    return sorted(found)


def _follows(text: str, one: re.Match[str]) -> bool:
    return text[one.end(3) - 1] in " \u00a0"
