"""What a gate is told: which suites, against what, how far a score may fall, and how much may be spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tinygpt.core.config import from_dict
from tinygpt.core.errors import ConfigError

Unit = Literal["auto", "pp", "relative", "absolute"]
Wants = Literal["hold", "level", "ahead", "win"]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One suite: which rows it is judged by, and how they are come by."""

    name: Annotated[str, "Name in the result."]
    task: Annotated[str, "Task of its rows; empty: the name."] = ""
    subtasks: Annotated[tuple[str, ...], "Only rows of these subtasks; none given: all rows."] = ()
    metrics: Annotated[tuple[str, ...], "Only rows of these metrics; none given: all rows."] = ()
    threshold: Annotated[
        float | None, "How far a score may fall, or must be ahead; not given: the gate's, or 0."
    ] = None
    unit: Annotated[Unit, "What the threshold counts; auto: as the gate says."] = "auto"
    direction: Annotated[
        Literal["auto", "higher", "lower"], "Which scores are better; auto: the metric's name says it."
    ] = "auto"
    wants: Annotated[
        Wants,
        "hold: no fall. Of a champion, which goes only where that is so: level: no score is below its; "
        "ahead: each is above; win: and by no chance.",
    ] = "hold"
    command: Annotated[
        tuple[str, ...], "Program and arguments that append rows to the file $TINYGPT_EVAL_OUT."
    ] = ()
    suite: Annotated[str, "A suite of tinygpt instead, which asks the gate's model."] = ""
    options: Annotated[dict[str, Any], "Settings of that suite."] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if self.command and self.suite:
            raise ConfigError(f"suite '{self.name}' has a command and a suite", hint="leave one out")
        if self.options and not self.suite:
            raise ConfigError(f"suite '{self.name}' has options, but no 'suite' that would take them")
        _check_threshold(self.threshold, f"threshold of suite '{self.name}'")

    @property
    def of_task(self) -> str:
        return self.task or self.name


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much a suite may spend, and how answers are drawn. None: not limited."""

    max_steps: Annotated[int | None, "Steps of an agent in one example."] = None
    max_tokens: Annotated[int | None, "Tokens of one answer."] = None
    wall_seconds: Annotated[float | None, "Longest time of a suite in one pass."] = None
    sandbox_ram_mb: Annotated[float | None, "Most memory of a suite's processes, in MiB."] = None
    sandbox_cpus: Annotated[float | None, "Processors that a suite's processes may use."] = None
    temperature: Annotated[float | None, "Temperature at which answers must be drawn."] = None
    top_p: Annotated[float | None, "Nucleus from which answers must be drawn."] = None
    sampling_seed: Annotated[int | None, "Seed of pass 0; pass i has this + i."] = None
    infra_patches: Annotated[tuple[str, ...], "What was changed in a harness; written down."] = ()

    def __post_init__(self) -> None:
        for name in ("max_steps", "max_tokens", "wall_seconds", "sandbox_ram_mb", "sandbox_cpus"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"'budget.{name}' must be positive, got {value}")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A gate: `eval-gate.json`, or the `eval` block of `tinygpt.project.json`. Paths are as seen from its
    file."""

    baseline: Annotated[Path | None, "Rows that were measured before."] = None
    default_threshold: Annotated[float, "How far a score may fall, in the unit."] = 2.0
    default_unit: Annotated[
        Unit, "What thresholds count; auto: points (pp) of shares, percents (relative) of other metrics."
    ] = "auto"
    model: Annotated[Path | None, "The model that suites of tinygpt ask."] = None
    adapter: Annotated[tuple[Path, ...], "Adapters on it."] = ()
    url: Annotated[str, "An OpenAI-compatible server that they ask instead."] = ""
    passes: Annotated[int, "How often each suite is run."] = 1
    alpha: Annotated[float, "A fall counts as noise where it is likelier than this if nothing changed."] = (
        0.05
    )
    min_examples: Annotated[int, "With fewer, a fall that might be noise is no answer."] = 30
    strict_noise: Annotated[bool, "A fall beyond the threshold fails, noise or not."] = False
    train_data: Annotated[
        tuple[Path, ...], "Files or run directories a model learned from: no example may be in them."
    ] = ()
    max_overlap: Annotated[float, "Share of a suite's examples that may be in them."] = 0.0
    likeness: Annotated[
        float, "Share of words in common from which a training text is an example; 1: word for word."
    ] = 1.0
    budget: Annotated[Budget, "How much a suite may spend."] = field(default_factory=Budget)
    suites: Annotated[tuple[Suite, ...], "The suites; none: every task of the rows."] = ()

    def __post_init__(self) -> None:
        _check_threshold(self.default_threshold, "default_threshold")
        if self.passes < 1 or self.min_examples < 1:
            raise ConfigError("'passes' and 'min_examples' must be at least 1")
        if not 0 < self.alpha < 1 or not 0 <= self.max_overlap <= 1:
            raise ConfigError("'alpha' must be between 0 and 1, 'max_overlap' from 0 to 1")
        if not 0 < self.likeness <= 1:
            raise ConfigError(f"'likeness' must be above 0 and at most 1, got {self.likeness}")
        names = [suite.name for suite in self.suites]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise ConfigError(f"two suites are called '{twice}'", hint="give each a name of its own")


def parse(data: Mapping[str, Any], where: str) -> Spec:
    """The spec in JSON data. Keys called `_doc` are for people; others that are not known are
    refused."""
    return from_dict(Spec, _without_doc(data), where)


def parse_budget(data: Mapping[str, Any], where: str) -> Budget:
    """A budget in JSON data."""
    return from_dict(Budget, _without_doc(data), where)


def _without_doc(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_doc(v) for k, v in value.items() if k != "_doc"}
    return [_without_doc(v) for v in value] if isinstance(value, list) else value


def _check_threshold(value: float | None, what: str) -> None:
    if value is not None and value < 0:
        raise ConfigError(f"the {what} must not be negative, got {value}")
