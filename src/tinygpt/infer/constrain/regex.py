"""A regular expression that the whole answer matches.

The syntax is that of Rust's regex crate, which is Perl's without look-around and back references; those are
refused. `.` is any character but a line break, `(?s:.)` any.
Paper: Willard & Louf 2023, arXiv:2307.09702 (an automaton over the vocabulary)
Differs: derivatives of the expression make the automaton's states as they are met, so nothing is computed for
the whole vocabulary in advance. ^ and $ at the ends of the pattern say what is so anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinygpt.core.errors import ConfigError
from tinygpt.infer.constrain import _matcher

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.infer.constrain._matcher import Matcher


def compile(
    spec: str, tokenizer: Tokenizer, *, stop_ids: frozenset[int] | None = None, lead: str | None = None
) -> Matcher:
    """A constraint to texts that match the pattern from end to end."""
    if not isinstance(spec, str) or not spec:
        raise ConfigError("a regular expression must be a text that is not empty")
    entry = _matcher.lark_entry(f"start: TEXT\nTEXT: /{_slashed(spec)}/")
    return _matcher.start(entry, tokenizer, stop_ids, lead=lead, what="the regular expression")


def _slashed(pattern: str) -> str:
    """The pattern as Lark has it between slashes: a slash and a line break are escaped."""
    out: list[str] = []
    escaped = False
    for char in pattern:
        if char in "/\n\r":
            out.append(("" if escaped else "\\") + {"/": "/", "\n": "n", "\r": "r"}[char])
            escaped = False
            continue
        out.append(char)
        escaped = char == "\\" and not escaped
    return "".join(out)
