"""macOS: the profile that `sandbox-exec` keeps a program in. Everything is denied that is not named here.

Reads are denied by default: open are Python's library, the system's shared libraries and the program's own
folder, which is also all that it may write. No network, no other program, no signal but to its own kind. The
limits of memory and of processes are not kept there: macOS has no such limits for one process tree.

Source: sandbox-exec(1), sandbox(7), and the profiles in /System/Library/Sandbox/Profiles.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

SANDBOX = "/usr/bin/sandbox-exec"
_SYSTEM = ("/usr/lib", "/System/Library", "/System/Volumes/Preboot/Cryptexes", "/Library/Apple/System")
_DEVICES = ("/dev/null", "/dev/urandom", "/dev/random")


def available() -> bool:
    return os.access(SANDBOX, os.X_OK)


def profile(*, read: Iterable[str], write: str, executable: str) -> str:
    """The profile's text. Paths are real ones: the kernel compares them after links are followed."""
    readable = [f"(subpath {_quoted(path)})" for path in (*_SYSTEM, *read, write)]
    devices = [f"(literal {_quoted(path)})" for path in _DEVICES]
    return "\n".join(
        (
            "(version 1)",
            "(deny default)",
            f"(allow process-exec (literal {_quoted(executable)}))",
            "(allow process-fork)",
            "(allow signal (target same-sandbox))",
            "(allow sysctl-read)",
            "(allow file-read-metadata)",
            f'(allow file-read* (literal "/") (literal {_quoted(executable)}) {" ".join(readable)})',
            f"(allow file-read* file-write-data {' '.join(devices)})",
            f"(allow file-write* (subpath {_quoted(write)}))",
            "(deny network*)",
        )
    )


def command(inner: list[str], *, read: Iterable[str], write: str) -> list[str]:
    """The command that runs `inner` in the profile."""
    text = profile(
        read=[*read, sys.base_prefix, sys.prefix], write=write, executable=os.path.realpath(inner[0])
    )
    return [SANDBOX, "-p", text, os.path.realpath(inner[0]), *inner[1:]]


def _quoted(path: str) -> str:
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
