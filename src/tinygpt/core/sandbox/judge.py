"""Whether a program passes its tests, decided where the program never is.

Two sandboxed processes: one runs the program, the other the tests, and plain values go between them
(`sides.py`). The verdict is what the tests' process says, with a number drawn for this one run that only it
was told.

    judge("def f(x): return x + 1", "assert f(1) == 2").ok

`prelude` holds definitions that the tests need and the program must not change: `definitions(prompt,
entry_point)` takes HumanEval's helpers (`poly`, `encode_shift`) out of a prompt.

Differs: human-eval's `check_correctness` runs program and tests in one interpreter, where `os._exit(0)` is no
pass only because a list stays empty, and an object that is equal to everything passes. Here values of
subclasses arrive as the plain values that they hold, and a change that a function makes to its argument is
not seen by the tests.
"""

from __future__ import annotations

import ast
import builtins
import os
import secrets
import symtable
from dataclasses import replace

from tinygpt.core.errors import DataError, UnsupportedError
from tinygpt.core.sandbox import wire
from tinygpt.core.sandbox.limits import Limits, Outcome
from tinygpt.core.sandbox.run import Box, drive

LINGER = 1.0  # seconds in which a program may still end by itself after its tests have failed


def judge(
    program: str, tests: str, *, prelude: str = "", limits: Limits | None = None, unsafe: bool = False
) -> Outcome:
    """The outcome of the program, `ok` if all tests passed; `message` says which assertion failed.

    Names that the tests use and nobody trusted defines are the program's. Both processes have all of
    `limits`. DataError where tests or prelude are no Python; UnsupportedError where a test hands over what
    cannot be sent (a function of its own); SandboxError as from `run`."""
    limits = limits or Limits()
    nonce = secrets.token_hex(16)
    _parsed(prelude, "prelude")
    _parsed(tests, "tests")
    names = _foreign(prelude, tests)
    asks_r, asks_w = os.pipe()
    answers_r, answers_w = os.pipe()
    verdict_r, verdict_w = os.pipe()
    theirs, ours = (asks_r, answers_w), (asks_w, answers_r, verdict_w)
    boxes: list[Box] = []
    try:
        job = {"role": "candidate", "source": program}
        boxes.append(Box(job, {}, limits, unsafe=unsafe, keep=theirs))
        job = {"role": "tests", "source": tests, "prelude": prelude, "names": names, "nonce": nonce}
        boxes.append(Box(job, {}, limits, unsafe=unsafe, keep=ours))
    except BaseException:
        for box in boxes:
            box.close()
        os.close(verdict_r)
        raise
    finally:
        for fd in (*theirs, *ours):
            os.close(fd)
    candidate, harness = boxes
    found: tuple[str, str] = ("", "")

    def ended(box: Box) -> None:
        nonlocal found
        if box is harness:
            found = _told(verdict_r)
            candidate.finish("its tests have ended", LINGER if found != ("passed", nonce) else 0.0)

    with os.fdopen(verdict_r):
        drive(candidate, harness, ended=ended)
    return _joined(candidate.outcome(), harness.outcome(), found, nonce)


def _told(fd: int) -> tuple[str, str]:
    """What the tests' process has written, which is trusted code but may have been ended half way."""
    try:
        kind, text = wire.load(wire.receive(fd) or wire.dump(("", "")))
    except wire.NotPlain:
        return "", ""
    return kind, text


def _joined(candidate: Outcome, harness: Outcome, found: tuple[str, str], nonce: str) -> Outcome:
    """One outcome of two: a pass needs the nonce; else a limit says more than the failure that it led to."""
    kind, text = found
    if kind == "unable":
        raise UnsupportedError(f"the tests hand something over that cannot be sent to the program: {text}")
    if found == ("passed", nonce):
        return replace(candidate, verdict="ok", code=0, message="")
    if candidate.verdict not in ("ok", "failed"):
        return candidate
    if kind == "":
        return replace(
            candidate,
            verdict=harness.verdict if harness.verdict != "ok" else "failed",
            message=harness.message,
        )
    return replace(candidate, verdict="failed", message=text)


def definitions(prompt: str, entry_point: str) -> str:
    """The imports and helpers of a prompt, without the function to be written. DataError if no Python."""
    body = prompt if prompt.endswith("\n") else prompt + "\n"
    try:
        tree = ast.parse(body)
    except SyntaxError:  # a function without a docstring has no body yet
        tree = _parsed(f"{body}    pass\n", "prompt")
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    kept = [n for n in tree.body if not (isinstance(n, functions) and n.name == entry_point)]
    return ast.unparse(ast.Module(body=kept, type_ignores=[]))


def _parsed(text: str, what: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise DataError(f"the {what} is no Python: {error}") from error


def _foreign(*texts: str) -> list[str]:
    """Global names that the texts read and none of them defines."""
    read: set[str] = set()
    made = set(dir(builtins))
    for text in texts:
        waiting = [symtable.symtable(text, "tests.py", "exec")]
        while waiting:
            table = waiting.pop()
            waiting += table.get_children()
            for symbol in table.get_symbols():
                if table.get_type() == "module" or symbol.is_global():
                    read |= {symbol.get_name()} if symbol.is_referenced() else set()
                    made |= {symbol.get_name()} if symbol.is_assigned() or symbol.is_imported() else set()
    return sorted(read - made)
