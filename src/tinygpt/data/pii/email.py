"""E-mail addresses, plain or written out against harvesters: jo@mail.example, jo [at] mail [dot] example.

The part before the @ is letters, digits and . + - _ ' % & of any script; a domain has two labels at least,
the last of letters. Files such as icon@2x.png, remotes such as git@host.org:path and versions such as
name@1.2 are none. Quoted local parts and addresses of numbers, which RFC 5321 allows, are not looked for.
"""

from __future__ import annotations

import re

_LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
_PLAIN = re.compile(
    rf"(?<![\w.+%&-])\w[\w.+'’%&-]{{0,63}}@((?:{_LABEL}\.){{1,5}}(?:xn--[\w-]{{2,59}}|[^\W\d_]{{2,24}}))(?![\w@])"
)
_AT = r"\s{0,2}[\[({]\s?at\s?[\])}]\s{0,2}"
_DOT = r"(?:\.|\s{0,2}[\[({]\s?dot\s?[\])}]\s{0,2})"
_HIDDEN = re.compile(
    rf"(?i)(?<![\w.+-])\w[\w.+-]{{0,63}}{_AT}[\w-]{{1,63}}(?:{_DOT}[^\W_][\w-]{{1,62}}){{1,4}}"
)
_FILES = re.compile(
    r"(?i)(?:\dx\.|\.(?:png|jpe?g|gif|svg|webp|css|js|tsx?|json|html?|ya?ml|txt|whl|zip|gz)$)"
)
_REMOTE = re.compile(r":(?!//)[\w~./-]*[/\w]")


def find(text: str) -> list[tuple[int, int]]:
    """(start, end) of every address, in order."""
    found: list[tuple[int, int]] = []
    if "@" in text:
        for one in _PLAIN.finditer(text):
            remote = one[0].partition("@")[0] in ("git", "hg") and _REMOTE.match(text, one.end())
            if not _FILES.search(one[1]) and not remote:
                found.append(one.span())
    if "at" in text.lower():
        found += [one.span() for one in _HIDDEN.finditer(text)]
    return sorted(found)
