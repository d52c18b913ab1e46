"""Planted texts that recognisers are made with; planted_held_out.py has those that they are judged by."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from planted_values import (
    ALNUM,
    DIGITS,
    HEX,
    LOWER,
    UPPER,
    card,
    grouped,
    iban,
    ipv4,
    ipv6,
    jwt,
    pem,
    some,
    ssn,
)

Make = Callable[[Random], str]
GIVEN = (
    "Anna",
    "Ben",
    "Carla",
    "Daniel",
    "Emma",
    "Frank",
    "Greta",
    "Henry",
    "Irene",
    "Jakob",
    "Luis",
    "Nina",
    "Paolo",
)
FAMILY = (
    "Smith",
    "Jones",
    "Miller",
    "Garcia",
    "Weber",
    "Martin",
    "Silva",
    "Kim",
    "Novak",
    "Larsen",
    "Fischer",
)
VALUES: dict[str, tuple[list[Make], list[str]]] = {
    "email": (
        [
            lambda r: f"{some(r, LOWER, 6)}.{some(r, LOWER, 5)}@gmail.com",
            lambda r: f"{some(r, LOWER, 4)}{r.randint(1, 99)}@mail.{some(r, LOWER, 6)}.de",
            lambda r: f"{some(r, LOWER, 5)}(at){some(r, LOWER, 6)}.com",
        ],
        ["Write to {}.", "Contact: {}", "<{}>", "my address is {}, thanks"],
    ),
    "phone": (
        [
            lambda r: f"415-{r.randint(220, 999)}-{some(r, DIGITS, 4)}",
            lambda r: f"(212) {r.randint(220, 999)}-{some(r, DIGITS, 4)}",
            lambda r: f"+44 20 7{some(r, DIGITS, 3)} {some(r, DIGITS, 4)}",
            lambda r: f"+49 30 {r.randint(2000000, 8999999)}",
        ],
        ["Call {}.", "Phone: {}", "you can text {} anytime", "({})"],
    ),
    "ssn": (
        [lambda r: "-".join(ssn(r)), lambda r: "".join(ssn(r))],
        ["SSN: {}", "my social security number {}"],
    ),
    "ip": ([ipv4, lambda r: str(ipv6(r))], ["from {} port 22", "IP {}", "ping {}", "{} connected"]),
    "credit_card": (
        [
            lambda r: grouped(card(r, "4", 16), (4, 4, 4, 4), "-"),
            lambda r: card(r, "52", 16),
            lambda r: grouped(card(r, "34", 15), (4, 6, 5), " "),
        ],
        ["card {}", "Visa {} expires 01/30", "number: {}."],
    ),
    "iban": (
        [
            lambda r: iban("DE", some(r, DIGITS, 18)),
            lambda r: grouped(iban("ES", some(r, DIGITS, 20)), (4,) * 6, " "),
            lambda r: iban("CH", some(r, DIGITS, 17)),
        ],
        ["IBAN {}", "pay to {} today", "({})"],
    ),
    "mac": (
        [lambda r: ":".join(some(r, HEX, 2) for _ in range(5)) + ":af"],
        ["MAC {}", "interface eth0 {} up"],
    ),
    "name": (
        [lambda r: f"{r.choice(GIVEN)} {r.choice(FAMILY)}"],
        ["Hello {},", "signed by {} today", "{} wrote this."],
    ),
    "aws": ([lambda r: "AKIA" + some(r, UPPER + "234567", 16)], ["aws_access_key_id = {}"]),
    "github": ([lambda r: "ghp_" + some(r, ALNUM, 36)], ["token {}", "GITHUB_TOKEN={}"]),
    "jwt": ([lambda r: jwt(r, {"sub": some(r, DIGITS, 10)})], ["Bearer {}", "jwt={}"]),
    "private_key": ([lambda r: pem(r, "RSA")], ["key:\n{}\n"]),
    "password": (
        [lambda r: some(r, ALNUM, 10) + "9z"],
        ["mysql://root:{}@db.acme.io/x", "ftp://me:{}@files.acme.io"],
    ),
    "assigned": ([lambda r: some(r, ALNUM, 32)], ['api_key = "{}"', "SECRET_KEY={}", 'access_token: "{}"']),
}
TITLES = ("Mr. {}", "Mrs. {}", "Dr {}")
HARD: list[Make] = [
    lambda r: f"order {some(r, DIGITS, 10)}",
    lambda r: f"invoice no. {some(r, DIGITS, 16)}",
    lambda r: f"version 1.{r.randint(0, 20)}.{r.randint(0, 20)}.{r.randint(10, 90)}",
    lambda r: f"{some(r, HEX, 64)}",
    lambda r: f"at {r.randint(10, 23)}:{r.randint(10, 59)}:{r.randint(10, 59)}",
    lambda r: f"{r.uniform(-90, 90):.5f},{r.uniform(-180, 180):.5f}",
    lambda r: f"ISBN 978{some(r, DIGITS, 10)}",
    lambda r: r.choice(
        ["San Diego Zoo", "Paris France", "std::vector", "logo@3x.png", "192.168.0.1", "user@localhost"]
    ),
    lambda r: r.choice(
        ['password = "changeme"', "api_key = os.getenv('KEY')", "sk-learn-contrib", 'token = "<token>"']
    ),
]
FILL = ("It works well.", "Thank you for asking.", "There is more below.", "Ask again later.")
