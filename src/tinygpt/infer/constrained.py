"""From what an answer must be to the object that sees to it: one of the family infer/constrain by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import ConfigError, unknown
from tinygpt.core.family import Family
from tinygpt.infer.constrain._matcher import reasoning

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.infer.request import Constraint

THOUGHTS = ("", "may", "open")
KINDS = Family("tinygpt.infer.constrain", verb="compile")


def constraint(
    kind: str,
    value: Any,
    tokenizer: Tokenizer,
    *,
    stop_ids: frozenset[int] | None = None,
    thoughts: str = "",
) -> Constraint:
    """A fresh constraint for one answer. kind and value: see the files of infer/constrain; stop_ids: what may
    end the answer, by default the tokenizer's; thoughts: "may" where a block of thoughts may stand before the
    answer, "open" where the prompt has begun one, "" where there is none.

    ConfigError: there is no such kind, or the value cannot be enforced."""
    if stop_ids is not None and not stop_ids:
        raise ConfigError(
            "an answer under a grammar needs a stop id to end with", hint="leave the stop ids as they are"
        )
    if thoughts not in THOUGHTS:
        raise unknown("kind of thoughts", thoughts, THOUGHTS)
    lead = reasoning(tokenizer, opened=thoughts == "open") if thoughts else None
    return KINDS.load(kind).compile(value, tokenizer, stop_ids=stop_ids, lead=lead)
