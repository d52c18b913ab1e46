"""Public IP addresses, versions 4 and 6, as Python's ipaddress reads them.

Addresses of no machine of a person stay: private, loopback, link-local, multicast and documentation ranges,
and networks (a length after a slash, or two zeros at the end). Four numbers that are a version, a section
or an OID stay too: after such a word, after == or name/, or where all four have one digit.
"""

from __future__ import annotations

import ipaddress
import re

from tinygpt.data.pii._near import before

_V4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w/]|\.\d|-[a-zA-Z])")
_V4_PATH = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?=/(?!\d))")
_V6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w])")
_VERSION = re.compile(
    r"(?i)(?:(?<![a-z])(?:v|ver|versions?|release|build|firmware|drivers?|sections?|sec|chapter|clause|rev|"
    r"revision|sdk|oid|object\s?identifier|figure|table|article|paragraph|appendix|upgraded|updated|downgraded|§)"
    r"(?:\s+(?:is|to|from|number|no))?[\s.:=#(\"']{0,4}|[=<>~!^]=\s?|[a-z_]/|[a-z]@|\^|~)$"
)
_LOGIN = re.compile(r"(?i)(?:ssh|scp|sftp|root|admin|ubuntu|user|deploy|ec2-user|pi)\S*@$|://\S*@$")


def find(text: str) -> list[tuple[int, int]]:
    """(start, end) of every public address, in order."""
    found = [one.span() for pattern in (_V4, _V4_PATH) for one in pattern.finditer(text) if _is_v4(text, one)]
    if text.count(":") > 1:
        for one in _V6.finditer(text):
            said = one[0]
            if said.endswith(":") and not said.endswith("::"):
                said = said[:-1]
            try:
                address = ipaddress.IPv6Address(said)
            except ValueError:
                continue
            if int(address) >> 125 == 1 and address.is_global:  # 2000::/3: what is given out
                found.append((one.start(), one.start() + len(said)))
    return sorted(found)


def _is_v4(text: str, one: re.Match[str]) -> bool:
    try:
        address = ipaddress.IPv4Address(one[0])
    except ValueError:
        return False
    front, parts = before(text, one.start()), one[0].split(".")
    if not address.is_global or address.is_multicast or parts[2:] == ["0", "0"] or max(map(len, parts)) == 1:
        return False
    return _VERSION.search(front) is None or _LOGIN.search(front) is not None
