"""A grammar at work in one answer: masks over ids, steps forward, and steps back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import ConfigError
from tinygpt.infer.constrain import _bridge

if TYPE_CHECKING:
    import llguidance
    import numpy as np

    from tinygpt.data.tokenizer._protocol import Tokenizer

KEPT = 64  # compiled grammars that are kept for each tokenizer
SIZE = 1 << 18  # characters of a grammar
# What one grammar and one step of it may cost: at the most some tens of milliseconds.
LIMITS: dict[str, Any] = {"max_items_in_row": 30_000, "step_max_items": 400_000, "verbose_errors": False}


class Matcher:
    """See tinygpt.infer.request.Constraint. `take` refuses an id that the grammar does not allow, and then
    nothing has changed."""

    def __init__(self, compiled: llguidance.LLMatcher, words: int) -> None:
        self._compiled, self._matcher, self._words = compiled, compiled.deep_copy(), words
        self._taken: list[int] = []

    @property
    def complete(self) -> bool:
        """Whether the answer may end here."""
        return self._matcher.is_accepting()

    def mask(self) -> np.ndarray:
        import numpy as np

        mask = np.empty(self._words, np.int32)
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        if self._matcher.is_error():
            raise ConfigError(
                f"the grammar cannot go on: {_first_line(self._matcher.get_error())}",
                hint="make it simpler: fewer alternatives, or smaller bounds",
            )
        if not mask.any() or (self._matcher.is_stopped() and not self._matcher.is_accepting()):
            raise ConfigError(
                "the grammar has come to a dead end: no token goes on with it",
                hint="the vocabulary has no bytes for what it asks, or its longest match leaves nothing over",
            )
        return mask

    def take(self, token: int) -> None:
        if self._matcher.try_consume_tokens([token]) != 1:
            raise ConfigError(f"the grammar does not allow the id {token} here", hint="heed the mask")
        self._taken.append(token)

    def rollback(self, n: int) -> None:
        del self._taken[len(self._taken) - n :]
        if self._matcher.is_error():  # it was led beyond its limits, and takes no step back by itself
            self._matcher = self._compiled.deep_copy()
            self._matcher.try_consume_tokens(self._taken)
        elif n and not self._matcher.rollback(n):
            raise ConfigError(f"the grammar cannot go back {n} tokens: it has not come so far")


def lark_entry(text: str) -> dict[str, Any]:
    """A Lark grammar as `start` takes it."""
    return {"lark_grammar": text}


def start(
    entry: Mapping[str, Any],
    tokenizer: Tokenizer,
    stop_ids: frozenset[int] | None = None,
    *,
    lead: str | None = None,
    what: str = "the grammar",
) -> Matcher:
    """A fresh matcher of a grammar, which is compiled once. ConfigError where it is wrong or too large.

    entry: {"lark_grammar": text} or {"json_schema": schema}.
    lead:  Lark rules that define `lead`, what stands before; None: nothing, but the space that decoding takes
           away where the tokenizer has one.
    """
    bridge = _bridge.of(tokenizer, stop_ids or frozenset(tokenizer.stop_ids))
    if lead is None and bridge.strips:
        lead = 'lead: " "'
    grammars: list[Any] = [{"name": "main", **entry}]
    if lead is not None:
        grammars.insert(0, lark_entry(f"start: lead @main\n{lead}"))
    text = json.dumps({"grammars": grammars})
    if len(text) > SIZE:
        raise ConfigError(f"{what} has {len(text)} characters, at most {SIZE} are taken", hint="shorten it")
    with bridge.lock:
        if text not in bridge.compiled:
            bridge.compiled[text] = _compiled(text, bridge, what)
            while len(bridge.compiled) > KEPT:
                bridge.compiled.popitem(last=False)
        bridge.compiled.move_to_end(text)
        return Matcher(bridge.compiled[text], bridge.words)


def validate(entry: Mapping[str, Any], what: str) -> None:
    """ConfigError where the grammar engine cannot take a grammar."""
    import llguidance as library

    text = json.dumps({"grammars": [entry]})
    wrong, messages = library.LLMatcher.validate_grammar_with_warnings(
        text, limits=library.LLParserLimits(**LIMITS)
    )
    if wrong:
        raise ConfigError(f"{what} is not usable: {_first_line(messages[0])}")


def reasoning(tokenizer: Tokenizer, *, opened: bool) -> str:
    """A `lead` for models that think before they answer: a block of thoughts, which is free text. opened: the
    prompt has begun it, and it must be ended; otherwise it may be left out."""
    names = {name: tokenizer.special[name] for name in tokenizer.control}
    begin, end = (f"<[{names[t]}]>" if t in names else json.dumps(t) for t in ("<think>", "</think>"))
    inner = f"THOUGHT {end}" if "</think>" in names else "ended"
    rest = "THOUGHT: /(?s:.*)/" if "</think>" in names else "ended[lazy]: /(?s:.*)<\\/think>/"
    block = f"{inner} GAP" if opened else f"/ ?/ ({begin} {inner} GAP)?"
    return f"lead: {block}\n{rest}\nGAP: /[ \\n]{{0,4}}/"


def _compiled(text: str, bridge: _bridge.Bridge, what: str) -> llguidance.LLMatcher:
    import llguidance as library

    limits = library.LLParserLimits(**LIMITS)
    matcher = library.LLMatcher(bridge.library, text, log_level=0, limits=limits)
    if matcher.is_error():
        raise ConfigError(f"{what} is not usable: {_first_line(matcher.get_error())}")
    try:
        Matcher(matcher, bridge.words).mask()
    except ConfigError as error:
        raise ConfigError(f"no text fits {what}", hint="look for a rule that never ends") from error
    return matcher


def _first_line(message: str) -> str:
    return " ".join(message.split("<state>")[0].split())[:300]
