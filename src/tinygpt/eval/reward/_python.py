"""Functions that people write themselves, found by "file.py:name" or "module:name"."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tinygpt.core.errors import ConfigError, DataError, nearest
from tinygpt.eval.reward._answer import Answer

MARKS = ("tinygpt.json", "config.json", "adapter_config.json")  # of a folder that holds a model


@functools.cache
def function(spec: str) -> Callable[[Answer], Any]:
    """The function that a text names. ConfigError: there is none."""
    where, colon, name = spec.rpartition(":")
    if not colon or not where or not name.isidentifier():
        raise ConfigError(f"'{spec}' names no function", hint="write it as file.py:name or module:name")
    module = _from_file(Path(where)) if where.endswith(".py") else _installed(where)
    found = getattr(module, name, None)
    if not callable(found):
        known = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise ConfigError(f"{where} has no function '{name}'.{nearest(name, known)}")
    return found


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(f"there is no file {path}", hint="check the path")
    if mark := next((m for m in MARKS if (path.resolve().parent / m).exists()), None):
        raise ConfigError(
            f"{path} lies beside a {mark}: code of a model's folder is never run",
            hint="copy the function to a file of your own, after reading it",
        )
    spec = importlib.util.spec_from_file_location(f"_tinygpt_reward_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    _run(lambda: spec.loader.exec_module(module), str(path))  # type: ignore[union-attr]
    return module


def _installed(name: str) -> Any:
    found: list[Any] = []
    _run(lambda: found.append(importlib.import_module(name)), name)
    return found[0]


def _run(do: Callable[[], Any], where: str) -> None:
    try:
        do()
    except (Exception, SystemExit) as error:  # whatever a person's own code raises
        raise ConfigError(f"cannot import {where}: {_said(error)}") from error


def call(spec: str, answer: Answer) -> float:
    """The number that the function gives."""
    return number(asked(spec, answer), spec)


def asked(spec: str, answer: Answer) -> Any:
    """What the function gives. DataError: it failed."""
    try:
        return function(spec)(answer)
    except (Exception, SystemExit) as error:  # whatever a person's own code raises
        raise DataError(f"the reward {spec} failed: {_said(error)}") from error


def _said(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def number(value: Any, where: str) -> float:
    """A finite number, or DataError."""
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    raise DataError(f"the reward {where} gave {value!r}, not a finite number")


def table(value: Any, where: str) -> dict[str, float]:
    """Dimensions by name, of a function that gives several."""
    if isinstance(value, Mapping):
        return {str(name): number(one, f"{where} ({name})") for name, one in value.items()}
    return {"reward": number(value, where)}


def source(spec: str) -> str:
    """The text of the file that a function is in, for a hash of what a run learns from."""
    return Path(inspect.getsourcefile(inspect.unwrap(function(spec))) or __file__).read_text(encoding="utf-8")
