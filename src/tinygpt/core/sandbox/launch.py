"""The process that `run.py` starts: it shuts itself in, step by step, and then becomes the program.

    supervisor    reads the job, leaves the namespaces, watches memory and processes, ends all when told to
      first       process 1 of the new namespace: builds the root, waits for the program, ends the rest
        program   gives up rights, takes its limits, Landlock, seccomp, and runs the source

Only the last one runs code of a stranger, and by then it has no descriptor but 0, 1, 2 and those its job
names. With `walls` "none" or "outer" (macOS: `sandbox-exec` is around all three) the same three processes do
without the kernel's. This module and what it imports stay small: they are loaded at each run.
"""

from __future__ import annotations

import _socket
import gc
import os
import resource
import select
import sys

from tinygpt.core.sandbox import kernel, landlock, namespaces, seccomp, sides, wire

TYPE_CHECKING = False
if TYPE_CHECKING:  # slow to import
    from collections.abc import Callable, Iterator
    from typing import Any

    Job = dict[str, Any]

TICK = 25  # milliseconds between two looks at memory and processes
KILL = 9  # the module `signal` is slow to import


def main() -> None:
    """Descriptor 0 carries the job, then "go", and stays open as long as the run is wanted."""
    job = wire.load(wire.receive(0, most=1 << 32) or b"")
    role = {"program": _program, "candidate": sides.candidate, "tests": sides.tests}[job["role"]]
    walled = job["walls"] == "kernel"
    gc.freeze()  # what is here stays: pages that no collection touches are shared by all three
    try:
        if walled:
            namespaces.enter()
            _say(job["report"], {"ask": "map"})
            wire.receive(0)
        ours, theirs = (one.detach() for one in _socket.socketpair())
        first = os.fork()
    except OSError as error:
        _say(job["report"], {"missing": error.strerror})
        return
    if first:
        os.close(theirs)
        _supervise(job, first, ours)
        os._exit(0)  # nothing here needs an orderly end
    os.close(ours)
    os.close(job["report"])
    try:
        if walled:
            _outlive_nobody(theirs)
            namespaces.build_root(job["shown"], job["limits"]["file_bytes"])
        program = os.fork()
        if program:
            _wait(job, program, theirs)
        _shut_in(job, theirs, walled)
    except OSError as error:
        _say(theirs, {"missing": error.strerror})
        os._exit(1)
    _say(theirs, {"ready": os.getpid()})
    os.close(theirs)
    guarded(lambda: role(job))


def _say(fd: int, message: dict[str, object]) -> None:
    try:
        wire.send(fd, wire.dump(message))
    except BrokenPipeError:
        return  # the caller is gone, and with it the need for an answer


# The supervisor.


def _supervise(job: Job, first: int, link: int) -> None:
    """Wait for the end, which is that of the program, of a limit, or of the caller's wish."""
    _detach(job)
    report: dict[str, Any] = {"status": -KILL, "cpu": 0.0, "limit": None, "full": False}
    ready, waiting = False, True
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(link, select.POLLIN)
    while waiting:
        for fd, _ in poll.poll(TICK):
            message = wire.load(wire.receive(link) or wire.dump({"gone": 1})) if fd == link else {"stop": 1}
            ready = ready or "ready" in message
            waiting = waiting and not message.keys() & {"gone", "stop", "missing"}
            if "armed" in message:
                _say(link, {"go": 1})
            report.update(message)
        if ready and waiting:
            held, tasks = _usage(first)
            report["full"] = tasks >= job["limits"]["processes"]
            if held > job["limits"]["memory_bytes"]:
                report["limit"], waiting = "memory", False
    _kill(first)
    os.waitpid(first, 0)  # of process 1: it returns when all of its namespace are gone
    if job["walls"] != "kernel" and "ready" in report:
        _kill(-report["ready"])
    _say(job["report"], report)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, KILL)
    except ProcessLookupError:
        return  # it has ended by itself


