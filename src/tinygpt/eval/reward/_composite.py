"""A reward of named dimensions: a file that declares them, or one function of one's own.

    # reward.toml
    [[dimensions]]
    name = "format"
    kind = "regex"              a file of this folder
    pattern = "<answer>.*</answer>"
    weight = 0.5

    [[dimensions]]
    name = "short"
    kind = "length"
    most = 40
    slack = 20

    total = sum_d weight_d clamp((score_d - low_d) / (high_d - low_d))

With `mean = true` at the top the total is divided by the sum of the weights' sizes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.config import Pick, from_dict, load_file, to_dict
from tinygpt.core.errors import ConfigError
from tinygpt.core.family import Family
from tinygpt.eval.reward import _python
from tinygpt.eval.reward._answer import Answer

REWARDS = Family("tinygpt.eval.reward", verb="score")
OWN = ("name", "kind", "weight", "low", "high", "clamp")


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One named number of a reward."""

    name: Annotated[str, "What it is called in events."]
    kind: Annotated[Pick, "What gives the score.", REWARDS]
    weight: Annotated[float, "What it counts in the total; a negative one punishes."] = 1.0
    low: Annotated[float, "The score that becomes 0."] = 0.0
    high: Annotated[float, "The score that becomes 1."] = 1.0
    clamp: Annotated[bool, "Keep it from 0 to 1."] = True

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ConfigError(f"dimension '{self.name}': low must be below high")

    def value(self, answer: Answer) -> float:
        """The score on its own scale."""
        raw = _python.number(REWARDS.load(self.kind.name).score(answer, self.kind.options), self.name)
        scaled = (raw - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, scaled)) if self.clamp else scaled


@dataclass(frozen=True)
class Scored:
    """A reward and its dimensions."""

    total: float
    parts: dict[str, float]


class Composite:
    """Dimensions added up. `hash` is of all that decides a score."""

    def __init__(self, dimensions: Sequence[Dimension], *, mean: bool = False, text: str = "") -> None:
        self.dimensions, self.mean = tuple(dimensions), mean
        code = [_python.source(d.kind.options.function) for d in dimensions if d.kind.name == "python"]
        parts = [str([to_dict(d) for d in dimensions]), str(mean), text, *code]
        self.hash = hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def __call__(self, answer: Answer) -> Scored:
        parts = {d.name: d.value(answer) for d in self.dimensions}
        total = sum(d.weight * parts[d.name] for d in self.dimensions)
        size = sum(abs(d.weight) for d in self.dimensions) if self.mean else 1.0
        return Scored(total / (size or 1.0), parts)


class Function:
    """A function of one's own as the whole reward: it gives a number, or dimensions by name that are added
    up."""

    def __init__(self, spec: str) -> None:
        self.spec = spec
        self.hash = hashlib.sha256(f"{spec}\n{_python.source(spec)}".encode()).hexdigest()

    def __call__(self, answer: Answer) -> Scored:
        parts = _python.table(_python.asked(self.spec, answer), self.spec)
        return Scored(sum(parts.values()), parts)


Reward = Composite | Function


def load(spec: str) -> Reward:
    """The reward that a text names: a .toml or .json file of dimensions, "file.py:name" or "module:name"."""
    path = Path(spec)
    if path.suffix.lower() not in (".toml", ".json"):
        _python.function(spec)
        return Function(spec)
    data = load_file(path)
    if unknown := sorted(data.keys() - {"dimensions", "mean"}):
        raise ConfigError(f"{path}: unknown key '{unknown[0]}'", hint="known keys: dimensions, mean")
    found = data.get("dimensions")
    if not isinstance(found, list) or not found:
        raise ConfigError(
            f"{path} lists no dimensions", hint="add [[dimensions]] tables with a name and a kind"
        )
    dimensions = [_dimension(one, f"{path}: dimensions[{i}]") for i, one in enumerate(found)]
    names = [d.name for d in dimensions]
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise ConfigError(f"{path}: two dimensions are called '{twice}'")
    return Composite(dimensions, mean=bool(data.get("mean", False)))


def _dimension(data: Any, where: str) -> Dimension:
    if not isinstance(data, Mapping) or not isinstance(data.get("kind"), str):
        raise ConfigError(
            f"{where} must be a table with a 'kind'", hint=f"kinds: {', '.join(REWARDS.names())}"
        )
    options = {key: value for key, value in data.items() if key not in OWN}
    own = {key: value for key, value in data.items() if key in OWN and key != "kind"}
    own = {"name": data["kind"], **own}
    return from_dict(Dimension, {**own, "kind": {"name": data["kind"], **options}}, where)


def means(scored: Sequence[Scored]) -> dict[str, float]:
    """The mean total and the mean of every dimension, for events."""
    names = dict.fromkeys(name for one in scored for name in one.parts)
    n = max(1, len(scored))
    found = {"total": sum(one.total for one in scored) / n}
    return found | {name: sum(one.parts.get(name, 0.0) for one in scored) / n for name in names}
