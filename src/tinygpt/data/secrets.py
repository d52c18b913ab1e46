"""Keys and passwords: known shapes by their makers' documents, and what is assigned to a name that says so.

A value behind `api_key =`, `"password":` and the like counts where it is as mixed as drawn letters are, by
Shannon's entropy H = -sum p log2 p over its letters: 3.0 bits for hexadecimal, 3.5 for others. Values that
are read from elsewhere, placeholders, paths and hashes of files do not. So do values behind a flag
(`--token x`), of a pair (`"name": "API_KEY", "value": x`), in a sentence (`the password is x`), in the header
Authorization and in cookies. What JSON has escaped, however often, is read as it was, and base64 as what it
holds. A mixed text without such a name stays: a key and a checksum look alike.
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

# What a shape does not begin behind. The letter of an escape of JSON, as in "\\nAKIA...", is none.
_ALONE = re.compile(r"\(\?<!(\[[^\]]*\])\)")
_ESCAPED = re.compile(r"\\(?:[nrtbf]|u[0-9a-fA-F]{4})")
_BEHIND = re.compile(rf".*{_ESCAPED.pattern}$", re.DOTALL)
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
SHAPES: tuple[tuple[str, str, str, re.Pattern[str], Callable[[str], bool]], ...] = tuple(
    (kind, mark, front[1] if (front := _ALONE.match(shape)) else "", re.compile(_ALONE.sub("", shape)), check)
    for kind, mark, shape, check in (
        ("private_key", "PRIVATE KEY",
         r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s\\:,.()-]{40,20000}?"
         r"(?:-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
         r"|\Z|(?=[^A-Za-z0-9+/=\s\\:,.()-]))", _any),
        ("private_key", "PRIVATE KEY",  # whose beginning was cut off
         r"(?:[A-Za-z0-9+/=]{8,100}(?:\s|\\+[nr])+){1,400}-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY", _any),
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
         r"([^\s/\"'<>]{3,200})@"
         r"[\w.-]+", _own),
        ("password", "@", r"://([A-Za-z0-9_-]{20,200})@[\w.-]+", lambda said: _mixed(said) and _opaque(said)),
    )
)  # fmt: skip
_SAYS = (  # a name that says so
    r"((?:secret|token|passw(?:or)?d|passphrase|passwd|pwd|credential|"
    r"(?:api|access|auth|private|encrypt(?:ion)?|signing)[_.-]?key)[\w.-]{0,24})"
)
_QUOTE, _VALUE = r"\\{0,15}[\"']", r"([^\s\"'`\\,;<>(){}\[\]&]{6,200})"
_ASSIGNED = re.compile(
    rf"(?i){_SAYS}(?:{_QUOTE})?(?:\s{{0,3}}(?::=|=>|[=:])\s{{0,3}}|>)"
    rf"(\\{{0,15}}[\"'`]|(?:Bearer|Basic)\s)?{_VALUE}"
)
# The same in other forms, each with texts of which one must be there: group 1 the name, 2 the quote, 3 the
# value.
_TOLD = (
    (
        ("-",),
        re.compile(
            rf"(?i)(?<![\w-])--?(?:[\w.]+[_.-]){{0,4}}{_SAYS}(?:{_QUOTE}\s{{0,3}},\s{{0,3}}|\s{{1,3}})({_QUOTE})?"
            r"([^\s\"'`\\]{6,200})"
        ),
    ),
    (
        ("value",),
        re.compile(
            rf"(?i)\b(?:name|key)(?:{_QUOTE})?\s{{0,3}}[:=]\s{{0,3}}{_QUOTE}[\w.-]{{0,40}}?{_SAYS}{_QUOTE}"
            rf"\s{{0,3}},?\s{{0,3}}(?:{_QUOTE})?value(?:{_QUOTE})?\s{{0,3}}[:=]\s{{0,3}}({_QUOTE}){_VALUE}"
        ),
    ),
    (
        (" is", " was"),
        re.compile(
            r"(?i)\b(password|passphrase|passwd|secret|token|(?:(?:api|access|auth|secret)[ _-])?key)"
            r" (?:is|was):?"
            rf"\s{{1,3}}([\"'`])?{_VALUE}"
        ),
    ),
)
_SENT = re.compile(
    rf"(?i)(?:authorization(?:{_QUOTE})?\s{{0,3}}[:=,]\s{{0,3}}(?:{_QUOTE})?"
    r"(?:(?:bearer|basic|token|apikey|digest)\s{1,3})?|bearer\s{1,3})([\w+/=.~-]{12,4000})"
)
_COOKIES = re.compile(rf"(?i)cookie(?:{_QUOTE})?\s{{0,3}}:\s{{0,3}}(?:{_QUOTE})?([^\r\n\"'\\]{{8,4000}})")
_COOKIE = re.compile(r"[\w.-]=([\w+/=.~%-]{16,4000})")
_BASE64 = re.compile(r"(?<![\w+/=-])[A-Za-z0-9+/_-]{24,8000}={0,2}(?![\w+/=-])")
_QUOTED = re.compile(r"[^\s\"'`\\]*")
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
    _gather(found, text)
    for one in _BASE64.finditer(text):
        start, inner = one.start(), list[Find]()
        if text[start - 1 : start] == "\\" and (escape := _ESCAPED.match(text, start - 1)):
            start = escape.end()
        if _mixed(said := text[start : one.end()]):
            _gather(inner, _decoded(said))
        if inner:
            _add(found, (start, one.end(), inner[0][2]))
    return sorted(found)


def _gather(found: list[Find], text: str) -> None:
    """Add what there is in a text as it stands."""
    for kind, mark, front, shape, check in SHAPES:
        if mark in text:
            for one in shape.finditer(text):
                if _glued(text, one.start(), front):
                    continue
                group = 1 if shape.groups else 0
                said = one[group]
                if (kind == "private_key" or not _FAKE.search(said)) and check(said):
                    _add(found, (*one.span(group), kind))
    for one in _ASSIGNED.finditer(text):
        front = _NAME.search(text, max(0, one.start() - 40), one.start())
        assert front is not None
        if _is_assigned(front[0] + one[1], one[2] or "", one[3]):
            whole = _QUOTED.match(text, one.start(3)) if one[2] else None
            _add(found, (one.start(3), whole.end() if whole else one.end(3), "assigned"))
    small = text.lower()
    for marks, told in _TOLD:
        for one in told.finditer(text) if any(mark in small for mark in marks) else ():
            if _is_assigned(one[1], one[2] or "", one[3]):
                _add(found, (*one.span(3), "assigned"))
    for one in _SENT.finditer(text) if "authorization" in small or "bearer " in small else ():
        if _own(one[1]) and not _CODE.match(one[1]) and (_opaque(one[1]) or ":" in _decoded(one[1])):
            _add(found, (*one.span(1), "header"))
    for header in _COOKIES.finditer(text) if "cookie" in small else ():
        for one in _COOKIE.finditer(text, *header.span(1)):
            if _opaque(one[1]):
                _add(found, (*one.span(1), "header"))


def _glued(text: str, at: int, front: str) -> bool:
    """Whether what begins at a place is only the rest of a word."""
    before = text[max(0, at - 7) : at]
    return bool(front and re.match(front, before[-1:])) and not _BEHIND.match(before)


def _opaque(said: str) -> bool:
    """Whether letters and digits are as mixed as drawn ones are, in what is no word of examples."""
    mixed = any(c.isdigit() for c in said) and any(c.isalpha() for c in said)
    return mixed and len(said) >= 16 and not _FAKE.search(said) and entropy(said) >= 3.0


def _decoded(said: str) -> str:
    """The text that base64 holds; "" where that is none."""
    try:
        data = base64.b64decode(
            said + "=" * (-len(said) % 4), b"-_" if {"-", "_"} & set(said) else None, validate=True
        )
        text = data.decode()
    except ValueError:
        return ""
    return text if all(c.isprintable() or c.isspace() for c in text) else ""


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
