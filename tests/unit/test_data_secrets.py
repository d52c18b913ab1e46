"""Keys and passwords are found by their shape or by the name that they are assigned to."""

from __future__ import annotations

import base64
import math

import pytest

from tinygpt.data import secrets

KEY = "aB3dE5gH7jK9mN1pQ3sT5vW7"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("AKIA" + "QWERTYUIOPASDFGH", "aws"),
        ("ghp_" + "a1B2" * 9, "github"),
        ("glpat-" + "a1B2c" * 4, "gitlab"),
        ("hf_" + "aBcDe" * 7, "huggingface"),
        ("sk-ant-api03-" + "a1B2c" * 6, "anthropic"),
        ("postgres://app:s3cr3tpw@db.acme.io/x", "password"),
        (f'api_key = "{KEY}"', "assigned"),
        (f'{{"client_secret": "{KEY}"}}', "assigned"),
        (f'{{\\"client_secret\\": \\"{KEY}\\"}}', "assigned"),
        (f"Authorization-Token: Bearer {KEY}", "assigned"),
        ('password = "winter24"', "assigned"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\n" + "a1B2" * 16 + "\n-----END RSA PRIVATE KEY-----",
            "private_key",
        ),
        ("-----BEGIN PRIVATE KEY-----\n" + "a1B2" * 16 + "\n", "private_key"),
        ("[... 9 left out ...]\n" + ("a1B2" * 16 + "\n") * 2 + "-----END PRIVATE KEY-----", "private_key"),
        ("line\\nAKIA" + "QWERTYUIOPASDFGH", "aws"),
        ("line\\\\tghp_" + "a1B2" * 9, "github"),
        ("a\\u0026sk-ant-api03-" + "a1B2c" * 6, "anthropic"),
        (f'{{\\\\\\"client_secret\\\\\\": \\\\\\"{KEY}\\\\\\"}}', "assigned"),
        (f"Authorization: Bearer {KEY}", "header"),
        (f'"authorization": "token {KEY}"', "header"),
        ("Authorization: Basic " + base64.b64encode(b"alice:rabbits").decode(), "header"),
        (f"Set-Cookie: theme=dark; sid={KEY}; HttpOnly", "header"),
        (f"tool --api-key {KEY} -v", "assigned"),
        (f'["--token", "{KEY}"]', "assigned"),
        (f'{{"name": "API_KEY", "value": "{KEY}"}}', "assigned"),
        (f'<add key="ApiKey" value="{KEY}"/>', "assigned"),
        (f"<password>{KEY}</password>", "assigned"),
        (f"my API key is {KEY}", "assigned"),
        ("postgres://app:s3cr3t@pw7@db.acme.io/x", "password"),
        (f"https://{KEY}@git.acme.io/x", "password"),
        (base64.b64encode(b"sk-ant-api03-" + b"a1B2c" * 6).decode(), "anthropic"),
        ("a\\n" + base64.b64encode(b"sk-ant-api03-" + b"a1B2c" * 6).decode(), "anthropic"),
        (base64.b64encode(b"A=1\nDB_PASSWORD=Tr0ub4dor3x9\n").decode(), "assigned"),
    ],
)
def test_found(text: str, kind: str) -> None:
    assert [found[2] for found in secrets.find(f"x {text} y")] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        'api_key = "YOUR_API_KEY_123456789"',
        "AKIAIOSFODNN7EXAMPLE",
        "password = os.environ['PW1']",
        "token: ${TOKEN_1}",
        'secret = "xxxxxxxxxxxxxxxx1"',
        "postgres://user:password@localhost/db",
        "ftp://a:${PASS}@b.c",
        'primary_key = "customer_account_id1234"',
        f"token_hash = {KEY}",
        f"commit {'a1' * 20}",
        "secret_id: 123e4567-e89b-42d3-a456-426614174000",
        f'token = "sha256:{"a1" * 32}"',
        "sk-container--primary-dark",
        f'"integrity": "sha512-{KEY * 3}"',
        "max_tokens: 4096000000000000",
        "private_key = ed25519.Ed25519PrivateKey.from_bytes(x)",
        'token = "some.translation.key"',
        "the password is case-sensitive, and the key is primary",
        "Authorization: Bearer YOUR_ACCESS_TOKEN_1",
        "authorization = base64.decodebytes(x)",
        "Set-Cookie: theme=dark-and-quite-long-name; Path=/",
        "tool --token-file secrets2024.txt --max-tokens 4096000000000000",
        "https://docs.python.org/3/library/re.html?x=a@b",
        base64.b64encode(b"nothing of importance 1 2 3 4 5").decode(),
        "if (secret > 1234567) return",
    ],
)
def test_placeholders_hashes_and_names_stay(text: str) -> None:
    assert secrets.find(text) == []


def test_only_the_value_is_a_secret_and_finds_never_overlap() -> None:
    text = f'token = "ghp_{"a1B2" * 9}" # postgres://app:{KEY}@db.acme.io'
    found = secrets.find(text)
    assert [kind for *_, kind in found] == ["github", "password"]
    assert text[found[1][0] : found[1][1]] == KEY


def test_entropy_is_shannons() -> None:
    assert secrets.entropy("aaaa") == 0 and secrets.entropy("abcd") == 2
    assert math.isclose(secrets.entropy("aab"), -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3)))
