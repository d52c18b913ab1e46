"""JSON that is valid under a JSON Schema (2020-12, 2019-09, draft 7 or 6).

What the schema says holds for every complete answer. A keyword that cannot be enforced is refused by its name
and place, as is one that is unknown: a typing error would otherwise be an answer of another shape.
Source: json-schema.org 2020-12. Paper: Geng et al. 2025, arXiv:2501.10868 (JSONSchemaBench: what engines let
through)
Differs: properties come in the schema's order, those that it does not name last; numbers have no exponent where
they are bounded; strings hold no \\u escapes and no other control characters than \\b \\f \\n \\r \\t, since a key
could be written in two ways with them; white space is bounded (see `json`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygpt.infer.constrain import _keywords, _matcher

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.infer.constrain._matcher import Matcher

OPTIONS = {
    "whitespace_pattern": r"(?: |\n[ \t]{0,32})",
    "json_allowed_escapes": '"\\bfnrt',
    "coerce_one_of": False,
    "lenient": False,
}


def compile(
    spec: Any, tokenizer: Tokenizer, *, stop_ids: frozenset[int] | None = None, lead: str | None = None
) -> Matcher:
    """A constraint to JSON text that is valid under the schema, a dictionary or a truth value.

    ConfigError: the schema is wrong, too large, allows nothing, or has what cannot be enforced."""
    entry = {"json_schema": prepared(spec)}
    return _matcher.start(entry, tokenizer, stop_ids, lead=lead, what="the JSON schema")


def prepared(spec: Any) -> dict[str, Any]:
    """A schema, checked, as the grammar engine takes it."""
    return {**_keywords.check(spec), "x-guidance": OPTIONS}
