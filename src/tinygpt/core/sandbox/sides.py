"""The two ends of a judged run: the program, which answers calls, and the tests, which never run its code.

The tests see the program's names as `Remote` objects. A call sends its arguments as plain values (`wire.py`)
to the process of the program and brings back a plain value or the name of an exception. So `assert f(2) == 4`
compares two ints in a process where nothing of the program has ever been: no object of its with an `__eq__`
of its own, no patched `assert`, no frame to look into. What is no plain value stays with the program; the
tests can call it, take its attributes or list it, but not compare it.
"""

from __future__ import annotations

import builtins
import errno
import os
import sys

from tinygpt.core.sandbox import wire

TYPE_CHECKING = False
if TYPE_CHECKING:  # slow to import
    from collections.abc import Callable, Iterator
    from typing import Any

    Job = dict[str, Any]


def status(error: BaseException) -> int:
    """The exit status of a process that an exception ends: 97 to 99 name a limit (`limits.STATUSES`)."""
    if isinstance(error, MemoryError):
        return 97
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return 98
    no_thread = isinstance(error, RuntimeError) and error.args == ("can't start new thread",)
    if no_thread or (isinstance(error, BlockingIOError) and error.errno == errno.EAGAIN):
        return 99
    return 1


def forget(job: Job) -> None:
    """Take our own modules, paths and settings out of the way of a program."""
    for name in [n for n in sys.modules if n.partition(".")[0] == "tinygpt"]:
        del sys.modules[name]
    sys.path[:] = [job["scratch"], *(p for p in sys.path if p != job["root"])]
    os.environ.clear()


# The program's end.


def candidate(job: Job) -> None:
    """Run the source as a module called `program`, then do what the tests ask until they are gone."""
    asked, answered = job["keep"]
    forget(job)
    module = type(sys)("program")
    sys.modules["program"] = module
    held: list[object] = []

    def refer(value: object) -> wire.Reference:
        held.append(value)
        return wire.Reference(len(held) - 1)

    def resolve(key: int | str) -> object:
        return held[key] if isinstance(key, int) else module.__dict__[key]

    def answer(work: Callable[[], object]) -> None:
        try:
            data = wire.dump(("value", work()), refer)
        except BaseException as error:
            if status(error) != 1:
                raise
            names = [kind.__name__ for kind in type(error).__mro__]
            data = wire.dump(("raised", names, _text(error)))
        wire.send(answered, data)

    def read() -> None:
        exec(compile(job["source"], "program.py", "exec", dont_inherit=True), module.__dict__)

    answer(read)
    while (frame := wire.receive(asked)) is not None:
        answer(lambda frame=frame: _do(*wire.load(frame, resolve)))


def _do(verb: str, target: Any, *rest: Any) -> object:
    match verb:
        case "call":
            return target(*rest[0], **rest[1])
        case "get":
            return getattr(target, rest[0])
        case "set":
            return setattr(target, rest[0], rest[1])
        case _:
            return list(target)


def _text(error: BaseException) -> str:
    try:
        return str(error)[:1000]
    except Exception:
        return ""


# The tests' end.


class Unable(Exception):
    """The tests want something that cannot be sent to the program."""


class ProgramError(Exception):
    """An exception of the program's own, or one that no test should take for its own."""


class Link:
    """Questions to the program, one at a time."""

    def __init__(self, asks: int, answers: int) -> None:
        self.asks, self.answers = asks, answers
        self.unable = ""

    def ask(self, verb: str, *rest: object) -> Any:
        try:
            question = wire.dump((verb, *rest))
        except wire.TooDeep as error:  # the program's own value, handed back: no fault of the tests
            raise ProgramError(f"a value cannot be handed to the program: {error}") from None
        except wire.NotPlain as error:
            self.unable = str(error)
            raise Unable(self.unable) from None
        try:
            wire.send(self.asks, question)
        except BrokenPipeError:
            raise ProgramError("the program has ended") from None
        return self.answer()

    def answer(self) -> Any:
        frame = wire.receive(self.answers)
        if frame is None:
            raise ProgramError("the program has ended")
        try:
            read = wire.load(frame, lambda key: Remote(self, key))
        except (wire.NotPlain, TypeError, ValueError) as error:
            raise ProgramError(f"the program's answer cannot be read: {error}") from None
        match read:
            case ("value", value):
                return value
            case ("raised", [*names], str(text)) if names and all(isinstance(n, str) for n in names):
                raise _exception(names, text)
            case _:
                raise ProgramError("the program's answer is none")


def _exception(names: list[str], text: str) -> Exception:
    """A built-in exception by name. One that ends a loop in silence, or a process, is a ProgramError."""
    for name in names:
        kind = getattr(builtins, name, None)
        if not (isinstance(kind, type) and issubclass(kind, Exception)) or kind is Exception:
            continue
        if not issubclass(kind, (StopIteration, StopAsyncIteration, UnicodeError, ExceptionGroup)):
            return kind(text)
    return ProgramError(f"{names[0]}: {text}")


class Remote(wire.Reference):
    """Something of the program's: a function, a class, an object that is no plain value."""

    __slots__ = ("_link",)

    def __init__(self, link: Link, key: int | str) -> None:
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "key", key)

    def __call__(self, *args: object, **kwargs: object) -> Any:
        return self._link.ask("call", self, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._link.ask("get", self, name)

    def __setattr__(self, name: str, value: object) -> None:
        self._link.ask("set", self, name, value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._link.ask("list", self))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Remote) and other.key == self.key:
            return True
        raise ProgramError("an object of the program was compared, and it is no plain value")

    def __bool__(self) -> bool:
        raise ProgramError("an object of the program was asked for its truth, and it is no plain value")

    def __hash__(self) -> int:
        return hash(self.key)


def tests(job: Job) -> None:
    """Run the trusted definitions and the tests; tell the verdict, with the nonce, to the judge alone."""
    asks, answers, verdict = job["keep"]
    forget(job)
    link = Link(asks, answers)
    try:
        link.answer()  # the program has been read
        scope: dict[str, object] = {"__name__": "tests"}
        exec(compile(job["prelude"], "prelude.py", "exec", dont_inherit=True), scope)
        scope.update({name: Remote(link, name) for name in job["names"]})
        exec(compile(job["source"], "tests.py", "exec", dont_inherit=True), scope)
        found = ("passed", job["nonce"])
    except BaseException as error:
        found = (
            "failed",
            f"{_line(error, job['source'])}{type(error).__name__}: {_text(error)}".rstrip(": "),
        )
    if link.unable:
        found = ("unable", link.unable)
    wire.send(verdict, wire.dump(found))


def _line(error: BaseException, source: str) -> str:
    """The line of the tests that failed, in front of what went wrong."""
    number, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "tests.py":
            number = trace.tb_lineno
        trace = trace.tb_next
    return f"{source.splitlines()[number - 1].strip()}: " if number else ""
