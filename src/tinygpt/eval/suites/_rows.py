"""Suites whose questions are rows of a file: reading them, asking, and answers that rows bring themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.config import to_dict
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.data import rows
from tinygpt.eval.endpoint import GREEDY, Endpoint, Reply, Sampling
from tinygpt.eval.playback import Playback
from tinygpt.eval.suites._result import Examples, version

GIVEN = "predicted"  # the key of an item that holds the answer of its row; no part of the data's version


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Knobs that these suites share."""

    data: Annotated[Path, "JSONL of rows."]
    limit: Annotated[int, "Use the first so many rows; 0: all."] = 0

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ConfigError(f"'limit' must not be negative, got {self.limit}")


@dataclass(frozen=True, kw_only=True)
class Asking(Rows):
    """Those of suites that have a model write."""

    max_tokens: Annotated[int, "Longest answer in tokens."] = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_tokens < 1:
            raise ConfigError(f"'max_tokens' must be at least 1, got {self.max_tokens}")


def load(
    config: Rows, convert: Callable[[dict[str, Any]], dict[str, Any]], known: str, aside: Sequence[str] = ()
) -> Examples:
    """The rows as items; bad ones are counted in the notes. `known`: the shape, for the hint; `aside`: keys
    of items that do not make another version of the data."""

    def item(row: Any) -> dict[str, Any]:
        if not isinstance(row, dict):
            raise DataError("the row is no object")
        return convert(row)

    found, report = rows.read(config.data, item, known=known)
    items = [{"id": str(i), **one} for i, one in enumerate(found[: config.limit or None])]
    return of(items, (report.sentence(),) if report.n_bad else (), aside)


def of(items: list[dict[str, Any]], notes: Sequence[str] = (), aside: Sequence[str] = ()) -> Examples:
    """Examples of items; answers that they bring do not change their version."""
    left = {GIVEN, *aside}
    asked = [{key: value for key, value in item.items() if key not in left} for item in items]
    return Examples(items=items, version=version(asked), notes=tuple(notes))


def text(row: dict[str, Any], *keys: str) -> str:
    """The text under the first key that is there; DataError where there is none."""
    for key in keys:
        if isinstance(row.get(key), str) and row[key].strip():
            return row[key]
    raise DataError(f"no text under {' or '.join(repr(key) for key in keys)}")


def question(asked: str) -> list[dict[str, Any]]:
    """A conversation of one message."""
    return [{"role": "user", "content": asked}]


def answers(
    endpoint: Endpoint, examples: Examples, max_tokens: int, sampling: Sampling = GREEDY
) -> list[Reply]:
    """A reply to each item's messages; DataError where a model is asked and a row has no question."""
    items = examples.items
    bare = next((item["id"] for item in items if not item["messages"]), None)
    if bare is not None and not isinstance(endpoint, Playback):
        raise DataError(
            f"row {bare} has nothing to ask a model", hint="rows of answers alone go under --predictions"
        )
    more = {} if sampling == GREEDY else {"sampling": sampling}
    return endpoint.complete([item["messages"] for item in items], max_tokens=max_tokens, **more)


def settings(config: Rows, examples: Examples, **more: Any) -> dict[str, Any]:
    """What a row says about how it was measured."""
    return to_dict(config) | {"notes": list(examples.notes)} | more
