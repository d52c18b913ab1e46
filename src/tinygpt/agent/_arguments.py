"""Arguments of a call against the tool's JSON Schema, more strictly than it says.

An integer is written as one (1.0 is none), a number is finite, and names that the schema does not know are
refused unless it says what they may be. Schemas that lie elsewhere are not fetched.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from tinygpt.core.errors import ConfigError, DependencyError, nearest

# Keywords at the top by which a schema says more than its properties do.
_MORE = (
    "additionalProperties", "patternProperties", "unevaluatedProperties", "$ref", "$dynamicRef", "allOf",
    "anyOf", "oneOf", "if", "dependentSchemas",
)  # fmt: skip
DEEPEST = 32  # levels of lists and objects in a call


class Checker:
    """The schema of one tool. ConfigError where it is none, DependencyError without jsonschema."""

    def __init__(self, name: str, schema: Mapping[str, Any]) -> None:
        try:
            from jsonschema import SchemaError, validators
            from referencing import Registry
            from referencing.exceptions import Unresolvable
        except ImportError as error:
            raise DependencyError("jsonschema", "agent", "checking the arguments of tools") from error
        strict: dict[str, Any] = dict(schema)
        if not any(word in schema for word in _MORE):
            strict["additionalProperties"] = False
        self._known: list[str] = list(schema.get("properties") or ())
        base = validators.validator_for(strict)
        try:
            base.check_schema(strict)
        except SchemaError as error:
            raise ConfigError(f"tool '{name}': its parameters are no JSON Schema: {error.message}") from error
        if (far := next(_far(strict), None)) is not None:
            raise ConfigError(
                f"tool '{name}': $ref {far!r} leads elsewhere", hint="keep a schema in one piece"
            )
        kinds = base.TYPE_CHECKER.redefine_many({"integer": _integer, "number": _number})
        self._nowhere = Unresolvable
        self._check = validators.extend(base, type_checker=kinds)(strict, registry=Registry())

    def wrong(self, arguments: Mapping[str, Any]) -> str:
        """What is wrong with them in one line; "" where nothing is."""
        from jsonschema import exceptions

        try:
            found: Any = exceptions.best_match(self._check.iter_errors(arguments))
        except RecursionError:  # a schema that leads back to itself
            return "the arguments cannot be checked, since the schema has no end"
        except self._nowhere:
            return "the arguments cannot be checked, since a $ref of the schema leads nowhere"
        except OverflowError:  # an integer of hundreds of digits
            return "the arguments hold a number that is too large"
        if found is None:
            return ""
        place = "/".join(map(str, found.absolute_path))
        close = ""
        if found.validator == "additionalProperties" and not place:
            odd = next((str(key) for key in arguments if key not in self._known), "")
            close = nearest(odd, self._known)
        said = " ".join(f"{f'at {place}: ' if place else ''}{found.message}".split())
        return f"{said[:300]}{close}"


def plain(arguments: Any, most: int) -> tuple[dict[str, Any], int]:
    """A copy that nobody else can change, and its bytes as JSON. OverflowError: more than `most`, or nested
    too deeply; ValueError: what no JSON object of real text and numbers says."""
    if isinstance(arguments, str):
        if len(arguments) > most:
            raise OverflowError(f"{len(arguments)} letters")
        arguments = _read(arguments)
    if not isinstance(arguments, Mapping):
        raise ValueError("the arguments must be a JSON object")
    if _depth(arguments) > DEEPEST:
        raise OverflowError(f"more than {DEEPEST} levels of lists and objects")
    try:
        text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError) as error:  # also half of a surrogate pair
        raise ValueError(f"the arguments cannot be written as JSON: {error}") from error
    if size > most:
        raise OverflowError(f"{size} bytes")
    return json.loads(text), size


def _read(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except RecursionError as error:
        raise OverflowError(f"more than {DEEPEST} levels of lists and objects") from error
    except ValueError as error:
        raise ValueError(f"the arguments are not JSON: {error}") from error


def _depth(value: Any) -> int:
    """Levels of lists and objects; counted one level at a time, since a model may nest any number."""
    depth, level = 0, [value]
    while level and depth <= DEEPEST:
        inner = [one for one in level if isinstance(one, Mapping | list)]
        level = [v for one in inner for v in (one.values() if isinstance(one, Mapping) else one)]
        depth += bool(inner)
        if not inner:
            break
    return depth


def _far(schema: Any) -> Any:
    """References to schemas that are not in this one."""
    level = [schema]
    while level:
        inner: list[Any] = []
        for one in level:
            if isinstance(one, Mapping):
                refs = [v for k, v in one.items() if k in ("$ref", "$dynamicRef") and isinstance(v, str)]
                yield from (ref for ref in refs if not ref.startswith("#"))
                inner += one.values()
            elif isinstance(one, list):
                inner += one
        level = inner


def _integer(checker: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(checker: Any, value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return _integer(checker, value)
