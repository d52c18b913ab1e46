"""Keys of random draws, derived from what they are for: nothing draws from a global generator."""

from __future__ import annotations

import hashlib

from tinygpt.core.backend import mx


def key_of(*parts: int | str) -> mx.array:
    """The key of a draw of this seed and purpose: the first 8 bytes of SHA-256 over `seed:...:purpose`.

    The text decides the bits of every run recorded so far."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    return mx.random.key(int.from_bytes(digest[:8], "little"))
