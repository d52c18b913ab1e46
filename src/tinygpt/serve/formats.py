"""What an answer must be, made into constraints: beside the loop, within a bound of time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import BusyError, ConfigError, UnsupportedError
from tinygpt.infer.constrained import KINDS as CONSTRAINTS
from tinygpt.infer.constrained import constraint
from tinygpt.infer.request import Constraint
from tinygpt.serve.fields import FieldError
from tinygpt.serve.job import Format

if TYPE_CHECKING:
    from tinygpt.infer.engine import Engine

SECONDS = 10.0  # for compiling: a grammar of usual size takes milliseconds
KINDS = ("json", "schema", "regex", "choice", "lark", "gbnf")


class Formats:
    """Compiles constraints on two threads of its own, so that a grammar that takes long holds nobody up."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="tinygpt-grammar")

    async def of(
        self, engine: Engine, form: Format, stop_ids: frozenset[int], n: int, thoughts: str = ""
    ) -> list[Constraint]:
        """A constraint for each of n answers. thoughts: see `tinygpt.infer.constrained`.

        FieldError where the format is wrong, or takes too long; BusyError where others kept it from being
        begun; UnsupportedError where nothing compiles it."""
        if form.kind not in KINDS:
            raise ConfigError(f"unknown format '{form.kind}'", hint=f"known: {', '.join(KINDS)}")
        return await self.compiled(engine, form.kind, form.value, stop_ids, n, thoughts, param=form.param)

    async def compiled(
        self,
        engine: Engine,
        kind: str,
        spec: Any,
        stop_ids: frozenset[int],
        n: int,
        thoughts: str = "",
        *,
        param: str | None = None,
    ) -> list[Constraint]:
        """`of` for any family of infer/constrain and its own form of a specification, which a request has in
        the field `param`."""
        if kind not in CONSTRAINTS.names():
            raise UnsupportedError(f"this build has no constraints of the kind '{kind}'")

        begun = False

        def work() -> list[Constraint]:
            nonlocal begun
            begun = True
            return [
                constraint(kind, spec, engine.tokenizer, stop_ids=stop_ids, thoughts=thoughts)
                for _ in range(n)
            ]

        waiting = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.wait_for(waiting, self._seconds)
        except TimeoutError as error:
            if not begun:
                raise BusyError("the server compiles other formats", hint="try again") from error
            slow = f"the format takes longer than {self._seconds:.0f} s to compile"
            raise FieldError(slow, param=param, hint="make it simpler") from error
        except ConfigError as error:
            raise FieldError(error.message, param=param, hint=error.hint) from error
        except (RecursionError, ValueError, TypeError) as error:
            raise FieldError(f"the format cannot be used: {error}", param=param) from error

    def close(self) -> None:
        """End the threads, once what they compile is compiled."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def choice_of(choice: str | Mapping[str, str], names: Sequence[str]) -> tuple[str, ...] | None:
    """The tools one of which must be called; None where none must. FieldError where that cannot be."""
    if choice in ("auto", "none"):
        return None
    if choice != "required" and not isinstance(choice, Mapping):
        raise ConfigError(f"tool_choice is '{choice}'", hint='"auto", "none", "required", or a function')
    if not names:
        raise FieldError("'tool_choice' asks for a call, but there are no tools", param="tool_choice")
    if not isinstance(choice, Mapping):
        return tuple(names)
    if (name := choice.get("name", "")) not in names:
        known = ", ".join(names)[:200]
        message = f"'tool_choice' names '{name[:80]}', which is none of the tools: {known}"
        raise FieldError(message, param="tool_choice")
    return (name,)
