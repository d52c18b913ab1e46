"""What an answer must be, made into constraints: beside the loop, within a bound of time.

Where a model reasons first, the form begins after that: until the end of its reasoning it writes freely.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import ConfigError, TinyGPTError, UnsupportedError
from tinygpt.infer.constrained import KINDS as CONSTRAINTS
from tinygpt.infer.constrained import constraint
from tinygpt.infer.request import Constraint
from tinygpt.serve.job import Format

if TYPE_CHECKING:
    import numpy as np

    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.infer.engine import Engine

SECONDS = 10.0  # for compiling: a grammar of usual size takes milliseconds
KINDS = ("json", "schema", "regex", "choice", "lark", "gbnf")


class Formats:
    """Compiles constraints on two threads of its own, so that a grammar that takes long holds nobody up."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="tinygpt-grammar")

    async def of(
        self, engine: Engine, form: Format, stop_ids: frozenset[int], n: int, after: str | None = None
    ) -> list[Constraint]:
        """A constraint for each of n answers. `after`: the mark that ends the reasoning before it.

        ConfigError where the format is wrong, or takes too long; UnsupportedError where nothing compiles
        it."""
        if form.kind not in KINDS:
            raise ConfigError(f"unknown format '{form.kind}'", hint=f"known: {', '.join(KINDS)}")
        return await self.compiled(engine, form.kind, form.value, stop_ids, n, after)

    async def compiled(
        self,
        engine: Engine,
        kind: str,
        spec: Any,
        stop_ids: frozenset[int],
        n: int,
        after: str | None = None,
    ) -> list[Constraint]:
        """`of` for any family of infer/constrain and its own form of a specification."""
        if kind not in CONSTRAINTS.names():
            raise UnsupportedError(f"this build has no constraints of the kind '{kind}'")

        def work() -> list[Constraint]:
            made = [constraint(kind, spec, engine.tokenizer, stop_ids=stop_ids) for _ in range(n)]
            return [After(c, after, engine.tokenizer, stop_ids) for c in made] if after else made

        waiting = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.wait_for(waiting, self._seconds)
        except TimeoutError as error:
            raise ConfigError(
                f"the format takes longer than {self._seconds:.0f} s to compile", hint="make it simpler"
            ) from error
        except TinyGPTError:
            raise
        except (RecursionError, ValueError, TypeError) as error:
            raise ConfigError(f"the format cannot be used: {error}") from error

    def close(self) -> None:
        """End the threads, once what they compile is compiled."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class After:
    """A constraint that begins once a mark was written; before, all but the end of the answer may come."""

    def __init__(
        self, inner: Constraint, mark: str, tokenizer: Tokenizer, stop_ids: Sequence[int] | frozenset[int]
    ) -> None:
        self._inner, self._tokenizer, self._mark = inner, tokenizer, mark.encode()
        self._stop_ids = frozenset(stop_ids)
        self._ids: list[int] = []  # before the mark's end, with it
        self._inside = 0  # ids that the inner constraint took
        self._begun = False
        self._free: np.ndarray | None = None

    def mask(self) -> np.ndarray:
        if self._begun:
            return self._inner.mask()
        if self._free is None:
            import numpy as np

            self._free = np.full(-(-self._tokenizer.vocab_size // 32), -1, np.int32)
            for id in self._stop_ids:
                self._free.view(np.uint32)[id // 32] &= np.uint32(0xFFFFFFFF ^ (1 << (id % 32)))
        return self._free

    def take(self, token: int) -> None:
        if self._begun:
            self._inner.take(token)
            self._inside += 1
            return
        self._ids.append(token)
        self._begun = self._tail().endswith(self._mark)

    def rollback(self, n: int) -> None:
        inner = min(n, self._inside)
        if inner:
            self._inner.rollback(inner)
            self._inside -= inner
        if n > inner:
            del self._ids[len(self._ids) - (n - inner) :]
            self._begun = self._tail().endswith(self._mark)

    def _tail(self) -> bytes:
        return b"".join(map(self._tokenizer.id_to_bytes, self._ids[-len(self._mark) :]))


def choice_of(choice: str | Mapping[str, str], names: Sequence[str]) -> tuple[str, ...] | None:
    """The tools one of which must be called; None where none must. ConfigError where that cannot be."""
    if isinstance(choice, Mapping):
        name = choice.get("name", "")
        if name not in names:
            raise ConfigError(f"tool_choice names '{name}', which is no tool of this request")
        return (name,)
    if choice not in ("auto", "none", "required"):
        raise ConfigError(f"tool_choice is '{choice}'", hint='"auto", "none", "required", or a function')
    if choice == "required" and not names:
        raise ConfigError("tool_choice is 'required', but there are no tools")
    return tuple(names) if choice == "required" else None
