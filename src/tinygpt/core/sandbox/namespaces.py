"""Namespaces: a process sees no users, network, processes, files, queues or host name but its own.

The new root is an empty tmpfs with the trees that Python needs, read-only, two devices, and /tmp of a fixed
size. There is no /proc, no /sys and no home. `enter` runs in the supervisor, `build_root` and `drop` in what
becomes the program. Source: unshare(2), user_namespaces(7), pivot_root(2), mount_setattr(2), capabilities(7).
"""

from __future__ import annotations

import os
import struct

from tinygpt.core.sandbox import kernel

INSIDE = 65534  # the user that a program is inside: nobody
DEVICES = ("/dev/null", "/dev/urandom")
SCRATCH = "/tmp"

_NEW = {"mount": 0x20000, "control group": 0x2000000, "host name": 0x4000000, "message queue": 0x8000000,
        "user": 0x10000000, "process": 0x20000000, "network": 0x40000000}  # fmt: skip
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 0x40000
_DETACH = 2
_AT_RECURSIVE = 0x8000


def enter() -> None:
    """Leave all namespaces but the mounts, which `build_root` leaves; what is forked next is process 1."""
    if os.geteuid() == 0:
        os.setgroups([])
    flags = sum(flag for name, flag in _NEW.items() if name != "mount")
    names = ", ".join(name for name in _NEW if name != "mount")
    kernel.unshare(f"namespaces ({names})", flags)


def map_users(pid: int) -> None:
    """Say who is who in the user namespace of `pid`; the parent does it, since only it may name two users.

    Root keeps itself for setting up and becomes nobody; an ordinary user only gets another number."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        known = [tuple(map(int, line.split())) for line in file]
    both = os.geteuid() == 0 and any(first <= INSIDE < first + n for first, _, n in known)
    texts = {"uid_map": f"{INSIDE} {os.geteuid()} 1", "gid_map": f"{INSIDE} {os.getegid()} 1"}
    if both:
        texts = dict.fromkeys(texts, f"0 0 1\n{INSIDE} {INSIDE} 1")
    else:
        texts = {"setgroups": "deny", **texts}
    for name, text in texts.items():
        with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
            file.write(text)


def build_root(shown: list[str], file_bytes: int) -> None:
    """A root of our own with the trees `shown`, in a mount namespace of our own; the new folder is /tmp."""
    links = {path: os.readlink(path) for path in ("/lib", "/lib64", "/usr/lib64") if os.path.islink(path)}
    kernel.unshare("namespace (mount)", _NEW["mount"])
    kernel.mount("none", "/", None, _REC | _PRIVATE)
    kernel.mount("tmpfs", "/tmp", "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    os.mkdir("/tmp/old")
    kernel.call("pivot_root", kernel.PIVOT_ROOT[kernel.machine()], b"/tmp", b"/tmp/old")
    os.chdir("/")
    for path in shown:
        os.makedirs(path, exist_ok=True)
        kernel.mount(f"/old{path}", path, None, _BIND | _REC)
    # Everything below, submounts too, is read-only; devices come later, as these flags would take them away.
    read_only = struct.pack("=QQQQ", _RDONLY | _NOSUID | _NODEV, 0, 0, 0)
    for path in shown:
        given = (-100, path.encode(), _AT_RECURSIVE, read_only, len(read_only))
        kernel.call("mount_setattr", kernel.MOUNT_SETATTR, *given)
    os.makedirs("/dev", exist_ok=True)
    for path in DEVICES:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o444))
        kernel.mount(f"/old{path}", path, None, _BIND)
    for path, target in links.items():
        if not os.path.lexists(path):
            os.symlink(target, path)
    os.makedirs(SCRATCH, exist_ok=True)
    options = f"size={file_bytes},nr_inodes=4096,mode=700,uid={INSIDE},gid={INSIDE}"
    kernel.unmount("/old", _DETACH)
    os.rmdir("/old")
    kernel.mount("none", "/", None, 0x20 | _BIND | _RDONLY | _NOSUID | _NODEV)  # MS_REMOUNT
    kernel.mount("tmpfs", SCRATCH, "tmpfs", _NOSUID | _NODEV | _NOEXEC, options)
    os.chdir(SCRATCH)


def drop() -> None:
    """Become nobody, give up every capability for good, and never gain any by executing."""
    last = 0
    while _has_capability(last):
        kernel.prctl("capabilities", kernel.PR_CAPBSET_DROP, last)
        last += 1
    if os.geteuid() != INSIDE:
        os.setresgid(INSIDE, INSIDE, INSIDE)
        os.setresuid(INSIDE, INSIDE, INSIDE)
    header, none = struct.pack("=II", 0x20080522, 0), bytes(24)
    kernel.call("capabilities", kernel.CAPSET[kernel.machine()], header, none)
    kernel.prctl("no_new_privs", kernel.PR_SET_NO_NEW_PRIVS, 1)


def _has_capability(number: int) -> bool:
    """Whether this kernel knows a capability of this number."""
    try:
        kernel.prctl("capabilities", kernel.PR_CAPBSET_READ, number)
    except OSError:
        return False
    return True
