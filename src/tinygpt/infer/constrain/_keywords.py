"""Which keywords of JSON Schema are enforced, and the search for those that are not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any
from urllib.parse import unquote

from tinygpt.core.errors import ConfigError, nearest

SIZE, DEPTH = 1 << 16, 64  # characters of a schema, and how deep it may be nested
COUNT = 1 << 20  # the largest of minItems, maxLength and their like
STEPS = 10_000  # of multipleOf, without its decimal point: states of an automaton

DRAFTS = ("2020-12", "2019-09", "draft-07", "draft-06")
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
FORMATS = (
    "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid",
)  # fmt: skip
# What describes and forbids nothing.
NOTES = {
    "$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly",
    "writeOnly", "discriminator",
}  # fmt: skip
COUNTS = {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
MAPS = {"properties", "patternProperties"}
DEFINITIONS = {"$defs", "definitions"}
LISTS = {"anyOf", "allOf", "oneOf", "prefixItems"}
ONE = {"additionalProperties", "items", "additionalItems"}
ENFORCED = (
    NOTES | COUNTS | BOUNDS | MAPS | DEFINITIONS | LISTS | ONE
    | {"type", "enum", "const", "$ref", "required", "pattern", "format", "multipleOf"}
)  # fmt: skip
INSTEAD = {
    "nullable": 'write "type": [..., "null"]',
    "uniqueItems": "a list without equal items cannot be promised: leave it out and check the answer",
    "not": "say what is allowed instead",
    "if": "write the cases as anyOf",
    "dependencies": "write the cases as anyOf",
    "dependentRequired": "write the cases as anyOf",
    "id": "references go by their place: #/$defs/name",
    "$anchor": "references go by their place: #/$defs/name",
    "contentEncoding": "say it as a pattern",
}


def check(schema: Any) -> dict[str, Any]:
    """A copy of the schema in the words of the grammar engine; ConfigError at the first place that cannot be
    enforced."""
    if schema is False:
        raise ConfigError("the JSON schema is false: it allows nothing")
    if schema is True:
        return {}
    if not isinstance(schema, dict):
        raise ConfigError(f"a JSON schema must be an object, got {json.dumps(schema)[:40]}")
    try:
        text = json.dumps(schema, allow_nan=False)
    except (ValueError, TypeError) as error:  # a circle, a number that JSON has no word for, another type
        raise ConfigError(f"the JSON schema is no JSON: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"the JSON schema is nested too deep, at most {DEPTH} levels are taken") from error
    if len(text) > SIZE:
        raise ConfigError(
            f"the JSON schema has {len(text)} characters, at most {SIZE} are taken",
            hint="leave descriptions out",
        )
    copy: dict[str, Any] = json.loads(text)
    walk = _Walk(copy)
    walk.see(copy, "", 0)
    if not walk.ends():
        raise ConfigError("the JSON schema allows no finite value", hint="a required part contains itself")
    return copy


class _Walk:
    """One look at everything of a schema that an answer can come to."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root
        self.draft = str(root.get("$schema", DRAFTS[0]))
        if not any(draft in self.draft for draft in DRAFTS):
            raise _no("$schema", "", f"names the dialect {self.draft!r}", f"known: {', '.join(DRAFTS)}")
        self.tuples = "2020-12" not in self.draft  # `items` may be a list
        self._seen: dict[int, dict[str, Any]] = {}

    def see(self, schema: Any, at: str, depth: int) -> None:
        """Check a schema and all below it."""
        if isinstance(schema, bool):
            return
        if not isinstance(schema, dict):
            raise ConfigError(f"the JSON schema must have an object at #{at}, got {schema!r}")
        if depth > DEPTH:
            raise ConfigError(f"the JSON schema is nested deeper than {DEPTH} levels at #{at}")
        if id(schema) in self._seen:
            return
        self._seen[id(schema)] = schema
        for key in list(schema):
            self._keyword(schema, key, at)
        self._counted(schema, at)
        for key, value, place in self._below(schema, at):
            if key == "$ref":
                self.see(self._target(value, at), value[1:], depth + 1)
            else:
                self.see(value, place, depth + 1)

    def _below(self, schema: dict[str, Any], at: str) -> Iterator[tuple[str, Any, str]]:
        for key, value in schema.items():
            if key in MAPS:
                for name, one in _mapping(key, value, at).items():
                    yield key, one, f"{at}/{key}/{_escaped(name)}"
            elif key in LISTS or (key == "items" and isinstance(value, list)):
                for i, one in enumerate(_list(key, value, at)):
                    yield key, one, f"{at}/{key}/{i}"
            elif key in ONE or key == "$ref":
                yield key, value, f"{at}/{key}"

    def _keyword(self, schema: dict[str, Any], key: str, at: str) -> None:
        value = schema[key]
        if key == "uniqueItems" and value is False:
            del schema[key]  # says nothing
            return
        if key not in ENFORCED and (not key.startswith("x-") or key == "x-guidance"):
            hint = INSTEAD.get(key) or nearest(key, ENFORCED).strip() or "leave it out, and check the answer"
            raise _no(key, at, "cannot be enforced", hint)
        if key == "$id" and at:
            raise _no(key, at, "changes what references mean", "leave it out")
        if key == "$ref":
            self._target(value, at)
        elif key == "items" and isinstance(value, list) and not self.tuples:
            raise _no(key, at, "is a list, which 2020-12 calls prefixItems", 'or name "$schema" draft-07')
        elif key == "additionalItems" and not (self.tuples and isinstance(schema.get("items"), list)):
            raise _no(key, at, "means nothing here", "it belongs to a list of items under an older $schema")
        elif key == "prefixItems" and self.tuples:
            raise _no(key, at, f"is not known in {self.draft}", 'leave "$schema" out')
        elif check := CHECKS.get(key):
            check(key, value, at)
        if key == "pattern":
            schema[key] = _pattern(value, key, at)
        elif key == "patternProperties":
            schema[key] = {_pattern(name, key, at): one for name, one in value.items()}
        elif key == "oneOf" and "anyOf" not in schema and _differ(value):
            schema["anyOf"] = schema.pop(key)

    def _counted(self, schema: dict[str, Any], at: str) -> None:
        """Keys that are not named may come twice, and then count once."""
        least, named = schema.get("minProperties", 0), schema.get("properties", {})
        if least > len(schema.get("required", ())) + 1 and schema.get("additionalProperties") is not False:
            raise _no("minProperties", at, "cannot be enforced", "name the properties, and require them")
        if any(map(_odd_text, named)):
            raise ConfigError(f"the JSON schema names a property with a control character at #{at}")

    def _target(self, ref: Any, at: str) -> Any:
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise _no("$ref", at, f"refers to {ref!r}", "only places in the schema: #/$defs/name")
        found: Any = self.root
        for part in unquote(ref[1:]).split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            elif isinstance(found, dict) and name in found:
                found = found[name]
            else:
                raise _no("$ref", at, f"refers to {ref!r}, which is not there", "check the name")
        return found

    def ends(self) -> bool:
        """Whether some value of the schema is finite: whether what it demands does not contain itself."""
        ending: set[int] = set()
        grown = True
        while grown:
            found = {id(s) for s in self._seen.values() if id(s) not in ending and self._ends(s, ending)}
            grown = bool(found)
            ending |= found
        return id(self.root) in ending

    def _ends(self, schema: dict[str, Any], ending: set[int]) -> bool:
        def ends(one: Any) -> bool:
            return one is True or id(one) in ending

        if "$ref" in schema and not ends(self._target(schema["$ref"], "")):
            return False
        if not all(map(ends, schema.get("allOf", ()))):
            return False
        if any(key in schema and not any(map(ends, schema[key])) for key in ("anyOf", "oneOf")):
            return False
        said = schema.get("type", TYPES)
        kinds = {said} if isinstance(said, str) else set(said)
        if kinds - {"object", "array"} or "enum" in schema or "const" in schema:
            return True
        of_object = "object" in kinds and all(
            ends(schema.get("properties", {}).get(name, True)) for name in schema.get("required", ())
        )
        return of_object or ("array" in kinds and all(map(ends, self._demanded(schema))))

    def _demanded(self, schema: dict[str, Any]) -> list[Any]:
        """Schemas of the items that a list must have."""
        items, least = schema.get("items", True), schema.get("minItems", 0)
        first = items if isinstance(items, list) else schema.get("prefixItems", [])
        rest = schema.get("additionalItems", True) if isinstance(items, list) else items
        return [*first[:least], *([rest] if least > len(first) else [])]


