"""Where a user's next message begins in a model's own template, and what ends it.

A model that was trained on conversations also knows how users write: given all that stands before a user's
message, it writes one. A conversation is rendered with a probe for that message, and what is before the probe
is kept; what stands between it and the answer ends it.
Paper: Xu et al., 2024, arXiv:2406.08464 (Magpie)
Differs: any template, and any turn of a conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data.template._spans import Span, encode, join

if TYPE_CHECKING:
    from tinygpt.data.template._choice import Template
    from tinygpt.data.tokenizer._protocol import Tokenizer

PROBE, ANSWER = "qZvXwJk", "jKwXvZq"


class Ahead(NamedTuple):
    """The ids before a user's message, the ids that end it, and the text that does, or ""."""

    ids: list[int]
    stop_ids: frozenset[int]
    stop: str


def ahead(template: Template, tokenizer: Tokenizer, messages: Sequence[dict[str, Any]]) -> Ahead:
    """What a model is given to write the user's message that comes after these. ConfigError where the
    template does not show where it begins, or has no mark for its end."""
    user, said = {"role": "user", "content": PROBE}, {"role": "assistant", "content": ANSWER}
    try:
        spans = template.render([*messages, user, said])
    except DataError as error:
        raise ConfigError(
            f"the chat template cannot write a user's turn here: {error.message}",
            hint="leave --system out, or choose a template with --template NAME",
        ) from error
    text = join(spans)
    begin, end = text.rfind(PROBE), text.rfind(ANSWER)
    if not 0 <= begin < end or text.count(PROBE) != 1:
        raise ConfigError("the chat template does not show where a user's turn begins")
    before, rest = _cut(spans, begin)
    between, _ = _cut(_cut(rest, len(PROBE))[1], end - begin - len(PROBE))
    mark = next((span for span in between if span.text.strip()), None)
    if mark is None:
        raise ConfigError(
            f"the template {template.name} has no mark for the end of a user's turn",
            hint="choose another with --template NAME",
        )
    known = mark.special and mark.text in tokenizer.special
    stop = mark.text.strip().splitlines()[0]
    ends = frozenset({tokenizer.special[mark.text]}) if known else frozenset[int]()
    return Ahead(encode(before, tokenizer)[0], ends | frozenset(tokenizer.stop_ids), stop)


def _cut(spans: Sequence[Span], at: int) -> tuple[list[Span], list[Span]]:
    """The spans before and after a place in their text."""
    before, after = list[Span](), list[Span]()
    for span in spans:
        n = len(span.text)
        if at >= n:
            before.append(span)
        elif at <= 0:
            after.append(span)
        else:
            before.append(span._replace(text=span.text[:at]))
            after.append(span._replace(text=span.text[at:]))
        at -= n
    return [span for span in before if span.text], [span for span in after if span.text]
