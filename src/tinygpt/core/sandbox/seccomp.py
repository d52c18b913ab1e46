"""Seccomp: the list of system calls that a sandboxed Python needs; every other one fails.

The filter is a small program of the kernel's classic BPF, run at each call. It kills a process whose calls
are not of its own architecture, answers "no such call" to calls newer than this list (libraries then take the
older one) and "not permitted" to all else: no sockets but pairs, no execution, no namespaces, mounts,
tracing, keys, BPF, io_uring, shared memory, clocks or priorities. Some calls are allowed for some arguments
only (`_CHECKED`).

Source: Documentation/userspace-api/seccomp_filter.rst, include/uapi/linux/{seccomp,filter,audit}.h.
"""

from __future__ import annotations

import ctypes
import errno
import struct

from tinygpt.core.sandbox import kernel

# name:number on x86-64:number on AArch64 ("-": it has no such call).
_CALLS = """
read:0:63 write:1:64 readv:19:65 writev:20:66 pread64:17:67 pwrite64:18:68 preadv:295:69 pwritev:296:70
preadv2:327:286 pwritev2:328:287 open:2:- openat:257:56 openat2:437:437 creat:85:- close:3:57
close_range:436:436 stat:4:- fstat:5:80 lstat:6:- newfstatat:262:79 statx:332:291 access:21:-
faccessat:269:48 faccessat2:439:439 lseek:8:62 readlink:89:- readlinkat:267:78 getdents:78:-
getdents64:217:61 statfs:137:43 fstatfs:138:44 mkdir:83:- mkdirat:258:34 rmdir:84:- unlink:87:-
unlinkat:263:35 rename:82:- renameat:264:38 renameat2:316:276 link:86:- linkat:265:37 symlink:88:-
symlinkat:266:36 truncate:76:45 ftruncate:77:46 fallocate:285:47 umask:95:166 utime:132:- utimes:235:-
utimensat:280:88 futimesat:261:- chdir:80:49 fchdir:81:50 getcwd:79:17 fsync:74:82 fdatasync:75:83
flock:73:32 fcntl:72:25 dup:32:23 dup2:33:- dup3:292:24 pipe:22:- pipe2:293:59 sendfile:40:71
copy_file_range:326:285 fadvise64:221:223 mmap:9:222 munmap:11:215 mprotect:10:226 mremap:25:216 brk:12:214
madvise:28:233 msync:26:227 rt_sigaction:13:134 rt_sigprocmask:14:135 rt_sigreturn:15:139
rt_sigpending:127:136 rt_sigsuspend:130:133 rt_sigtimedwait:128:137 sigaltstack:131:132 pause:34:-
alarm:37:- setitimer:38:103 getitimer:36:102 kill:62:129 tkill:200:130 tgkill:234:131
rt_sigqueueinfo:129:138 rt_tgsigqueueinfo:297:240 timer_create:222:107 timer_settime:223:110
timer_gettime:224:108 timer_delete:226:111 timer_getoverrun:225:109 restart_syscall:219:128 fork:57:-
vfork:58:- exit:60:93 exit_group:231:94 wait4:61:260 waitid:247:95 set_tid_address:218:96
set_robust_list:273:99 get_robust_list:274:100 rseq:334:293 futex:202:98 futex_waitv:449:449
membarrier:324:283 arch_prctl:158:- getpid:39:172 gettid:186:178 getppid:110:173 getpgid:121:155
getpgrp:111:- getsid:124:156 setsid:112:157 setpgid:109:154 getuid:102:174 geteuid:107:175 getgid:104:176
getegid:108:177 getresuid:118:148 getresgid:120:150 getgroups:115:158 getrlimit:97:163 getrusage:98:165
times:100:153 sysinfo:99:179 uname:63:160 gettimeofday:96:169 time:201:- clock_gettime:228:113
clock_getres:229:114 clock_nanosleep:230:115 nanosleep:35:101 sched_yield:24:124 sched_getaffinity:204:123
sched_getparam:143:121 sched_getscheduler:145:120 sched_get_priority_max:146:125
sched_get_priority_min:147:126 getpriority:140:141 getcpu:309:168 getrandom:318:278 poll:7:- ppoll:271:73
select:23:- pselect6:270:72 epoll_create:213:- epoll_create1:291:20 epoll_ctl:233:21 epoll_wait:232:-
epoll_pwait:281:22 eventfd2:290:19 timerfd_create:283:85 timerfd_settime:286:86 timerfd_gettime:287:87
signalfd4:289:74 sendto:44:206 recvfrom:45:207 sendmsg:46:211 recvmsg:47:212 shutdown:48:210
getsockopt:55:209 setsockopt:54:208 getsockname:51:204 getpeername:52:205
"""
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_NEWER = 451  # calls from here on are answered with "no such call"

