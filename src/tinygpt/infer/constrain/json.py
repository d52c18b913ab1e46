"""Any JSON: an object, as OpenAI's JSON mode promises, or any value.

White space is bounded: one space, or a line break with its indentation. Without a bound a model that sits in
one goes on with it until the answer is full.
Source: RFC 8259.
Differs: escapes are those of control characters, quotes and backslashes; other characters stand for themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinygpt.core.errors import unknown
from tinygpt.infer.constrain import schema

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.infer.constrain._matcher import Matcher

SCHEMAS = {"object": {"type": "object"}, "value": {}}


def compile(
    spec: str | None, tokenizer: Tokenizer, *, stop_ids: frozenset[int] | None = None, lead: str | None = None
) -> Matcher:
    """A constraint to JSON text. spec: "object" (also None) or "value"."""
    name = spec or "object"
    if name not in SCHEMAS:
        raise unknown("kind of JSON", name, SCHEMAS)
    return schema.compile(SCHEMAS[name], tokenizer, stop_ids=stop_ids, lead=lead)
