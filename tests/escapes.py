# ruff: noqa: E501 (a program is one line here)
"""Ways out of a sandbox, each a program that prints OUT where it gets out.

As a command (`python escapes.py HERE.json`) it tries all of them and prints what came of each as JSON: so a test can
try them as another user. HERE says what there is to reach outside: a file, a folder, ports, processes.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

START = """
import ctypes, os, sys, errno
libc = ctypes.CDLL(None, use_errno=True)
ARM = os.uname().machine == "aarch64"
def call(x86, arm, *a):
    r = libc.syscall(ctypes.c_long(arm if ARM else x86), *[ctypes.c_long(x) if isinstance(x, int) else x for x in a])
    if r < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return r
def out(yes=True):
    if yes:
        print("OUT", flush=True)
"""
LIBC = "def c(name, *a):\n    r = getattr(libc, name)(*a)\n    out(r >= 0)\n"
TRY = "def tried(*works):\n    for w in works:\n        try: w()\n        except (OSError, ValueError, MemoryError): continue\n        out()\n"

ESCAPES = {
    # files
    "passwd": "out(open('/etc/passwd').read())",
    "secret": "out(open(HERE['secret']).read())",
    "home": "out(os.listdir(HERE['folder']))",
    "repository": "out(open(HERE['source']).read())",
    "root": "out('etc' in os.listdir('/'))",
    "old root": "tried(*[lambda p=p: os.listdir(p) for p in ('/old/etc', '/etc', '/root', '/home', '/var', '/proc/1')])",
    "dots": "out(open('../../../../../../../../..' + HERE['secret']).read())",
    "symlink": "os.symlink(HERE['secret'], 'l'); out(open('l').read())",
    "symlink of a folder": "os.symlink('/', 'l'); out(open('l' + HERE['secret']).read())",
    "hard link": "os.link(HERE['secret'], 'h'); out(open('h').read())",
    "hard link to the library": "os.link(os.__file__, 'h'); out()",
    "write": "open(HERE['folder'] + '/new', 'w').write('x'); out()",
    "write the library": "tried(lambda: open(os.__file__, 'a'), lambda: os.unlink(os.__file__))",
    "write anywhere": "tried(*[lambda p=p: open(p + '/new', 'w') for p in ('/', '/var/tmp', '/dev', '/dev/shm', '/run', '/lib', '/usr/lib', '/etc')])",
    "handle": "b = ctypes.create_string_buffer(bytes([128, 0, 0, 0]) + bytes(132)); m = ctypes.c_int()\ncall(303, 264, -100, b'/usr', b, ctypes.byref(m), 0); out()",
    "open by handle": "b = ctypes.create_string_buffer(bytes([8, 0, 0, 0, 1, 0, 0, 0, 2]) + bytes(15)); call(304, 265, os.open('.', 0), b, 0); out()",
    "disk device": "os.mknod('d', 0o60600, os.makedev(254, 0)); out()",
    "memory device": "tried(*[lambda p=p: os.open(p, os.O_RDONLY) for p in ('/dev/mem', '/dev/kmsg', '/dev/vda', '/dev/sda', '/dev/fuse')])",
    "sysfs": "tried(lambda: os.listdir('/sys/kernel'), lambda: os.listdir('/sys/fs/cgroup'))",
    # what the parent has
    "environment": "out(any('PLANTED' in k or 'PATH' in k for k in os.environ))",
    "environment of the parent": "out(open(f\"/proc/{HERE['victim']}/environ\", 'rb').read())",
    "environments": "tried(*[lambda p=p: open(f'/proc/{p}/environ').read() for p in ('1', '2', 'self')])",
    "descriptors": "tried(lambda: os.listdir('/proc/self/fd'), lambda: os.listdir('/dev/fd'))",
    "inherited descriptor": "tried(*[lambda f=f: os.fstat(f) for f in range(3, 256)])",
    "memory of the parent": "tried(lambda: open('/proc/self/mem', 'rb'), lambda: open('/proc/1/mem', 'rb'))",
    "stdin": "out(os.read(0, 1) != b'')",
    # network
    "tcp": "import socket; s = socket.create_connection(('127.0.0.1', HERE['tcp'])); out()",
    "udp": "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'OUT', ('127.0.0.1', HERE['udp'])); out()",
    "listen": "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); out()",
    "unix socket": "import socket; s = socket.socket(socket.AF_UNIX); s.connect(HERE['unix']); out()",
    "abstract socket": "import socket; s = socket.socket(socket.AF_UNIX); s.connect('\\0' + HERE['abstract']); out()",
    "datagram pair": "import socket; s = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0]; s.sendto(b'OUT', '\\0' + HERE['datagram']); out()",
    "raw socket": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); out()",
    "packet socket": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW); out()",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW); out()",
    "name lookup": "import socket; socket.getaddrinfo('localhost', 80); out('127.0.0.1' in open('/etc/hosts').read())",
    # other processes
    "signal": "os.kill(HERE['victim'], 0); out()",
    "kill": "os.kill(HERE['victim'], 9); out()",
    "kill all": "os.kill(-1, 9); os.kill(1, 9); os.kill(HERE['victim'], 0); out()",
    "kill groups": "os.killpg(HERE['victim'], 9); out()",
    "ptrace": "call(101, 117, 16, HERE['victim'], 0, 0); out()",
    "ptrace of process 1": "call(101, 117, 0x4206, 1, 0, 0); out()",
    "ptrace of a child": "p = os.fork()\nif p == 0:\n    import time; time.sleep(5)\ncall(101, 117, 16, p, 0, 0); out()",
    "read a process": "b = ctypes.create_string_buffer(8); v = (ctypes.c_ulong * 2)(ctypes.addressof(b), 8)\ncall(310, 270, HERE['victim'], v, 1, v, 1, 0); out()",
    "read process 1": "b = ctypes.create_string_buffer(8); v = (ctypes.c_ulong * 2)(ctypes.addressof(b), 8)\ncall(310, 270, 1, v, 1, v, 1, 0); out()",
    "descriptor of process 1": "f = call(434, 434, 1, 0); call(438, 438, f, 0, 0); out()",
    "kcmp": "call(312, 272, 1, os.getpid(), 0, 0, 0); out()",
    "limits of process 1": "import resource; resource.prlimit(1, resource.RLIMIT_CPU, (1, 1)); out()",
    # privileges
    "become root": "tried(lambda: os.setuid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setgid(0))",
    "user namespace": LIBC + "c('unshare', 0x10000000)",
    "all namespaces": LIBC + "[c('unshare', f) for f in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x20000000, 0x40000000, 0x80)]",
    "clone with a namespace": "r = call(56, 220, 0x10000000 | 17, 0, 0, 0, 0)\nif r == 0: os._exit(0)\nout()",
    "clone3": "a = (ctypes.c_ulong * 8)(0x10000000, 0, 0, 0, 17)\nr = call(435, 435, a, 64)\nif r == 0: os._exit(0)\nout()",
    "join a namespace": "call(308, 268, os.open('/', os.O_PATH), 0); out()",
    "chroot": "os.chroot('.'); out()",
    "pivot_root": "call(155, 41, b'.', b'.'); out()",
    "mount": LIBC + "c('mount', b'proc', b'/tmp', b'proc', 0, None); c('mount', b'/', b'/tmp', None, 4096, None)",
    "remount": LIBC + "c('mount', None, b'/', None, 0x1020, None); c('umount2', b'/tmp', 2)",
    "new mounts": "tried(lambda: call(430, 430, b'proc', 0), lambda: call(428, 428, -100, b'/', 1), lambda: call(442, 442, -100, b'/', 0, bytes(32), 32))",
    "setuid bit": "open('a', 'w'); os.chmod('a', 0o4777); out(os.stat('a').st_mode & 0o4000)",
    "file capabilities": "open('a', 'w'); os.setxattr('a', 'security.capability', bytes(20)); out()",
    "capabilities": "h = ctypes.create_string_buffer(bytes([0x22, 5, 8, 0x20]) + bytes(4)); call(126, 91, h, b'\\xff' * 24); out()",
    "host name": "import socket; socket.sethostname('x'); out()",
    "prctl": LIBC + "[c('prctl', *a) for a in ((4, 1), (28, 0), (36, 1), (38, 0), (1, 0), (0x59616D61, 1))]",
    "undo seccomp": LIBC + "c('prctl', 22, 0, 0); c('prctl', 22, 1, 0)",
    "more of a limit": "import resource as r\nfor n in (r.RLIMIT_AS, r.RLIMIT_NPROC, r.RLIMIT_CPU, r.RLIMIT_FSIZE, r.RLIMIT_NOFILE):\n    tried(lambda: r.setrlimit(n, (1 << 40, 1 << 40)))",
    "priority": "tried(lambda: os.nice(-5), lambda: os.setpriority(0, 0, -5), lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)), lambda: call(251, 30, 1, 0, 0x2000))",
    "affinity": "os.sched_setaffinity(0, {0}); out()",
    "clock": "import time; tried(lambda: time.clock_settime(0, 1.0), lambda: call(159, 171, bytes(256)))",
    "personality": "call(135, 92, 0x0040000); out()",
    "reboot": "call(169, 142, 0xFEE1DEAD, 672274793, 0, 0); out()",
    "module": "tried(lambda: call(175, 105, b'', 0, b''), lambda: call(313, 273, 0, b'', 0), lambda: call(246, 104, 0, 0, 0, 0))",
    "kernel log": "call(103, 116, 3, ctypes.create_string_buffer(64), 64); out()",
    # other code
    "execute": "tried(lambda: os.execv('/bin/sh', ['sh', '-c', 'echo OUT']), lambda: os.execv(sys.executable, ['python', '-c', 'print(\"OUT\")']))",
    "execute the loader": "import glob\nfor p in glob.glob('/lib*/ld-linux*') + glob.glob('/lib/*/ld-linux*'): tried(lambda: os.execv(p, [p, '/bin/sh']))",
    "execute one's own": "open('a', 'w').write('#!/bin/sh\\necho OUT\\n'); os.chmod('a', 0o755); os.execv('./a', ['a'])",
    "shell": "import subprocess; print(subprocess.run('echo OUT', shell=True, capture_output=True).stdout)",
    "memory file": "f = os.memfd_create('a'); out()",
    "secret memory": "call(447, 447, 0); out()",
    # kernel interfaces that have had holes
    "io_uring": "call(425, 425, 8, ctypes.create_string_buffer(256)); out()",
    "bpf": "call(321, 280, 0, ctypes.create_string_buffer(128), 128); out()",
    "perf": "call(298, 241, ctypes.create_string_buffer(bytes(4) + bytes([112]) + bytes(123)), 0, -1, -1, 0); out()",
    "keys": "tried(lambda: call(250, 219, 0, -3, 0), lambda: call(248, 217, b'user', b'a', b'b', 1, -3))",
    "userfaultfd": "call(323, 282, 1); out()",
    "terminal input": "import fcntl\nfor f in (0, 1, 2): tried(lambda: fcntl.ioctl(f, 0x5412, b'x'))",
    "shared memory": "from multiprocessing import shared_memory; shared_memory.SharedMemory(create=True, size=64); out()",
    "shared memory of System V": "call(29, 194, 0, 4096, 0o1600); out()",
    "message queue": "call(240, 180, b'q', 0o102, 0o600, 0); out()",
    "watching files": "call(300, 262, 0, 0); out()",
    "calls of another architecture": "if not ARM:\n    import mmap\n    m = mmap.mmap(-1, 4096, prot=7)\n    m.write(bytes([0x53, 0xB8, 20, 0, 0, 0, 0xCD, 0x80, 0x5B, 0xC3]))\n    f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n    out(f() > 0)",
    "calls of x32": "call(0x40000000 | 39, 9999); out()",
}  # fmt: skip


def program(name: str, here: dict[str, Any]) -> str:
    """The source of one attempt."""
    return f"{START}{TRY}HERE = {here!r}\n{ESCAPES[name]}\n"


def main() -> None:
    from tinygpt.core.sandbox.run import run

    here = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))

    def attempt(name: str) -> tuple[str, list[str]]:
        outcome = run(program(name, here))
        return name, [outcome.verdict, outcome.stdout, outcome.stderr]

    with ThreadPoolExecutor() as pool:
        sys.stdout.write(json.dumps(dict(pool.map(attempt, ESCAPES))))


if __name__ == "__main__":
    main()
