"""Responses that may be asked for again, or gone on with: in memory, the latest ones."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from tinygpt.serve.job import Message

Item = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A response with what it came from. messages: the conversation up to and with its answer, without
    `instructions`, which do not carry over."""

    response: dict[str, Any]
    items: list[Item]
    messages: list[Message]
    n_bytes: int


class Store:
    """The latest responses, so many at most and so many bytes of JSON."""

    def __init__(self, most: int = 1024, n_bytes: int = 64 << 20) -> None:
        self.most, self.n_bytes = most, n_bytes
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._used = 0

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, response: dict[str, Any], items: list[Item], messages: list[Message]) -> None:
        """Keep one; the oldest go where there is no room."""
        own = len(json.dumps((response, items)))
        kept = Kept(
            response=response, items=items, messages=messages, n_bytes=own + 8 * len(messages)
        )  # messages of earlier turns are theirs: here they are pointers
        self._kept[response["id"]] = kept
        self._used += kept.n_bytes
        while self._kept and (len(self._kept) > self.most or self._used > self.n_bytes):
            _, old = self._kept.popitem(last=False)
            self._used -= old.n_bytes

    def get(self, id: str) -> Kept | None:
        return self._kept.get(id)

    def drop(self, id: str) -> bool:
        """Forget one; False where there is none."""
        kept = self._kept.pop(id, None)
        self._used -= kept.n_bytes if kept else 0
        return kept is not None

    def item(self, id: str) -> Item | None:
        """An item that some response brought or was given."""
        for kept in reversed(self._kept.values()):
            for item in (*kept.response["output"], *kept.items):
                if item.get("id") == id:
                    return item
        return None
