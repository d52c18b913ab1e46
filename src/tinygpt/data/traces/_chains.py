"""Chains of requests: each holds all that was said before, so the last one of a chain tells all of it.

A request whose history is another request with its answer goes on from that one. Histories are compared by
hashes of their beginnings, without ids of calls, reasons, and white space around texts: 16 bytes for each
answer are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from tinygpt.data.message import Message


class Chains:
    """What was gone on from. Every conversation is added before any is asked for."""

    def __init__(self) -> None:
        self._begun: set[bytes] = set()

    def add(self, messages: Sequence[Message]) -> None:
        """A conversation whose last message is its answer."""
        total = hashlib.sha256()
        for message in messages[:-1]:
            total.update(_told(message))
            if message["role"] == "assistant":
                self._begun.add(total.digest()[:16])

    def goes_on(self, messages: Sequence[Message]) -> bool:
        """Whether another conversation begins with all of this one."""
        total = hashlib.sha256()
        for message in messages:
            total.update(_told(message))
        return total.digest()[:16] in self._begun


def _told(message: Message) -> bytes:
    calls = [[call["name"], call["arguments"]] for call in message.get("tool_calls") or ()]
    said = [message["role"], message["content"].strip(), calls]
    return json.dumps(said, sort_keys=True).encode()