# What a call's argument must be: one of some values, or without some bits.
_CHECKED: dict[str, tuple[tuple[int | None, int | None], int, tuple[int, ...] | int]] = {
    # name: (numbers, argument, allowed values or forbidden bits)
    "clone": ((56, 220), 0, 0x7E020000),  # CLONE_NEW*
    "prctl": ((157, 167), 0, (15, 16)),  # the thread's name
    "prlimit64": ((302, 261), 0, (0,)),  # of the process itself
    "ioctl": (
        (16, 29),
        1,
        (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451),
    ),  # a terminal? size, waiting, flags
    "socketpair": ((53, 199), 0, (1,)),  # AF_UNIX
    "chmod": ((90, None), 1, 0o6000),  # setuid, setgid
    "fchmod": ((91, 52), 1, 0o6000),
    "fchmodat": ((268, 53), 2, 0o6000),
}
_CLONE3 = 435  # its flags lie in memory, where no filter sees them: libraries fall back to clone

_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


def supported() -> bool:
    """Whether there is a list for this machine's architecture."""
    return kernel.machine() in _ARCHITECTURES


def program(machine: str) -> bytes:
    """The filter as instructions of eight bytes."""
    audit, column = _ARCHITECTURES[machine]
    refuse, unknown = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    code = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    code += _when(_AT_LEAST, _NEWER, unknown) + _when(_EQUAL, _CLONE3, unknown)
    for entry in _CALLS.split():
        number = entry.split(":")[1 + column]
        if number != "-":
            code += _when(_EQUAL, int(number), _ALLOW)
    for numbers, argument, rule in _CHECKED.values():
        number = numbers[column]
        if number is not None:
            code += _check(number, argument, rule)
    code.append((_RETURN, 0, 0, refuse))
    return b"".join(struct.pack("=HBBI", *one) for one in code)


def _when(test: int, value: int, answer: int) -> list[tuple[int, int, int, int]]:
    """Answer, if the loaded word passes the test."""
    return [(test, 0, 1, value), (_RETURN, 0, 0, answer)]


def _check(number: int, argument: int, rule: tuple[int, ...] | int) -> list[tuple[int, int, int, int]]:
    """A call that depends on the low word of an argument."""
    body: list[tuple[int, int, int, int]] = [(_LOAD, 0, 0, 16 + 8 * argument)]
    if isinstance(rule, int):
        body += [*_when(_ANY_BIT, rule, _ERRNO | errno.EPERM), (_RETURN, 0, 0, _ALLOW)]
    else:
        for value in rule:
            body += _when(_EQUAL, value, _ALLOW)
        body.append((_RETURN, 0, 0, _ERRNO | errno.EPERM))
    return [(_EQUAL, 0, len(body), number), *body]


def install(instructions: bytes) -> None:
    """Filter this process and all that it starts. The caller has set no_new_privs. OSError where refused."""
    kept = ctypes.create_string_buffer(instructions, len(instructions))
    head = struct.pack("@HP", len(instructions) // 8, ctypes.addressof(kept))
    kernel.prctl("seccomp", kernel.PR_SET_SECCOMP, 2, ctypes.create_string_buffer(head, len(head)))
