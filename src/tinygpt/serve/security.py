"""Who may ask: keys, and rules for what a web page can make a browser send.

A key is looked for in `Authorization: Bearer` and `x-api-key`. A page of another site can send requests to
a server on this machine. It must name itself in `Origin`, and is refused unless it was allowed. With a name
whose address it changes to 127.0.0.1 (DNS rebinding) it would be of the same origin, but then `Host` is that
name: only IP addresses, localhost and allowed names pass.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tinygpt.core.errors import ConfigError, DataError

ENV = "TINYGPT_API_KEY"
SHORTEST = 8  # letters of a key
OPEN_PATHS = frozenset({"/", "/health", "/ready"})  # answered without a key: nothing of models is in them


class Keys:
    """The keys that open the server. They are kept as hashes, and compared in the same time whatever they
    are."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._hashes = [_hash(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def opens(self, headers: Mapping[str, str]) -> bool:
        """Whether the headers of a request hold one of the keys, or none is asked for."""
        if not self._hashes:
            return True
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        shown = [bearer.strip()] if kind.lower() == "bearer" else []
        shown.append(headers.get("x-api-key", ""))
        found = False
        for text in shown:
            for key in self._hashes:  # all of them, whichever fits
                found |= hmac.compare_digest(_hash(text), key)
        return found


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def read_keys(given: str | None, file: Path | None, env: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The keys of a server: given, one a line of a file, or of the environment. ConfigError for one that is
    too short to be one."""
    keys = [given] if given is not None else []
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{file} cannot be read: {error}", hint="a text file with one key a line"
            ) from error
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise ConfigError(f"{file} holds no key", hint="write one key a line")
        keys += found
    if not keys and (env := os.environ if env is None else env).get(ENV):
        keys = [env[ENV]]
    for key in keys:
        if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(
                f"an API key must have at least {SHORTEST} printable ASCII letters and no space",
                hint="make one with: openssl rand -hex 24",
            )
    return tuple(keys)


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is this machine's alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def refuse_open(host: str, keys: Iterable[str]) -> None:
    """ConfigError where everybody on the network could use the server."""
    if not is_loopback(host) and not tuple(keys):
        raise ConfigError(
            f"on {host} everyone who reaches this machine could use the server, and no key is set",
            hint=f"set {ENV} or --api-key-file, or leave --host at 127.0.0.1",
        )


def host_allowed(host: str | None, allowed: Iterable[str]) -> bool:
    """Whether the `Host` of a request can be meant for this server."""
    names = {name.lower() for name in allowed}
    if host is None or "*" in names:
        return host is not None
    name = _name(host)
    if name is None:
        return False
    if name == "localhost" or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _name(host: str) -> str | None:
    """The name in "name:port", lower case; None where it is not of this form."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    if parts.netloc != host or "@" in host or not parts.hostname or parts.path:
        return None
    return parts.hostname.rstrip(".").lower()


def origin_allowed(origin: str, host: str | None, allowed: Iterable[str]) -> bool:
    """Whether the page that a request comes from may send it: an allowed one, or this server's own."""
    allowed = tuple(allowed)
    if "*" in allowed or origin in allowed:
        return True
    scheme, _, rest = origin.partition("://")
    return scheme in ("http", "https") and bool(rest) and rest.lower() == (host or "").lower()
