"""Keys and passwords: known shapes by their makers' documents, and what is assigned to a name that says so.

A value behind `api_key =`, `"password":` and the like counts where it is as mixed as drawn letters are, by
Shannon's entropy H = -sum p log2 p over its letters: 3.0 bits for hexadecimal, 3.5 for others. Values that
are read from elsewhere, placeholders, paths and hashes of files do not. A mixed text without such a name
stays: a key and a checksum look alike.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections import Counter
from collections.abc import Callable

Find = tuple[int, int, str]
"""Where a secret begins and ends, and its kind."""

_B64URL = r"[A-Za-z0-9_-]"


def _mixed(said: str) -> bool:
    return (
        any(c.isdigit() for c in said) and any(c.isupper() for c in said) and any(c.islower() for c in said)
    )


def _letters(said: str) -> bool:
    return any(c.isupper() for c in said) and any(c.islower() for c in said)


def _token(said: str) -> bool:
    """Whether the head of a JWT is what it should be."""
    head = said.partition(".")[0]
    try:
        found = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except ValueError:
        return False
    return isinstance(found, dict) and ("alg" in found or "typ" in found)


def _any(said: str) -> bool:
    return True


def _own(said: str) -> bool:
    """Whether a value is written here: neither read from elsewhere nor a word of examples."""
    return not _ELSEWHERE.search(said) and not _FAKE_WORD.match(said)


# Kind, a text that must be there, the shape (group 1: what is secret, if not all), and a further check. What
# comes first wins where two overlap.
SHAPES: tuple[tuple[str, str, re.Pattern[str], Callable[[str], bool]], ...] = tuple(
    (kind, mark, re.compile(shape), check)
    for kind, mark, shape, check in (
        ("private_key", "PRIVATE KEY",
         r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s\\:,.()-]{40,20000}?"
         r"(?:-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
         r"|\Z|(?=[^A-Za-z0-9+/=\s\\:,.()-]))", _any),
        ("aws", "A", r"(?<![A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])", _any),
        ("github", "_", r"(?<![A-Za-z0-9_])gh[pousr]_[A-Za-z0-9]{36,255}(?![A-Za-z0-9_])", _any),
        ("github", "github_pat_", r"(?<![A-Za-z0-9_])github_pat_[A-Za-z0-9_]{60,100}(?!\w)", _any),
        ("gitlab", "gl",
         r"(?<![A-Za-z0-9_])gl(?:pat|dt|rt|ptt|ft|soat|agent|cbt|imt|oas)-[\w-]{20,64}(?![\w-])",
         _any),
        ("slack", "xox", r"(?<![A-Za-z0-9])xox[abeoprs]-(?:\d-)?[A-Za-z0-9-]{10,250}(?![\w-])",
         lambda said: any(c.isdigit() for c in said)),
        ("slack", "xapp-", r"(?<![A-Za-z0-9])xapp-\d-[A-Z0-9]+-\d+-[a-z0-9]{20,}", _any),
        ("slack", "hooks.slack.com", r"https://hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9+/]{40,80}",
         _any),
        ("stripe", "_",
         r"(?<![A-Za-z0-9])(?:[sr]k_(?:live|test|prod)|whsec)_[A-Za-z0-9]{16,247}(?![A-Za-z0-9])",
         _any),
        ("google", "AIza", r"(?<![\w-])AIza[\w-]{35}(?![\w-])", _any),
        ("google", "GOCSPX-", r"(?<![\w-])GOCSPX-[\w-]{28}(?![\w-])", _any),
        ("google", "ya29.", r"(?<![\w-])ya29\.[\w-]{30,}", _any),
        ("anthropic", "sk-ant-", rf"(?<![A-Za-z0-9_-])sk-ant-{_B64URL}{{24,}}", _any),
        ("openai", "sk-", rf"(?<![A-Za-z0-9_-])sk-(?:[a-z]+[0-9]*-)?{_B64URL}{{20,}}(?![\w-])", _mixed),
        ("huggingface", "hf_", r"(?<![A-Za-z0-9_])(?:hf|api_org)_[A-Za-z0-9]{30,40}(?!\w)", _letters),
        ("npm", "npm_", r"(?<![A-Za-z0-9_])npm_[A-Za-z0-9]{36}(?!\w)", _any),
        ("pypi", "pypi-", r"(?<![\w-])pypi-AgE[\w-]{50,}", _any),
        ("sendgrid", "SG.", r"(?<![\w.])SG\.[\w-]{16,32}\.[\w-]{16,64}(?![\w-])", _any),
        ("twilio", "SK", r"(?<![A-Za-z0-9])SK[0-9a-f]{32}(?![A-Za-z0-9])", _any),
        ("telegram", ":", r"(?<![\w:])\d{8,10}:AA[\w-]{33}(?![\w-])", _any),
        ("azure", "=", r"(?i)(?:AccountKey|SharedAccessKey)=([A-Za-z0-9+/]{40,90}={0,2})", _any),
        ("azure", "sig=", r"[?&]sig=([A-Za-z0-9%+/]{40,70}(?:%3D|=){0,2})(?=[&\s\"']|$)", _any),
        ("jwt", "eyJ", r"(?<![\w.-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{16,}", _token),
        ("password", "://", r"(?<![A-Za-z0-9])[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s:/@\"'<>]{0,64}:"
         r"([^\s/@\"'<>]{3,200})@"
         r"[\w.-]+", _own),
    )
)  # fmt: skip
_ASSIGNED = re.compile(
    r"(?i)((?:secret|token|passw(?:or)?d|passphrase|passwd|pwd|credential|"
    r"(?:api|access|auth|private|encrypt(?:ion)?|signing)[_.-]?key)[\w.-]{0,24})"
    r"(?:\\?[\"'])?\s{0,3}(?::=|=>|[=:])\s{0,3}(\\?[\"'`]|(?:Bearer|Basic)\s)?([^\s\"'`\\,;<>(){}\[\]&]{6,200})"
)
_NAME = re.compile(r"[\w.-]{0,40}$")
_CODE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+$")
# What the last word of such a name may be without its value being the secret.
_ABOUT = re.compile(
    r"(?i)(?:^|[_.-])(?:id|ids|type|path|file|url|uri|name|names|env|var|length|len|size|count|limit|hash|"
    r"field|ref|version|expiry|expires|expiration|ttl|policy|hint|label|placeholder|algorithm|header|index|tokens?_used|"
    r"class|arn|prefix|regex|pattern|manager|provider|store|min|max)$|tokens$|"
    r"(?:^|[_.-])(?:public|primary|foreign|sort|partition)"
)
_FAKE = re.compile(
    r"(?i)example|your|placeholder|change[_-]?me|replace[_-]?(?:me|this|with)|dummy|redacted|removed|sample|"
    r"insert|(.)\1{5}|[*x]{4}|\.\.\.|1234567890|abcdefghij|deadbeef"
)
_FAKE_WORD = re.compile(
    r"(?i)^(?:pass|passw(?:or)?d|pwd?|secret|token|user(?:name)?|key|none|null|true|false|undefined|test(?:ing)?|"
    r"admin|foo|bar|foobar|hunter2|root|guest|postgres|mysql|redis|required|string|optional)\d{0,3}$"
)
_ELSEWHERE = re.compile(
    r"\$[{(\w]|%[sd]$|%\(|^%\w+%$|[<{]|"
    r"^(?:os|process|env|config|settings|self|this|vault|secrets?|request|args)[.\[:]|"
    r"^(?:~|\.{0,2}/[\w.-]+/|\.)"
)
_HEX = re.compile(r"^[0-9a-fA-F]+$")
_HASH = re.compile(r"^(?:sha\d{1,3}|md5|ssh-\w+|blake\w+)[:-]")
_UUID = re.compile(r"^[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$")
_WORDS = re.compile(r"^[A-Za-z]+(?:[_./:-][A-Za-z]+)*[_./:-]?\d{0,2}$")


def find(text: str) -> list[Find]:
    """Every secret of a text, in order; none overlaps another."""
    found: list[Find] = []
    for kind, mark, shape, check in SHAPES:
        if mark in text:
            for one in shape.finditer(text):
                group = 1 if shape.groups else 0
                said = one[group]
                if (kind == "private_key" or not _FAKE.search(said)) and check(said):
                    _add(found, (*one.span(group), kind))
    for one in _ASSIGNED.finditer(text):
        front = _NAME.search(text, max(0, one.start() - 40), one.start())
        assert front is not None
        if _is_assigned(front[0] + one[1], one[2] or "", one[3]):
            _add(found, (*one.span(3), "assigned"))
    return sorted(found)


def entropy(text: str) -> float:
    """Bits a letter, over the letters that the text has."""
    n = len(text)
    return -sum(k / n * math.log2(k / n) for k in Counter(text).values())


def _add(found: list[Find], new: Find) -> None:
    if not any(a < new[1] and new[0] < b for a, b, _ in found):
        found.append(new)


def _is_assigned(name: str, quote: str, said: str) -> bool:
    if _ABOUT.search(name) or _FAKE.search(said) or not _own(said):
        return False
    if _HASH.match(said) or _UUID.match(said) or (not quote and _CODE.match(said)):
        return False
    if not any(c.isdigit() for c in said):
        return not _WORDS.match(said) and len(said) >= 20 and _letters(said) and entropy(said) >= 4.2
    if "pass" in name.lower() or "pwd" in name.lower():  # people choose these: shorter and less mixed
        quoted = bool(quote.strip()) and any(c.isalpha() for c in said)
        return quoted or (len(said) >= 12 and entropy(said) >= 3.0)
    if _WORDS.match(said):
        return False
    if _HEX.match(said):
        return len(said) >= 16 and entropy(said) >= 3.0
    return len(said) >= 16 and any(c.isalpha() for c in said) and entropy(said) >= 3.5
