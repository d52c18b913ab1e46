"""Payment cards: a number whose first digits an issuer has, of that issuer's length, with its check digit.

Digits run on or are grouped 4-4-4-4, 4-6-5 or 4-6-4 by one mark. One number in ten that begins like a card
has a fitting check digit by chance (Luhn), so what is said to be an order's, a parcel's or another thing's
number is left alone.

Paper: ISO/IEC 7812-1, annex B (Luhn's formula).
"""

from __future__ import annotations

import re

from tinygpt.data.pii._near import before, is_thing, says

_SOLID = r"\d{12,19}"
_GROUPS = (
    r"\d{4}([ \u00a0.-])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?",
    r"\d{4}([ \u00a0.-])\d{6}\1\d{5}",
    r"\d{4}([ \u00a0.-])\d{6}\1\d{4}",
)
_EDGE, _END = r"(?<![\w-])(?<!\d[.,])", r"(?![\w]|[.,-]\d)"
_FORMS = [re.compile(f"{_EDGE}{form}{_END}") for form in (_SOLID, *_GROUPS)]
_FORMS.append(re.compile(rf"{_EDGE}\d{{4}}([ \u00a0.-])\d{{4}}\1\d{{4}}\1\d{{4}}(?!\d)"))
_CARD = says(
    "card|cards|visa|mastercard|amex|american express|discover|diners|jcb|unionpay|cc|debit|credit|pan"
)
# (lowest, highest first digits, lengths) that issuers have.
LONG = tuple(range(12, 20))
ISSUERS = (
    ("4", "4", (13, 16, 19)), ("51", "55", (16,)), ("2221", "2720", (16,)), ("34", "34", (15,)),
    ("37", "37", (15,)), ("6011", "6011", (16, 19)), ("644", "659", (16, 19)), ("300", "305", (14,)),
    ("36", "36", (14,)), ("38", "39", (14,)), ("3528", "3589", (16, 19)), ("2131", "2131", (15,)),
    ("1800", "1800", (15,)), ("62", "62", (16, 17, 18, 19)), ("5018", "5018", LONG), ("5020", "5020", LONG),
    ("5038", "5038", LONG), ("5893", "5893", LONG), ("6304", "6304", LONG), ("6759", "6759", LONG),
    ("6761", "6763", LONG),
)  # fmt: skip


def find(text: str) -> list[tuple[int, int]]:
    """(start, end) of every card's number, in order."""
    found: list[tuple[int, int]] = []
    for form in _FORMS:
        for one in form.finditer(text):
            digits = re.sub(r"\D", "", one[0])
            if (
                not issued(digits)
                or not luhn(digits)
                or any(a < one.end() and one.start() < b for a, b in found)
            ):
                continue
            if not is_thing(text, one.start()) or _CARD.search(before(text, one.start())):
                found.append(one.span())
    return sorted(found)


def issued(digits: str) -> bool:
    """Whether an issuer has numbers that begin so and are as long."""
    return any(low <= digits[: len(low)] <= high and len(digits) in n for low, high, n in ISSUERS)


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of those before it."""
    odd, even = digits[-1::-2], digits[-2::-2]
    return (sum(map(int, odd)) + sum(sum(divmod(2 * int(d), 10)) for d in even)) % 10 == 0
