"""Formats are compiled beside the loop, within a bound of time."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tinygpt.core.errors import BusyError, ConfigError
from tinygpt.serve import formats
from tinygpt.serve.job import Format


def test_whom_a_slow_format_is_blamed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes too long is its author's fault; what could not be begun meanwhile is nobody's."""
    free = threading.Event()

    def constraint(*_: Any, **__: Any) -> Any:
        free.wait(20)
        return object()

    class Engine:
        tokenizer = None

    async def asked() -> list[Any]:
        compiler, engine = formats.Formats(seconds=0.2), Engine()
        wanted = Format(kind="regex", value="a")
        works = [compiler.of(engine, wanted, frozenset(), 1) for _ in range(3)]  # pyright: ignore
        try:
            return await asyncio.gather(*works, return_exceptions=True)
        finally:
            free.set()
            compiler.close()

    monkeypatch.setattr(formats, "constraint", constraint)
    slow, slow_too, kept = asyncio.run(asked())
    assert isinstance(slow, ConfigError) and isinstance(slow_too, ConfigError)
    assert "takes longer" in str(slow) and isinstance(kept, BusyError)