def _pattern(pattern: str, key: str, at: str) -> str:
    """A pattern of ECMA-262 as the grammar engine reads it: there, classes may hold classes and operators."""
    out, inside, chars = "", False, iter(pattern)
    for char in chars:
        if char == "\\":
            out += char + next(chars, "")
            continue
        if inside and char in "[&~":
            char = "\\" + char
        elif inside and char == "-" and out.endswith("-"):
            raise _no(key, at, f"{pattern!r} has '--' in a class", "escape the second one: \\-")
        elif char in "[]":
            inside = char == "["
        out += char
    return out


def _differ(branches: list[Any]) -> bool:
    """Whether the branches of a oneOf list their values, and no value is in two of them."""
    seen: set[str] = set()
    for branch in branches:
        if not isinstance(branch, dict) or not ("const" in branch or isinstance(branch.get("enum"), list)):
            return False
        values = [branch["const"]] if "const" in branch else branch["enum"]
        own = {json.dumps(_whole(value), sort_keys=True) for value in values}
        if own & seen:
            return False
        seen |= own
    return True


def _whole(value: Any) -> Any:
    """The value with 1.0 as 1, which JSON Schema says are equal."""
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _no(key: str, at: str, why: str, hint: str) -> ConfigError:
    return ConfigError(f"the JSON schema's '{key}' at #{at} {why}", hint=hint)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _odd_text(value: Any) -> bool:
    """Whether it holds a control character that has no short escape."""
    if isinstance(value, str):
        return any((ord(c) < 32 and c not in "\b\f\n\r\t") or ord(c) == 127 for c in value)
    if isinstance(value, Mapping):
        return any(map(_odd_text, [*value, *value.values()]))
    return isinstance(value, list) and any(map(_odd_text, value))


