"""Planted texts that recognisers are judged by: formats and sentences other than those they were made with.

Written from the standards and the makers' documents before the recognisers were; nothing here is to be
looked at while one is changed.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from random import Random

from planted_look_alikes import FILL as FILL
from planted_look_alikes import HARD as HARD
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
HOSTS = (
    "proton.me",
    "uni-koeln.de",
    "mail.gov.uk",
    "alumni.mit.edu",
    "posteo.net",
    "bluewin.ch",
    "tiscali.it",
)
_GIVEN = (
    "Aisha Alejandro Amelia Anders Andrea Anthony Arjun Beatrice Bernd Camille Carlos Chloe Claudia "
    "Daniela David Deborah Diego Elena Emeka Erik Fatima Felix Fiona Gabriel Giulia Hannah Hiroshi Hugo "
    "Ingrid Isabella Jamal Jean Jessica Joao Karen Katarzyna Kevin Kwame Lars Laura Leila Liam Lucia "
    "Magdalena Marcus Maria Mehmet Michelle Mohammed Natalia Nicole Nikolai Olivia Omar Oscar Patricia "
    "Pierre Priya Rachel Rahul Ricardo Robert Rosa Samuel Sanjay Sarah Sofia Stefan Susan Tatiana Thomas "
    "Tomasz Ursula Valentina Victoria Wei William Xavier Yuki Yusuf Zainab Zoe"
)
_FAMILY = (
    "Abernathy Adeyemi Baumgartner Bianchi Carvalho Castellanos Chaudhary Dubois Eriksson Fitzgerald "
    "Goldberg Gutierrez Hashimoto Ivanova Jankowski Kowalczyk Lindqvist MacGregor McAllister Moreau "
    "Nakamura O'Sullivan Okonkwo Papadopoulos Petrenko Ramanathan Rossi Schneider Stojanovic Tanaka "
    "Thornton Vandenberg Whitaker Yilmaz Zimmermann"
)


GIVEN, FAMILY = _GIVEN.split(), _FAMILY.split()


def _person(r: Random) -> str:
    first, last = r.choice(GIVEN), r.choice(FAMILY)
    middle = r.choice(["", "", "", f" {r.choice(UPPER)}.", f" {r.choice(GIVEN)}"])
    return f"{first}{middle} {last}" + (f"-{r.choice(FAMILY)}" if r.random() < 0.1 else "")


def _local(r: Random) -> str:
    a, b = some(r, LOWER, r.randint(3, 8)), some(r, LOWER, r.randint(3, 9))
    return r.choice(
        [
            f"{a}_{b}",
            f"{a[0]}.{b}{r.randint(1, 99)}",
            f"{a}-{b}",
            f"{a.title()}.{b.title()}",
            f"{a}+news",
            f"o'{b}",
            b,
        ]
    )


def _us(r: Random) -> tuple[str, str, str]:
    area = r.choice(["206", "303", "404", "503", "612", "713", "805", "917"])
    return area, f"{r.randint(2, 9)}{r.randint(2, 9)}{r.randint(0, 9)}", some(r, DIGITS, 4)


def _hook(r: Random) -> str:
    team, bot = some(r, UPPER + DIGITS, 8), some(r, UPPER + DIGITS, 10)
    return f"https://hooks.slack.com/services/T{team}/B{bot}/{some(r, ALNUM, 24)}"


# Class -> (ways to write a value, sentences around it).
VALUES: dict[str, tuple[list[Make], list[str]]] = {
    "email": (
        [
            lambda r: f"{_local(r)}@{r.choice(HOSTS)}",
            lambda r: (
                f"{_local(r)}@{some(r, LOWER, 5)}.{r.choice(['co.uk', 'com.br', 'museum', 'technology'])}"
            ),
            lambda r: (
                f"{_local(r)}@{r.choice(['bücher', 'société', 'españa'])}.{r.choice(['de', 'fr', 'es'])}"
            ),
            lambda r: f"{_local(r).upper()}@{r.choice(HOSTS).upper()}",
            lambda r: f"{_local(r)} [at] {some(r, LOWER, 7)} [dot] org",
        ],
        [
            "For refunds send a note to {}, please.",
            "From: Billing <{}>",
            "author_email='{}',",
            "CC {} and the board.",
            '{{"contact": "{}"}}',
            "mailto:{}?subject=hi",
        ],
    ),
    "phone": (
        [
            lambda r: "+1 {}-{}-{}".format(*_us(r)),
            lambda r: "({}){}-{}".format(*_us(r)),
            lambda r: "{}.{}.{}".format(*_us(r)),
            lambda r: "1-{}-{}-{} ext. 204".format(*_us(r)),
            lambda r: f"+44 161 {r.randint(220, 999)} {some(r, DIGITS, 4)}",
            lambda r: f"+49 (0)221 {r.randint(2000000, 9999999)}",
            lambda r: f"+33 6 {' '.join(f'{r.randint(10, 99)}' for _ in range(4))}",
            lambda r: f"+91-98{some(r, DIGITS, 3)}-{some(r, DIGITS, 5)}",
            lambda r: f"+8190{r.randint(10000000, 99999999)}",
            lambda r: f"+55 11 9{r.randint(6000, 9999)}-{some(r, DIGITS, 4)}",
        ],
        [
            "Ring the desk on {} before noon.",
            "Mobile {}",
            "tel: {}",
            "Reach me at {}, any day.",
            "Fax/Phone: {} (office)",
            "My number's {}.",
        ],
    ),
    "ssn": (
        [
            lambda r: "-".join(ssn(r)),
            lambda r: "-".join(ssn(r)),
            lambda r: " ".join(ssn(r)),
            lambda r: "".join(ssn(r)),
        ],
        [
            "Her social security number is {}.",
            "SSN {} on file",
            "W-2 employee, soc. sec. no. {}",
            '"ssn": "{}"',
            "Applicant SSN: {}, verified.",
        ],
    ),
    "ip": (
        [
            ipv4,
            ipv4,
            lambda r: f"{ipv4(r)}",
            lambda r: str(ipv6(r)),
            lambda r: ipv6(r).exploded,
            lambda r: str(ipv6(r)).upper(),
        ],
        [
            "{} - - [12/Mar/2023:10:11:12 +0000] GET /",
            "blocked host {} after three tries",
            "client={} status=200",
            "Last login from {}",
            '"remote_addr": "{}",',
            "ssh root@{} failed",
        ],
    ),
    "credit_card": (
        [
            lambda r: grouped(card(r, "4", 16), (4, 4, 4, 4), " "),
            lambda r: grouped(card(r, r.choice(["51", "55", "2221", "2720"]), 16), (4, 4, 4, 4), "-"),
            lambda r: card(r, r.choice(["34", "37"]), 15),
            lambda r: grouped(card(r, "37", 15), (4, 6, 5), " "),
            lambda r: card(r, r.choice(["6011", "644", "65"]), 16),
            lambda r: grouped(card(r, r.choice(["300", "305", "36", "38"]), 14), (4, 6, 4), "-"),
            lambda r: card(r, r.choice(["3528", "3589"]), 16),
            lambda r: grouped(card(r, "62", 16), (4, 4, 4, 4), " "),
            lambda r: card(r, "4", 16),
        ],
        [
            "Charge it to {} please.",
            "card_number: {}",
            "Paid with {} exp 09/27",
            "CC# {}, CVV on request.",
            "Visa or other: {}",
        ],
    ),
    "iban": (
        [
            lambda r: grouped(iban("DE", some(r, DIGITS, 18)), (4,) * 5, " "),
            lambda r: iban("GB", some(r, UPPER, 4) + some(r, DIGITS, 14)),
            lambda r: grouped(
                iban("FR", some(r, DIGITS, 10) + some(r, UPPER + DIGITS, 11) + some(r, DIGITS, 2)),
                (4,) * 6,
                " ",
            ),
            lambda r: iban("NO", some(r, DIGITS, 11)),
            lambda r: grouped(iban("NL", some(r, UPPER, 4) + some(r, DIGITS, 10)), (4,) * 4, " "),
            lambda r: iban("PL", some(r, DIGITS, 24)),
            lambda r: iban("MT", some(r, UPPER, 4) + some(r, DIGITS, 5) + some(r, UPPER + DIGITS, 18)),
        ],
        ["Überweisung an {} bitte.", "IBAN: {}", "Wire to {}, reference 12.", "account {} (EUR)"],
    ),
    "mac": (
        [
            lambda r: ":".join(
                f"{r.randint(0, 127) * 2:02x}" if i == 0 else f"{r.randint(160, 255):02x}" for i in range(6)
            ),
            lambda r: "-".join(
                f"{r.randint(0, 127) * 2:02X}" if i == 0 else f"{r.randint(160, 255):02X}" for i in range(6)
            ),
            lambda r: ".".join(
                f"{r.randint(0x0A00, 0xFFFF) & 0xFEFF:04x}" if i == 0 else f"{r.randint(0xA000, 0xFFFF):04x}"
                for i in range(3)
            ),
        ],
        ["ether {} txqueuelen 1000", "device {} joined the network", "Physical Address: {}", "hwaddr={}"],
    ),
    "name": (
        [_person, _person, _person, lambda r: r.choice(FAMILY)],
        [
            "Regards,\n{}",
            "The report was written by {} in May.",
            "I spoke with {} yesterday.",
            "Patient: {}, seen twice.",
            "{} lives next door.",
        ],
    ),
    "aws": (
        [lambda r: r.choice(["AKIA", "ASIA"]) + some(r, UPPER + "234567", 16)],
        ["export AWS_ACCESS_KEY_ID={}", "key id {} was revoked", '"accessKeyId": "{}"'],
    ),
    "github": (
        [
            lambda r: r.choice(["gho_", "ghs_", "ghp_", "ghu_"]) + some(r, ALNUM, 36),
            lambda r: f"github_pat_{some(r, ALNUM, 22)}_{some(r, ALNUM, 59)}",
        ],
        ["git clone https://{}@github.com/a/b", "GH_TOKEN: {}", "he pasted {} into chat"],
    ),
    "gitlab": ([lambda r: "glpat-" + some(r, ALNUM + "-_", 20)], ["PRIVATE-TOKEN: {}", "token {} expired"]),
    "slack": (
        [
            lambda r: (
                f"xoxp-{some(r, DIGITS, 12)}-{some(r, DIGITS, 12)}-{some(r, DIGITS, 12)}-{some(r, HEX, 32)}"
            ),
            _hook,
        ],
        ["slack: {}", "curl -X POST {}", "post to {} on failure"],
    ),
    "stripe": (
        [lambda r: r.choice(["sk_live_", "rk_live_", "sk_test_"]) + some(r, ALNUM, r.choice([24, 99]))],
        ["stripe.api_key = '{}'", "STRIPE_KEY={}", "use {} in production"],
    ),
    "google": (
        [lambda r: "AIza" + some(r, ALNUM + "-_", 35)],
        ["maps?key={}", 'apiKey: "{}",', "key {} leaked"],
    ),
    "openai": (
        [
            lambda r: f"sk-{some(r, ALNUM, 20)}T3BlbkFJ{some(r, ALNUM, 20)}",
            lambda r: f"sk-proj-{some(r, ALNUM + '-_', 74)}T3BlbkFJ{some(r, ALNUM + '-_', 73)}A",
        ],
        ["OPENAI_API_KEY={}", "Authorization: Bearer {}", "client = OpenAI(api_key='{}')"],
    ),
    "anthropic": (
        [lambda r: f"sk-ant-api03-{some(r, ALNUM + '-_', 93)}AA"],
        ["x-api-key: {}", "key={} # mine", "It is {}"],
    ),
    "huggingface": (
        [lambda r: "hf_" + some(r, LOWER + UPPER, 34)],
        ["HF_TOKEN={}", "login(token='{}')", "my {} key"],
    ),
    "npm": (
        [lambda r: "npm_" + some(r, ALNUM, 36)],
        ["//registry.npmjs.org/:_authToken={}", "rotate {} soon"],
    ),
    "pypi": (
        [lambda r: "pypi-AgEIcHlwaS5vcmc" + some(r, ALNUM + "-_", 120)],
        ["password = {}", "twine -p {}"],
    ),
    "sendgrid": (
        [lambda r: f"SG.{some(r, ALNUM + '-_', 22)}.{some(r, ALNUM + '-_', 43)}"],
        ["SENDGRID={}", "mail key {} set"],
    ),
    "twilio": ([lambda r: "SK" + some(r, HEX, 32)], ["TWILIO_API_KEY={}", "twilio key {} is old"]),
    "azure": (
        [lambda r: base64.b64encode(r.randbytes(64)).decode()],
        ["DefaultEndpointsProtocol=https;AccountName=a1;AccountKey={};EndpointSuffix=core.windows.net"],
    ),
    "jwt": (
        [lambda r: jwt(r, {"iss": some(r, LOWER, 6), "exp": r.randint(10**9, 2 * 10**9)})],
        ["Cookie: session={}", "Authorization: Bearer {}", '"id_token": "{}"'],
    ),
    "private_key": (
        [lambda r: pem(r, r.choice(["RSA", "EC", "OPENSSH", "ENCRYPTED", ""]))],
        ["{}", "id_rsa:\n{}\n"],
    ),
    "password": (
        [lambda r: some(r, ALNUM + "!%*", r.randint(12, 20)) + "7q"],
        [
            "postgresql://app:{}@db.prod.acme.io:5432/main",
            "amqp://svc:{}@mq.acme.io/vh",
            "redis://:{}@10.2.3.4:6379/0",
            "https://deploy:{}@git.acme.io/x.git",
            "mongodb+srv://root:{}@c0.abcde.mongodb.net/test",
        ],
    ),
    "assigned": (
        [
            lambda r: some(r, ALNUM, r.randint(24, 44)),
            lambda r: some(r, HEX, r.choice([32, 40, 64])),
            lambda r: base64.b64encode(r.randbytes(30)).decode(),
        ],
        [
            'client_secret: "{}"',
            "DB_PASSWORD={}",
            "auth_token => '{}'",
            '{{"api-key": "{}"}}',
            'const apiSecret = "{}";',
            "ENCRYPTION_KEY: {}",
        ],
    ),
}
# "name" with a title in front, for which a family name alone is enough.
TITLES = ("Mr. {}", "Ms {}", "Dr. {}", "Prof. {}", "Frau {}", "Señora {}", "Mme {}")
