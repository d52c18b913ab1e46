"""The few system calls that Python has no name for, through the C library's `syscall`."""

from __future__ import annotations

import ctypes
import os

# Numbers that are the same on every architecture since Linux 5.0.
MOUNT_SETATTR = 442
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
CAPSET = {"x86_64": 126, "aarch64": 91}

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24

_libc = ctypes.CDLL(None, use_errno=True)

TYPE_CHECKING = False
if TYPE_CHECKING:
    Argument = int | bytes | ctypes.Array[ctypes.c_char] | None


def call(what: str, number: int, *arguments: Argument) -> int:
    """The call's result; OSError whose text begins with `what`."""
    return _checked(what, _libc.syscall(ctypes.c_long(number), *map(_word, arguments)))


def prctl(what: str, option: int, *arguments: Argument) -> int:
    given = [*map(_word, arguments), *[ctypes.c_long(0)] * (4 - len(arguments))]
    return _checked(what, _libc.prctl(ctypes.c_int(option), *given))


def unshare(what: str, flags: int) -> None:
    _checked(what, _libc.unshare(ctypes.c_int(flags)))


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    given = (source.encode(), target.encode(), kind.encode() if kind else None)
    what = f"mount {kind or source} at {target}"
    _checked(what, _libc.mount(*given, ctypes.c_ulong(flags), options.encode() or None))


def unmount(target: str, flags: int) -> None:
    _checked(f"unmount {target}", _libc.umount2(target.encode(), ctypes.c_int(flags)))


def machine() -> str:
    return os.uname().machine


def _word(value: Argument) -> object:
    return ctypes.c_long(value) if isinstance(value, int) else value


def _checked(what: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
