"""1 where the answer is JSON that a JSON Schema allows; 0 where not."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core import files
from tinygpt.core.errors import ConfigError, DependencyError
from tinygpt.eval.reward._answer import Answer, unfenced


@dataclass(frozen=True, kw_only=True)
class Config:
    """The schema, of any draft that the package jsonschema knows."""

    schema: Annotated[dict[str, Any], "The schema itself."] = field(default_factory=dict[str, Any])
    path: Annotated[Path | None, "Or a JSON file that holds it."] = None

    def __post_init__(self) -> None:
        if bool(self.schema) == (self.path is not None):
            raise ConfigError("json_schema needs either a 'schema' or a 'path'")
        if self.path is not None:
            found = files.peek_json(self.path)
            if not found:
                raise ConfigError(f"{self.path} holds no JSON Schema", hint="check the path")
            object.__setattr__(self, "schema", found)
        try:
            from jsonschema import SchemaError, validators
        except ImportError as error:
            raise DependencyError("jsonschema", "reward", "the reward json_schema") from error
        try:
            validators.validator_for(self.schema).check_schema(self.schema)
        except SchemaError as error:
            raise ConfigError(f"json_schema: not a JSON Schema: {error.message}") from error


def score(answer: Answer, config: Config) -> float:
    """1 or 0."""
    from jsonschema import validators

    try:
        value = json.loads(unfenced(answer.text))
    except (ValueError, RecursionError):
        return 0.0
    return float(validators.validator_for(config.schema)(config.schema).is_valid(value))
