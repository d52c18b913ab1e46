"""Take what is private out of rows: every text of a row, whatever its shape, and a record of what was done.

A secret becomes [SECRET], an address [EMAIL], and so on, in texts, whole numbers and the names of columns
alike, and in JSON that is kept as text. The record says where it was, never what. Digits in columns that name
things, such as id and sha256, mean nothing: addresses of mail and secrets are looked for there, and no more.
Digits in web addresses, which number pages, stay too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tinygpt.core.errors import ConfigError, DataError, unknown
from tinygpt.core.family import Family
from tinygpt.data import rows, secrets
from tinygpt.data.message import DEEPEST

SPEAKS = ("role", "from")  # columns whose texts say who speaks,
ASIDE = (*SPEAKS, "metadata", "_meta")  # or where a row is from
PII = Family("tinygpt.data.pii", verb="find")
# In the order in which they are believed where two see the same text.
ORDER = ("email", "iban", "credit_card", "ssn", "mac", "ip", "phone", "name")
AUTO = ORDER[:-1]  # names are a guess, so they are looked for when they are asked for
PLAIN = ("email", "ip")  # what is found in web addresses too,
NAMES = ("email",)  # and in what names a thing
SECRET = "secret"
_URL = re.compile(r"(?i)\b(?:https?|ftp|wss?)://[^\s<>\"']+")
_NAMED = re.compile(
    r"(?i)(?:^|_)(?:id|ids|uuid|guid|sha|sha1|sha256|md5|hash|digest|checksum|etag|doi|isbn)$"
)
_WORD = re.compile(r"[A-Za-z_.-]{0,40}")  # what is no private text, whatever is looked for
SHORT = 400  # letters
LEAST = 10**6  # smaller numbers are nobody's


@dataclass(frozen=True)
class Found:
    """One private text: which recogniser saw it, in which field, and where (letters from 0)."""

    recogniser: str
    field: str
    start: int
    end: int


def named(given: Sequence[str]) -> tuple[str, ...]:
    """The recognisers that some words mean: auto, all, none, or names, with - or _ in them."""
    words = [word.strip().replace("-", "_") for word in given]
    known = PII.names()
    for word in words:
        if word not in (*known, "auto", "all", "none"):
            raise unknown("recogniser", word, [*known, "auto", "all", "none"])
    if "none" in words and len(words) > 1:
        raise ConfigError("--pii none stands alone", hint="leave out the others")
    many = {"auto": AUTO, "all": tuple(known), "none": ()}
    chosen = {name for word in words for name in many.get(word, (word,))}
    return tuple(sorted(chosen, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name)))


class Scrubber:
    """Finds and replaces what some recognisers see, and secrets. It is what pickle takes."""

    def __init__(self, recognisers: Sequence[str], *, secret: bool = True) -> None:
        self.names, self.secret = tuple(recognisers), secret
        self._find: dict[str, Callable[[str], list[tuple[int, int]]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_find": {}}

    def find(self, text: str, *, naming: bool = False) -> list[tuple[int, int, str]]:
        """(start, end, recogniser) of everything, in order; of two that overlap, the one believed first. The
        kind of a secret follows its name: "secret:github". `naming`: the text is the name of a thing."""
        found = [(a, b, f"{SECRET}:{kind}") for a, b, kind in secrets.find(text)] if self.secret else []
        bare = _URL.sub(lambda one: " " * len(one[0]), text) if self.names and "://" in text else text
        for name in self.names:
            if naming and name not in NAMES:
                continue
            if name not in self._find:
                self._find[name] = PII.load(name).find
            for a, b in self._find[name](text if name in PLAIN else bare):
                if not any(a < end and start < b for start, end, _ in found):
                    found.append((a, b, name))
        return sorted(found)

    def text(self, text: str, field: str = "", key: str = "") -> tuple[str, list[Found]]:
        """The text without what is private, and what that was. A short one is read after its key, which says
        what it is: {"ssn": "..."}."""
        naming = is_name(key)
        before = f"{key}: " if key and not naming and len(text) <= SHORT else ""
        n = len(before)
        found = [(a - n, b - n, name) for a, b, name in self.find(before + text, naming=naming) if a >= n]
        parts, at = list[str](), 0
        for start, end, name in found:
            parts += [text[at:start], label(name)]
            at = end
        return "".join([*parts, text[at:]]), [Found(name, field, a, b) for a, b, name in found]

    def row(self, row: Any) -> tuple[Any, list[Found]]:
        """The row without what is private, and what that was. DataError where it is nested too deeply to be
        looked through."""
        found: list[Found] = []
        return self._value(row, "", found, 0), found

    def _value(self, value: Any, field: str, found: list[Found], depth: int, key: str = "") -> Any:
        if isinstance(value, str):
            inner = _json(value)
            if inner is not None:  # arguments of a call: JSON as text stays JSON
                n = len(found)
                changed = self._value(inner, f"{field}>", found, depth + 1)
                return json.dumps(changed, ensure_ascii=False) if len(found) > n else value
            text, seen = self.text(value, field, key)
            found += seen
            return text
        if isinstance(value, int) and abs(value) >= LEAST:
            text, seen = self.text(str(value), field, key)
            found += seen
            return text if seen else value
        if not isinstance(value, dict | list):
            return value
        if depth >= DEEPEST:
            raise DataError(f"it is nested more than {DEEPEST} levels deep")
        if isinstance(value, list):
            return [self._value(one, f"{field}[{i}]", found, depth + 1, key) for i, one in enumerate(value)]
        return self._object(value, field, found, depth)

    def _object(self, value: dict[str, Any], field: str, found: list[Found], depth: int) -> dict[str, Any]:
        """An object, whose names may be private too: of two that are alike then, the second gets a number."""
        new: dict[str, Any] = {}
        for key, one in value.items():
            name, seen = (key, []) if _WORD.fullmatch(key) else self.text(key)
            place = _join(field, name)
            found += [replace(each, field=place) for each in seen]
            n, plain = len(new), name
            while name in new:
                n += 1
                name = f"{plain} {n}"
            new[name] = self._value(one, place, found, depth + 1, key)
        return new


def label(name: str) -> str:
    """What stands in the place of what a recogniser saw: [EMAIL], [CREDIT_CARD]."""
    return f"[{name.partition(':')[0].upper()}]"


def is_name(key: str) -> bool:
    """Whether a column says which row it is, or what its hash is."""
    return _NAMED.search(key) is not None


def texts(row: Any) -> Iterator[str]:
    """Every text of a row but those that name it or say who speaks or where it is from; JSON as text is one
    text."""
    return rows.strings(row, lambda key: key in ASIDE or is_name(key))


def _join(field: str, key: Any) -> str:
    return f"{field}.{key}" if field and not field.endswith(">") else f"{field}{key}"


def _json(text: str) -> Any:
    """What a text says, where it is a JSON object or list. DataError where it is nested too deeply."""
    if text[:1] not in "{[" or text[-1:] not in "}]" or not text:
        return None
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except RecursionError as error:
        raise DataError(f"a text in it is JSON of more than {DEEPEST} levels") from error
    except ValueError:
        return None
    return found if isinstance(found, dict | list) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; ValueError where two values have one name: the first would be lost, and not looked at."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found
