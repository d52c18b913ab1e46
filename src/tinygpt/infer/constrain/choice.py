"""One of a list of texts.

Source: `guided_choice` of vLLM has the same meaning.
Differs: nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinygpt.core.errors import ConfigError
from tinygpt.infer.constrain import _matcher

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.infer.constrain._matcher import Matcher


def compile(
    spec: Sequence[str],
    tokenizer: Tokenizer,
    *,
    stop_ids: frozenset[int] | None = None,
    lead: str | None = None,
) -> Matcher:
    """A constraint to one of the texts."""
    if isinstance(spec, str) or not spec:
        raise ConfigError("choices must be a list of texts that is not empty")
    if (odd := next((text for text in spec if not isinstance(text, str) or not text), None)) is not None:
        raise ConfigError(f"choices must be texts that are not empty, got {odd!r}")
    texts = " | ".join(json.dumps(text, ensure_ascii=False) for text in dict.fromkeys(spec))
    entry = _matcher.lark_entry(f"start: TEXT\nTEXT: {texts}")
    return _matcher.start(entry, tokenizer, stop_ids, lead=lead, what="the list of choices")
