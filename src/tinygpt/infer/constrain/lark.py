"""A context-free grammar in Lark's notation, as llguidance reads it.

Names in capitals are terminals: regular expressions, of which the longest match counts; other names are rules,
and `start` is the first. `%json {...}` in a rule is a JSON Schema, `%ignore` names what may stand between
terminals.
Source: the Lark toolkit's notation; Earley's parser runs over lexemes of the vocabulary's trie.
Differs: Lark's priorities, templates and look-around are refused. A terminal that could go on does go on: "a"
cannot follow /[a-z]+/. Schemas in `%json` are held to the same keywords as `--json-schema`.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from tinygpt.core.errors import ConfigError
from tinygpt.infer.constrain import _matcher, schema

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.infer.constrain._matcher import Matcher

JSON = re.compile(r"%json\s*(?=\{)")


def compile(
    spec: str, tokenizer: Tokenizer, *, stop_ids: frozenset[int] | None = None, lead: str | None = None
) -> Matcher:
    """A constraint to texts of the grammar."""
    if not isinstance(spec, str) or not spec.strip():
        raise ConfigError("a grammar must be a text that is not empty")
    return _matcher.start(_matcher.lark_entry(_checked(spec)), tokenizer, stop_ids, lead=lead)


def _checked(text: str) -> str:
    """The grammar with its schemas checked and written as ours are."""
    out, at = "", 0
    while found := JSON.search(text, at):
        try:
            value, end = json.JSONDecoder().raw_decode(text, found.end())
        except ValueError as error:
            raise ConfigError(f"a %json of the grammar is not JSON: {error}") from error
        out += text[at : found.end()] + json.dumps(schema.prepared(value))
        at = end
    return out + text[at:]
