"""What a conversation keeps when its context is full: the system message, and the last whole turns.

In this order, until it fits: the oldest turns leave whole (a request with all that followed it); then the
oldest exchanges of the present one (calls with their results); then results are shortened in the middle, the
longest first. A request or a system message is never cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinygpt.agent.turn import Message, is_request
from tinygpt.core.errors import TooLongError

SHORTEST = 200  # letters that are left of a result


@dataclass(frozen=True)
class Kept:
    """The messages that stay, those that left, and how many letters of results were taken out."""

    messages: list[Message]
    dropped: list[Message]
    n_cut: int = 0


def fitted(messages: Sequence[Message], size: Callable[[Sequence[Message]], int], room: int) -> Kept:
    """What of a conversation has at most `room` tokens by `size`. TooLongError where the system message and
    the last request have more."""
    left, dropped = list(messages), list[Message]()
    while size(left) > room and (part := _oldest(left)):
        dropped += left[part]
        del left[part]
    n_cut = 0
    while (over := size(left)) > room:
        at = max(
            (i for i, m in enumerate(left) if m["role"] == "tool"),
            key=lambda i: len(left[i]["content"]),
            default=None,
        )
        if at is None or len(left[at]["content"]) <= SHORTEST:
            raise TooLongError(over, room)
        short = shortened(left[at]["content"], max(SHORTEST, len(left[at]["content"]) // 2))
        n_cut += len(left[at]["content"]) - len(short)
        left[at] = {**left[at], "content": short}
    return Kept(left, dropped, n_cut)


def shortened(text: str, most: int) -> str:
    """Beginning and end of a text with a mark between, at most so many letters; the beginning alone where
    there is no room for a mark."""
    if len(text) <= most:
        return text
    mark = f"\n[... {len(text) - most} letters left out ...]\n"
    keep = most - len(mark)
    if keep < 0:
        return text[: max(0, most)]
    head = keep - keep // 3
    return text[:head] + mark + text[len(text) - (keep - head) :]


def _oldest(messages: Sequence[Message]) -> slice | None:
    """The oldest part that may leave: a turn before the last request, else an exchange after it that is not
    the last one."""
    users = [i for i, m in enumerate(messages) if is_request(m)]
    if len(users) > 1:
        return slice(users[0], users[1])
    begin = users[0] + 1 if users else 0
    spoken = [i for i in range(begin, len(messages)) if messages[i]["role"] == "assistant"]
    return slice(spoken[0], spoken[1]) if len(spoken) > 1 else None
