"""Landlock: a process gives up the files it needs not, for itself and all that it starts.

A second wall behind the mounts of `namespaces.py`: nothing may be read but the trees named, nothing written
but the scratch folder, and since version 4 no TCP port is bound or reached, since version 6 no abstract
socket and no process outside is reached. Source: Documentation/userspace-api/landlock.rst,
include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import struct

from tinygpt.core.sandbox import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:  # slow to import, see launch.py
    from collections.abc import Iterable

# Rights on files, bits 0 ..: execute, write, read, list; removing (2), making (7); 13 refer (version 2),
# 14 truncate (3), 15 ioctl on devices (5).
READ = 1 << 2 | 1 << 3
EXECUTE = 1 << 0
_ALL = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_ON_FILES = EXECUTE | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
_MAKE_DEVICES = 1 << 6 | 1 << 11  # character and block devices


def version() -> int:
    """Landlock's version in this kernel; OSError without it."""
    return kernel.call("Landlock", kernel.LANDLOCK_CREATE_RULESET, None, 0, 1)


def restrict(read: Iterable[str], write: Iterable[str]) -> None:
    """From now on: `read` trees may be read, `write` trees may be read and changed, nothing is executed.

    The caller has set no_new_privs. OSError where the kernel cannot."""
    known = version()
    files = max(bits for since, bits in _ALL.items() if since <= known)
    network = 3 if known >= 4 else 0
    scoped = 3 if known >= 6 else 0
    attributes = struct.pack("=QQQ", files, network, scoped)[: 24 if known >= 6 else 16 if known >= 4 else 8]
    ruleset = kernel.call("Landlock", kernel.LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for paths, rights in ((read, READ), (write, files & ~EXECUTE & ~_MAKE_DEVICES)):
            for path in paths:
                _allow(ruleset, path, rights & files)
        kernel.call("Landlock", kernel.LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(path):
            rights &= _ON_FILES
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, place), 12)
        kernel.call(f"Landlock rule for {path}", kernel.LANDLOCK_ADD_RULE, ruleset, 1, rule, 0)
    finally:
        os.close(place)
