"""What every recogniser of private data promises."""

from __future__ import annotations

import time

import pytest

from tinygpt.core.family import Family
from tinygpt.data import scrub

PII = Family("tinygpt.data.pii", verb="find")
# By recogniser: texts with what must be found in each; a new one adds its own.
FOUND: dict[str, list[tuple[str, list[str]]]] = {
    "email": [
        ("Write to jo.doe+x@mail.example.org, or (mo@b.de).", ["jo.doe+x@mail.example.org", "mo@b.de"]),
        ("jo [at] mail [dot] org", ["jo [at] mail [dot] org"]),
    ],
    "phone": [
        ("call +1 415-555-0132 or (212) 555-0199", ["+1 415-555-0132", "(212) 555-0199"]),
        ("Telefon 030 2345678.", ["030 2345678"]),
        ("0049 30 2345678 9th floor", ["0049 30 2345678"]),
    ],
    "ssn": [("SSN 536-22-1234, social security number 536221234", ["536-22-1234", "536221234"])],
    "ip": [("from 93.184.216.34:80 and 2606:2800:220:1::1946", ["93.184.216.34", "2606:2800:220:1::1946"])],
    "credit_card": [("4111 1111 1111 1111, 378282246310005", ["4111 1111 1111 1111", "378282246310005"])],
    "iban": [("pay GB82 WEST 1234 5698 7654 32 now", ["GB82 WEST 1234 5698 7654 32"])],
    "mac": [("00:1a:2B:3c:4d:5e, 001a.2b3c.4d5e", ["00:1a:2B:3c:4d:5e", "001a.2b3c.4d5e"])],
    "name": [
        (
            "Dr. Weber met Maria van der Berg and John Q. Public.",
            ["Weber", "Maria van der Berg", "John Q. Public"],
        )
    ],
}
# Texts in which nothing is.
NONE: dict[str, list[str]] = {
    "email": ["icon@2x.png", "git@github.com:a/b.git", "left-pad@1.3.0", "@property", "a@b"],
    "phone": [
        "order 4155550132",
        "2023-10-12 10:11:12",
        "978-0-306-40615-7",
        "40.712800, -74.006000",
        "1,415,555,0132",
    ],
    "ssn": [
        "000-12-3456",
        "666-12-3456",
        "900-12-3456",
        "123-00-4567",
        "078-05-1120",
        "536 22 1234",
        "part 536-22-1234",
    ],
    "ip": [
        "v1.22.33.44",
        "127.0.0.1",
        "192.168.0.1",
        "999.1.1.1",
        "Chrome/93.184.216.34",
        "std::map",
        "8.8.8.0/24",
        "torch==11.22.33.44",
        '"version": "11.22.33.44"',
        'ObjectIdentifier("2.5.29.14")',
        "fe80::1",
        "12:34:56",
    ],
    "credit_card": [
        "4111 1111 1111 1112",
        "order 4111111111111111",
        "0.4111111111111111",
        "9111111111111114",
    ],
    "iban": ["GB83 WEST 1234 5698 7654 32", "DE12345", "US82 WEST 1234 5698 7654 32"],
    "mac": ["ff:ff:ff:ff:ff:ff", "24-01-15-10-20-30", "00:1a:2b:3c:4d:5e:6f:70", "10:20:30"],
    "name": [
        "San Diego Zoo",
        "Victoria Station",
        "Monte Carlo Simulation",
        "the Jordan River",
        "Visual Studio Code",
    ],
}


def said(name: str, text: str) -> list[str]:
    return [text[a:b] for a, b in PII.load(name).find(text)]


@pytest.mark.parametrize("name", PII.names())
def test_finds_its_own_and_nothing_that_looks_like_it(name: str) -> None:
    for text, wanted in FOUND[name]:
        assert said(name, text) == wanted
    for text in NONE[name]:
        assert said(name, text) == [], text


@pytest.mark.parametrize("name", PII.names())
def test_spans_are_in_order_apart_and_gone_once_replaced(name: str) -> None:
    text = "\n".join(text for text, _ in FOUND[name])
    spans = PII.load(name).find(text)
    assert all(a < b for a, b in spans) and all(b <= c for (_, b), (c, _) in zip(spans, spans[1:]))
    scrubber = scrub.Scrubber([name], secret=False)
    left, found = scrubber.text(text)
    assert len(found) == len(spans) and scrub.label(name) in left
    assert scrubber.text(left) == (left, [])
    assert PII.load(name).find("") == []


@pytest.mark.parametrize("name", PII.names())
@pytest.mark.parametrize("unit", ["a", "1", "A1 ", "1.", "a:", "4111 ", "+1 ", "Ab ", "@a.", "0-", "é"])
def test_time_grows_with_the_text_alone(name: str, unit: str) -> None:
    find = PII.load(name).find
    find("warm +1 4155550132")
    took = list[float]()
    for n in (4_000, 16_000):
        began = time.process_time()
        find(unit * (n // len(unit)))
        took.append(time.process_time() - began)
    assert took[1] < 0.05 or took[1] < 10 * took[0], (
        "four times the text takes four times as long, not sixteen"
    )
