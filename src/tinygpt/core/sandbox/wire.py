"""Plain values as bytes, by exact type: what crosses between a program that is not trusted and one that is.

A value is a letter and its content; texts, numbers and containers carry their length. Reading makes exact
built-in types only, whatever was written, so nothing that a stranger sends can bring code along. A value of a
subclass (Counter, IntEnum, a str whose `__eq__` always agrees) is written as the plain content that it holds.

Frames on a pipe are eight bytes of length and the value.
"""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:  # these two would cost a third of a run's start
    from collections.abc import Callable
    from typing import Any

MOST_BYTES = 1 << 24  # of one frame: a stranger's length is not believed
MOST_DEPTH = 200  # of containers in containers

_LENGTH = struct.Struct("<Q")
_REAL = struct.Struct("<d")


class NotPlain(Exception):
    """The value has no plain form, or the bytes are none of ours."""


class TooDeep(NotPlain):
    """Containers are in more containers than are read."""


class Reference:
    """A value that stays where it is: the other side holds its key."""

    def __init__(self, key: int | str) -> None:
        self.key = key


def dump(value: object, refer: Callable[[object], Reference] | None = None) -> bytes:
    """The value as bytes. `refer`: makes the reference of a value without a plain form (else `NotPlain`)."""
    out: list[bytes] = []
    _write(value, out, refer, 0)
    return b"".join(out)


def _write(value: Any, out: list[bytes], refer: Callable[[object], Reference] | None, depth: int) -> None:
    # Methods are taken from the built-in type: those of a subclass are the stranger's.
    if depth > MOST_DEPTH:
        raise TooDeep("containers are nested too deeply")
    if value is None or value is True or value is False:
        out.append(b"N" if value is None else b"T" if value else b"F")
    elif isinstance(value, int):
        _block(b"i", b"%x" % int.__int__(value), out)
    elif isinstance(value, float):
        out += (b"f", _REAL.pack(float.__float__(value)))
    elif isinstance(value, complex):
        out += (b"c", _REAL.pack(complex.real.__get__(value)), _REAL.pack(complex.imag.__get__(value)))
    elif isinstance(value, str):
        _block(b"s", str.encode(value, "utf-8", "surrogatepass"), out)
    elif isinstance(value, bytes | bytearray):
        _block(b"b", bytes(memoryview(value)), out)
    elif isinstance(value, tuple(_LETTERS)):
        base: Any = next(t for t in _LETTERS if isinstance(value, t))
        items: list[Any] = list(base.__iter__(value))
        out += (_LETTERS[base], _LENGTH.pack(len(items)))
        for item in items:
            _write(item, out, refer, depth + 1)
    elif isinstance(value, dict):
        pairs = list(dict.items(value))
        out += (b"d", _LENGTH.pack(len(pairs)))
        for key, item in pairs:
            _write(key, out, refer, depth + 1)
            _write(item, out, refer, depth + 1)
    elif isinstance(value, Reference):
        out.append(b"R")
        _write(value.key, out, None, depth + 1)
    elif refer is not None:
        _write(refer(value), out, None, depth)
    else:
        raise NotPlain(f"a {type(value).__name__} is no plain value")


def _block(letter: bytes, content: bytes, out: list[bytes]) -> None:
    out += (letter, _LENGTH.pack(len(content)), content)


_LETTERS: dict[type, bytes] = {list: b"l", tuple: b"t", set: b"e", frozenset: b"z"}
_TYPES: dict[bytes, Callable[[list[Any]], Any]] = {b"l": list, b"t": tuple, b"e": set, b"z": frozenset}


def load(data: bytes, resolve: Callable[[Any], object] | None = None) -> Any:
    """The value of `dump`'s bytes, in exact built-in types. `resolve`: what a reference's key stands for."""
    reader = _Reader(data, resolve)
    value = reader.value(0)
    if reader.at != len(data):
        raise NotPlain("bytes are left over")
    return value


class _Reader:
    def __init__(self, data: bytes, resolve: Callable[[Any], object] | None) -> None:
        self.data, self.resolve, self.at = data, resolve, 0

    def take(self, n: int) -> bytes:
        piece = self.data[self.at : self.at + n]
        if len(piece) != n:
            raise NotPlain("the bytes end early")
        self.at += n
        return piece

    def length(self) -> int:
        n = _LENGTH.unpack(self.take(8))[0]
        if n > len(self.data):
            raise NotPlain("a length is beyond the end")
        return n

    def real(self) -> float:
        return _REAL.unpack(self.take(8))[0]

    def value(self, depth: int) -> Any:
        if depth > MOST_DEPTH + 1:
            raise TooDeep("containers are nested too deeply")
        letter = self.take(1)
        match letter:
            case b"N" | b"T" | b"F":
                return {b"N": None, b"T": True, b"F": False}[letter]
            case b"i":
                return int(self.take(self.length()), 16)
            case b"f":
                return self.real()
            case b"c":
                return complex(self.real(), self.real())
            case b"s":
                return self.take(self.length()).decode("utf-8", "surrogatepass")
            case b"b":
                return self.take(self.length())
            case b"l" | b"t" | b"e" | b"z":
                return _TYPES[letter]([self.value(depth + 1) for _ in range(self.length())])
            case b"d":
                return {self.value(depth + 1): self.value(depth + 1) for _ in range(self.length())}
            case b"R" if self.resolve is not None:
                return self.resolve(self.value(depth + 1))
            case _:
                raise NotPlain(f"no value begins with {letter!r}")


def send(fd: int, data: bytes) -> None:
    """Write one frame whole."""
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        view = view[os.write(fd, view) :]


def receive(fd: int, most: int = MOST_BYTES) -> bytes | None:
    """The next frame, or None where the other side is gone. `NotPlain` for a length beyond `most`."""
    head = _exactly(fd, 8)
    if head is None:
        return None
    length = _LENGTH.unpack(head)[0]
    if length > most:
        raise NotPlain(f"a frame of {length} bytes, at most {most} are read")
    return _exactly(fd, length)


def _exactly(fd: int, n: int) -> bytes | None:
    parts: list[bytes] = []
    while n:
        part = os.read(fd, min(n, 1 << 20))
        if not part:
            return None
        parts.append(part)
        n -= len(part)
    return b"".join(parts)
