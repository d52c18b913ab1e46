"""The registry of `serve --route`: which specialists there are, and which of them may answer.

A specialist is armed where a report says that it wins: a result of `eval-gate`, for its weights and those of
the adapters on it, that passed, and in which a score is better than the baseline's. Paths are seen from the
registry's folder.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.config import from_dict, load_file
from tinygpt.core.errors import CheckpointError, ConfigError, DataError, TinyGPTError, unknown
from tinygpt.core.events import Events
from tinygpt.data import table
from tinygpt.model import checkpoint
from tinygpt.router.router import Router
from tinygpt.runs import _pieces, _prompt_cache, _served
from tinygpt.serve import routed
from tinygpt.serve.registry import Registry

NO_REPORT = "it has no report"


@dataclass(frozen=True, kw_only=True)
class Specialist:
    """One entry of a registry."""

    model: Annotated[str, "A served model's name, or the path of one that is served beside them."]
    router: Annotated[Path, "The router that claims requests for it: what train-extractor made."]
    labels: Annotated[tuple[str, ...], "Classes of the router that are its own."]
    threshold: Annotated[float, "Probability from which a request is claimed."] = 0.7
    report: Annotated[Path | None, "A result of eval-gate that says it wins."] = None

    def __post_init__(self) -> None:
        if not self.labels:
            raise ConfigError(f"the route to '{self.model}' has no labels")
        if not 0 < self.threshold <= 1:
            raise ConfigError(
                f"the route to '{self.model}': 'threshold' must be in (0, 1], got {self.threshold:g}"
            )


@dataclass(frozen=True, kw_only=True)
class Entries:
    """A registry as it is written. general: who answers all other requests; not given: the first model."""

    routes: Annotated[tuple[Specialist, ...], "The specialists."]
    general: Annotated[str, "Who answers all other requests; empty: the first model."] = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A registry that was read: the models that are served for it, and why a specialist is not armed."""

    general: str
    specialists: list[Specialist]
    reasons: list[str]
    source: _served.Source

    @property
    def facts(self) -> list[dict[str, Any]]:
        """What is told at the start."""
        listed = zip(self.specialists, self.reasons, strict=True)
        return [
            {"model": one.model, "armed": not why, "reason": why or "the gate passed"} for one, why in listed
        ]

    @property
    def armed(self) -> list[str]:
        """Specialists that may answer."""
        return [one.model for one, why in zip(self.specialists, self.reasons, strict=True) if not why]

    def tell(self, events: Events) -> None:
        """A line for each route."""
        for one in self.facts:
            how = "armed" if one["armed"] else "not armed"
            events.note(
                f"route to {one['model']}: {how}: {one['reason']}", "info" if one["armed"] else "warning"
            )

    def open(self, registry: Registry) -> routed.Routes:
        """The routes that are armed; each router is opened once, on the worker's thread."""
        opened: dict[Path, routed.Router] = {}

        def router(path: Path) -> routed.Router:
            if path not in opened:
                opened[path] = registry.worker.call(lambda: Router.open(path)).result()
            return opened[path]

        found: list[routed.Route] = []
        for one, why in zip(self.specialists, self.reasons, strict=True):
            if why:
                continue
            known = getattr(claim := router(one.router), "labels", one.labels)
            if (odd := next((label for label in one.labels if label not in known), None)) is not None:
                raise unknown("label", odd, list(known))
            labels = frozenset(one.labels)
            found.append(routed.Route(model=one.model, router=claim, labels=labels, threshold=one.threshold))
        return routed.Routes(self.general, found, registry.worker.call, registry.resolve)


def read(path: Path, source: _served.Source) -> Plan:
    """A registry, for a server of these models. ConfigError names what is wrong with it."""
    entries = from_dict(Entries, load_file(path), path.name)
    if not entries.routes:
        raise ConfigError(f"{path} has no routes")
    models = dict(source.models)
    found: list[Specialist] = []
    for one in entries.routes:
        changes: dict[str, Any] = {"router": _from(path, one.router)}
        if not changes["router"].exists():
            raise ConfigError(
                f"{path}: there is no router at {changes['router']}", hint="tinygpt train-extractor"
            )
        if one.report is not None:
            changes["report"] = _from(path, one.report)
        if one.model.partition("+")[0] not in models:
            name, where = _served.named(one.model)
            where = _from(path, where)
            if not _same(models.setdefault(name, where), where):
                raise ConfigError(
                    f"{path}: two models are called '{name}': {models[name]} and {where}",
                    hint="give one another name: NAME=PATH",
                )
            changes["model"] = name
            _pieces.model_path(where)  # that there is one
        elif odd := set(one.model.split("+")[1:]) - (names := {each.name for each in source.adapters}):
            raise unknown("adapter", min(odd), sorted(names - {""}))
        found.append(dataclasses.replace(one, **changes))
    general = entries.general or next(iter(models))
    if general not in models:
        raise unknown("model", general, list(models))
    source = dataclasses.replace(source, models=models)
    return Plan(
        general=general, specialists=found, reasons=[reason(one, source) for one in found], source=source
    )


def reason(one: Specialist, source: _served.Source) -> str:
    """Why a specialist is not armed; "" where it is."""
    if one.report is None:
        return NO_REPORT
    try:
        told: Any = table.parse(one.report.read_text(encoding="utf-8"))
        model, adapter = _identity(one.model, source)
    except (OSError, UnicodeDecodeError, DataError, CheckpointError) as error:
        why = error.message if isinstance(error, TinyGPTError) else getattr(error, "strerror", None)
        return f"{one.report}: {why or 'it is not UTF-8'}"
    protocol = told.get("protocol") if isinstance(told, dict) else None
    if not isinstance(protocol, dict) or not isinstance(told.get("suites"), list):
        return f"{one.report} is no result of eval-gate"
    if told.get("passed") is not True:
        return f"the gate did not pass: {one.report}"
    if protocol.get("modelHashes") != [model]:
        return f"{one.report} is of another model, or does not say of which"
    if protocol.get("adapterHashes", []) != ([adapter] if adapter else []):
        return f"{one.report} is of other adapters on the model"
    if not any(map(_better, told["suites"])):
        return f"no score is better than the baseline's: {one.report}"
    return ""


def _identity(name: str, source: _served.Source) -> tuple[str, str]:
    """Hashes of a served model's weights, and of the adapters on it, as rows of evals have them."""
    root, *wanted = name.split("+")
    worn = [one for each in ("", *wanted) for one in source.adapters if one.name == each]
    weights = [one.weight for one in worn] if any(one.weight != 1 for one in worn) else []
    adapters = _prompt_cache.worn([one.path for one in worn], weights)
    return checkpoint.identity(_pieces.model_path(source.models[root])), adapters


def _same(one: Path, other: Path) -> bool:
    return os.path.abspath(one) == os.path.abspath(other)


def _better(suite: Any) -> bool:
    """Whether the candidate's score is the better one."""
    if not isinstance(suite, dict):
        return False
    old, new = suite.get("baselineScore"), suite.get("candidateScore")
    if not isinstance(old, int | float) or not isinstance(new, int | float):
        return False
    return new < old if suite.get("direction") == "lowerIsBetter" else new > old


def _from(registry: Path, path: Path) -> Path:
    """A path that is written in a registry."""
    return path if str(path).startswith("hf://") else Path(os.path.join(registry.parent, path))
