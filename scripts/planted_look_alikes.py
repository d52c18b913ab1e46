"""Sentences that planted texts have besides: some with numbers and words that are none of the classes.

They belong to the held-out texts: nothing here is to be looked at while a recogniser is changed.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from random import Random

from planted_values import DIGITS, HEX, isbn13, luhn, some

Make = Callable[[Random], str]
# What is none of these, though it looks like it.
HARD: list[Make] = [
    lambda r: f"Order #{some(r, '123456789', 10)} shipped.",
    lambda r: f"Your order number is 4{some(r, DIGITS, 15)}.",
    lambda r: f"tracking 9400{some(r, DIGITS, 18)} via USPS",
    lambda r: f"ISBN {isbn13(r)} (paperback)",
    lambda r: f"located at {r.uniform(-90, 90):.6f}, {r.uniform(-180, 180):.6f}",
    lambda r: f"upgraded from v{r.randint(1, 9)}.{r.randint(0, 99)}.{r.randint(0, 99)}.{r.randint(0, 250)}",
    lambda r: f"version {r.randint(1, 99)}.{r.randint(0, 99)}.{r.randint(0, 99)}.{r.randint(1, 250)} is out",
    lambda r: f"Chrome/{r.randint(90, 130)}.0.{r.randint(4000, 6999)}.{r.randint(1, 199)} Safari/537.36",
    lambda r: (
        f"see section {r.randint(1, 9)}.{r.randint(1, 9)}.{r.randint(1, 9)}.{r.randint(1, 9)} of the manual"
    ),
    lambda r: f"pip install torch=={r.randint(1, 3)}.{r.randint(0, 9)}.{r.randint(0, 9)}.{r.randint(1, 9)}",
    lambda r: (
        f"listening on {r.choice(['127.0.0.1', '0.0.0.0', '192.168.1.20', '10.0.0.7', '::1', 'fe80::1'])}"
    ),
    lambda r: f"commit {some(r, HEX, 40)}",
    lambda r: f'"integrity": "sha512-{base64.b64encode(r.randbytes(64)).decode()}",',
    lambda r: f'hash = "sha256:{some(r, HEX, 64)}"',
    lambda r: f"request id {uuid.UUID(int=r.getrandbits(128), version=4)}",
    lambda r: (
        f"{r.randint(2015, 2029)}-{r.randint(10, 12)}-{r.randint(10, 28)} "
        f"{r.randint(10, 23)}:{r.randint(10, 59)}:{r.randint(10, 59)}"
    ),
    lambda r: f"timestamp {r.randint(1_600_000_000_000, 1_800_000_000_000)}",
    lambda r: f"EIN {r.randint(10, 99)}-{some(r, DIGITS, 7)}",
    lambda r: f"ZIP {some(r, DIGITS, 5)}-{some(r, DIGITS, 4)}",
    lambda r: f"SSN 000-{r.randint(10, 99)}-{some(r, DIGITS, 4)} is not valid",
    lambda r: f"part 666-{r.randint(10, 99)}-{some(r, DIGITS, 4)} in stock",
    lambda r: f"IMEI {luhn('35' + some(r, DIGITS, 12))}",
    lambda r: f"DE{some(r, DIGITS, 2)}{some(r, DIGITS, 5)} is the tariff code",
    lambda r: f"doi:10.{r.randint(1000, 9999)}/{some(r, DIGITS, 3)}.{some(r, DIGITS, 6)}",
    lambda r: f"fingerprint {':'.join(some(r, HEX, 2) for _ in range(16))}",
    lambda r: f"pi is 3.{some(r, DIGITS, 16)}",
    lambda r: f"arXiv {r.randint(1001, 2412)}.{some(r, DIGITS, 5)}",
    lambda r: f"npm i left-pad@1.{r.randint(0, 9)}.{r.randint(0, 9)} react@18.2.0",
    lambda r: r.choice(
        [
            "icon@2x.png was resized",
            "git@github.com:acme/tools.git",
            "use @dataclass here",
            "std::map::iterator",
        ]
    ),
    lambda r: r.choice(
        [
            "the Jordan River floods",
            "Victoria Station closes",
            "Austin Texas is hot",
            "Florence Italy in May",
            "Madison Avenue shops",
            "Charlotte Airport code",
        ]
    ),
    lambda r: r.choice(
        [
            "New York Times",
            "United Nations Security Council",
            "Monte Carlo Simulation",
            "Visual Studio Code",
            "Machine Learning Engineer",
            "Great Barrier Reef",
        ]
    ),
    lambda r: r.choice(
        [
            'api_key = "YOUR_API_KEY_GOES_HERE"',
            "password = os.environ['DB_PASSWORD']",
            'token: "${SECRET_TOKEN}"',
            'secret_key = "xxxxxxxxxxxxxxxxxxxxxxxx"',
            "AKIAIOSFODNN7EXAMPLE",
            "postgres://user:password@localhost/db",
            'primary_key = "customer_account_identifier"',
            "token_type: bearer",
            "sk-container--primary-dark",
            'private_key_path = "/etc/ssl/private/server.key"',
            "hf_hub_download(repo_id)",
        ]
    ),
    lambda r: f"data:image/png;base64,{base64.b64encode(r.randbytes(60)).decode()}",
    lambda r: (
        f"results in 2019-2023: {r.randint(100, 999)} {r.randint(100, 999)} {r.randint(1000, 9999)} cases"
    ),
    lambda r: f"invoice {some(r, DIGITS, 3)}-{some(r, DIGITS, 4)}-{some(r, DIGITS, 4)}-{some(r, DIGITS, 2)}",
    lambda r: f"cache key user_{some(r, DIGITS, 9)}_profile",
]
FILL = (
    "The meeting moved to Thursday.",
    "Nothing else changed since the last review.",
    "See the notes below.",
    "It took about 20 minutes to rebuild.",
    "We tried twice, then gave up.",
    "Rain is expected on Sunday.",
)