def _mapping(key: str, value: Any, at: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _no(key, at, "must be an object", "see json-schema.org")
    return value


def _list(key: str, value: Any, at: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise _no(key, at, "must be a list that is not empty", "see json-schema.org")
    return value


def _type(key: str, value: Any, at: str) -> None:
    for one in _list(key, value, at) if isinstance(value, list) else [value]:
        if one not in TYPES:
            raise _no(key, at, f"is {one!r}", f"known: {', '.join(TYPES)}")


def _values(key: str, value: Any, at: str) -> None:
    for one in _list(key, value, at) if key == "enum" else [value]:
        if _odd_text(one):
            raise _no(key, at, "holds a control character", "it cannot be written without a \\u escape")


def _names(key: str, value: Any, at: str) -> None:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _no(key, at, "must be a list of names", "see json-schema.org")
    if any(map(_odd_text, value)):
        raise _no(key, at, "holds a control character", "it cannot be written without a \\u escape")


def _text(key: str, value: Any, at: str) -> None:
    if not isinstance(value, str):
        raise _no(key, at, f"must be a text, got {value!r}", "see json-schema.org")


def _format(key: str, value: Any, at: str) -> None:
    if value not in FORMATS:
        raise _no(key, at, f"is {value!r}, which cannot be enforced", f"known: {', '.join(FORMATS)}")


def _number(key: str, value: Any, at: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _no(key, at, f"must be a number, got {value!r}", "see json-schema.org")


def _count(key: str, value: Any, at: str) -> None:
    _number(key, value, at)
    if not isinstance(value, int) or not 0 <= value <= COUNT:
        raise _no(key, at, f"is {value!r}", f"a whole number from 0 to {COUNT} is taken")


def _multiple(key: str, value: Any, at: str) -> None:
    _number(key, value, at)
    if value <= 0:
        raise _no(key, at, f"is {value!r}", "it must be above 0")
    step = Fraction(str(value))
    while step.denominator > 1:
        step *= 10
    while step % 10 == 0:
        step /= 10
    if step > STEPS:
        raise _no(key, at, f"is {value!r}", f"at most {STEPS}, its decimal point and zeros left out")


CHECKS: dict[str, Callable[[str, Any, str], None]] = {
    "type": _type, "enum": _values, "const": _values, "required": _names, "pattern": _text,
    "format": _format, "multipleOf": _multiple, **dict.fromkeys(COUNTS, _count),
    **dict.fromkeys(BOUNDS, _number), **dict.fromkeys(MAPS | DEFINITIONS, _mapping),
    **dict.fromkeys(LISTS, _list),
}  # fmt: skip
