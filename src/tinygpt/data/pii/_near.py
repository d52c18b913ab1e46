"""What stands before a number and says what it is."""

from __future__ import annotations

import re

# Numbers of things, not of people: what follows these is left alone.
THINGS = (
    "order", "orders", "invoice", "tracking", "parcel", "shipment", "awb", "imei", "isbn", "issn",
    "ean", "upc", "gtin", "sku", "serial", "part", "model", "item", "product", "article", "ticket",
    "case", "ref", "reference", "transaction", "timestamp", "epoch", "id", "uuid", "commit", "build",
    "version", "doi", "pmid", "arxiv", "page", "pages", "line", "zip", "postcode", "ein", "vat",
    "issue", "pr", "usps", "fedex", "ups", "dhl", "batch", "lot", "flight", "patent", "key", "hash",
    "port", "pid", "offset",
)  # fmt: skip
_THING = re.compile(rf"(?i)(?<![a-z0-9])(?:{'|'.join(THINGS)})(?![a-z])(?:n[or]\.|[^\d\n;.!?]){{0,24}}$")
BACK = 48  # letters that are looked at


def says(words: str) -> re.Pattern[str]:
    """A pattern for one of some words, with few other letters up to the number."""
    return re.compile(rf"(?i)(?<![a-z])(?:{words})(?![a-z])[^\n;!?]{{0,24}}$")


def before(text: str, start: int) -> str:
    """The text in front of a place."""
    return text[max(0, start - BACK) : start]


def is_thing(text: str, start: int) -> bool:
    """Whether the number that begins here is said to be that of a thing."""
    return _THING.search(before(text, start)) is not None
