"""Where a gate is written down: a file of its own, or a block of the project's."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinygpt.core.config import load_file
from tinygpt.core.errors import ConfigError
from tinygpt.eval.gate.spec import Budget, Spec, parse, parse_budget

SPEC, PROJECT, BLOCK = Path("eval-gate.json"), Path("tinygpt.project.json"), "eval"


def find(given: Path | None, changes: Mapping[str, Any], *, needed: bool) -> tuple[Spec, Path]:
    """The gate with what the command line changes of it, and the folder that its paths are seen from; its
    model is as seen from here. One that is not `needed` may be empty: then every task is gated."""
    where = given or next((path for path in (SPEC, PROJECT) if path.is_file()), None)
    if where is None and needed:
        raise ConfigError(
            f"there is no {SPEC} here, and no {PROJECT}",
            hint="give --spec FILE, or --candidate and --baseline",
        )
    data: Any = {} if where is None else load_file(where)
    if where is not None and where.name == PROJECT.name:
        if not isinstance(data.get(BLOCK), dict):
            raise ConfigError(f"{where} has no block '{BLOCK}'", hint=f"write one, or {SPEC}")
        data = data[BLOCK]
    spec, base = parse(data, "" if where is None else where.name), Path() if where is None else where.parent
    if spec.model is not None and not spec.url:  # a server's model is a name
        spec = dataclasses.replace(spec, model=base / spec.model)
    return dataclasses.replace(spec, **changes), base


def budget(given: str) -> Budget | None:
    """A budget of the command line: JSON, or a file of it; None: nothing is given."""
    if not given:
        return None
    if given.lstrip().startswith("{"):
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
            file.write(given)
            file.flush()
            return parse_budget(load_file(Path(file.name)), "--budget")
    return parse_budget(load_file(Path(given)), "--budget")