def _detach(job: Job) -> None:
    """Leave output and channels to the program alone, so that their ends are its end."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (1, 2):
        os.dup2(null, fd)
    for fd in (null, *job["keep"]):
        os.close(fd)


def _usage(first: int) -> tuple[int, int]:
    """(bytes in memory, processes and threads) of all that descend from `first`; a page that several share
    counts for each. (0, 0) where there is no /proc."""
    held = tasks = 0
    for pid in _descendants(first):
        try:
            with open(f"/proc/{pid}/statm", "rb") as file:
                held += int(file.read().split()[1]) * resource.getpagesize()
            tasks += len(os.listdir(f"/proc/{pid}/task"))
        except (OSError, IndexError):
            continue  # it has just ended
    return held, tasks


def _descendants(pid: int) -> Iterator[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        texts = [open(f"/proc/{pid}/task/{thread}/children", "rb").read() for thread in threads]  # noqa: SIM115
    except OSError:
        return  # it has just ended, or this is not Linux
    for child in b" ".join(texts).split():
        yield int(child)
        yield from _descendants(int(child))


# The first process inside.


def _outlive_nobody(link: int) -> None:
    """End with the supervisor, even where it is killed between the two lines here."""
    kernel.prctl("parent's death", kernel.PR_SET_PDEATHSIG, KILL)
    _say(link, {"armed": 1})
    if wire.receive(link) is None:
        os._exit(1)


def _wait(job: Job, program: int, link: int) -> None:
    """Wait for the program, tell how it ended, and end: the kernel then ends all that is left in here."""
    _detach(job)
    cpu = 0.0
    while True:
        pid, status, used = os.wait4(-1, 0)
        cpu += used.ru_utime + used.ru_stime
        if pid == program:
            break
    _say(link, {"status": os.waitstatus_to_exitcode(status), "cpu": cpu})
    os._exit(0)


# The program.


def _shut_in(job: Job, link: int, walled: bool) -> None:
    """Give up what the program may not have. seccomp comes last, it forbids the rest of these calls."""
    limits: dict[str, int] = job["limits"]
    os.setsid() if walled else os.setpgid(0, 0)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    kept = sorted({0, 1, 2, link, *job["keep"]})
    for low, high in zip(kept, [*kept[1:], resource.getrlimit(resource.RLIMIT_NOFILE)[0]]):
        os.closerange(low + 1, high)
    caps = {
        "RLIMIT_FSIZE": limits["file_bytes"], "RLIMIT_CORE": 0, "RLIMIT_NOFILE": 256, "RLIMIT_MEMLOCK": 0,
        "RLIMIT_MSGQUEUE": 0,
    }  # fmt: skip
    if sys.platform != "darwin":  # which has the name and not the limit
        caps["RLIMIT_AS"] = limits["memory_bytes"]
    for name, value in caps.items():
        _cap(name, value, value)
    _cap("RLIMIT_CPU", limits["cpu_seconds"], limits["cpu_seconds"] + 1)
    if walled:
        # Counted within the user namespace; for an ordinary user the two processes above are in it, too.
        spare = 0 if os.geteuid() == 0 else 2
        namespaces.drop()
        _cap("RLIMIT_NPROC", limits["processes"] + spare, limits["processes"] + spare)
    os.chdir(job["scratch"])
    for name, content in job["files"].items():
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "wb") as file:
            file.write(content)
    if walled:
        landlock.restrict(job["shown"], [job["scratch"], *namespaces.DEVICES])
        seccomp.install(seccomp.program(kernel.machine()))


def _cap(name: str, soft: int, hard: int) -> None:
    """A limit, unless this system has no such one or a lower one is set already."""
    which = getattr(resource, name, None)
    if which is not None:
        most = resource.getrlimit(which)[1]
        bounds = [value if most == resource.RLIM_INFINITY else min(value, most) for value in (soft, hard)]
        resource.setrlimit(which, (bounds[0], bounds[1]))


def guarded(work: Callable[[], None]) -> None:
    """Run a stranger's code; an exception that it does not catch is shown without our own frames."""
    try:
        work()
    except SystemExit:
        raise
    except BaseException as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("tinygpt."):
            trace = trace.tb_next
        sys.__excepthook__(type(error), error.with_traceback(trace), trace)
        raise SystemExit(sides.status(error)) from None


def _program(job: Job) -> None:
    sides.forget(job)
    main = sys.modules["__main__"].__dict__
    for name in [n for n in main if not n.startswith("__")]:
        del main[name]
    main["__file__"] = "program.py"
    sys.argv[:] = ["program.py"]
    exec(compile(job["source"], "program.py", "exec", dont_inherit=True), main)
