"""Values that are private or look so: numbers with right check digits, keys in the shapes their makers give.

All are drawn, none is anybody's. What a format is comes from its standard: ISO/IEC 7812 (cards), ISO 13616
(IBAN), the Social Security Administration's rules, E.164 and national numbering plans, RFC 4291 and 5952.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import string
from random import Random

LOWER, UPPER, DIGITS = string.ascii_lowercase, string.ascii_uppercase, string.digits
ALNUM = LOWER + UPPER + DIGITS
HEX = "0123456789abcdef"


def some(r: Random, letters: str, n: int) -> str:
    """n letters of an alphabet."""
    return "".join(r.choices(letters, k=n))


def grouped(text: str, sizes: tuple[int, ...], mark: str) -> str:
    """A text in groups: 4111-1111-..."""
    parts, at = list[str](), 0
    for size in sizes:
        parts.append(text[at : at + size])
        at += size
    return mark.join([*parts, *([text[at:]] if text[at:] else [])])


def luhn(digits: str) -> str:
    """The digits with their check digit."""
    total = 0
    for i, digit in enumerate(reversed(digits)):
        n = int(digit) * (2 if i % 2 == 0 else 1)
        total += n - 9 if n > 9 else n
    return digits + str(-total % 10)


def card(r: Random, prefix: str, n: int) -> str:
    """A card's number of n digits."""
    return luhn(prefix + some(r, DIGITS, n - 1 - len(prefix)))


def iban(country: str, account: str) -> str:
    """An account with the check digits of its country."""
    moved = "".join(str(int(c, 36)) for c in f"{account}{country}00")
    return f"{country}{98 - int(moved) % 97:02d}{account}"


def ssn(r: Random) -> tuple[str, str, str]:
    """Area, group and serial that can have been given out."""
    area = r.choice([n for n in range(1, 900) if n != 666])
    return f"{area:03d}", f"{r.randint(1, 99):02d}", f"{r.randint(1, 9999):04d}"


def ipv4(r: Random) -> str:
    """A public address, whose last part is no 0."""
    while True:
        found = ipaddress.IPv4Address(r.getrandbits(32))
        if found.is_global and not found.is_multicast and int(found) & 255:
            return str(found)


def ipv6(r: Random) -> ipaddress.IPv6Address:
    """A public address of the ranges that are given out, with a short or a long host part."""
    net = r.choice([0x2A00, 0x2600, 0x2400, 0x2803]) << 112 | r.getrandbits(80) << 32
    host = r.choice([r.getrandbits(8) | 1, r.getrandbits(32) | 1 << 31])
    return ipaddress.IPv6Address(net & ~(0xFFFF << 64) | host if r.random() < 0.5 else net | host)


def jwt(r: Random, claims: dict[str, object]) -> str:
    """A signed token with these claims."""
    parts = [{"alg": "HS256", "typ": "JWT"}, claims]
    told = [base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts]
    return ".".join([*told, some(r, ALNUM + "-_", 43)])


def pem(r: Random, kind: str, lines: int = 6) -> str:
    """A private key's block, of drawn letters."""
    label = f"{kind} PRIVATE KEY".strip()
    body = "\n".join(some(r, ALNUM + "+/", 64) for _ in range(lines))
    return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----"


def isbn13(r: Random) -> str:
    """A book's number with its check digit."""
    body = "978" + some(r, DIGITS, 9)
    total = sum(int(c) * (1 if i % 2 == 0 else 3) for i, c in enumerate(body))
    return f"{body[:3]}-{body[3]}-{body[4:7]}-{body[7:]}-{-total % 10}"
