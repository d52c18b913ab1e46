"""A request's JSON read field by field: a wrong type or range is one clear line, null is the default."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from tinygpt.core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from fastapi import Request

T = TypeVar("T")
PARSED = "tinygpt.json"  # of a request's scope: its body, parsed
KINDS = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}


class FieldError(ConfigError):
    """A field is wrong; `param` is its path, `code` OpenAI's word for what is wrong with it."""

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.param, self.code = param, code


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    return KINDS.get(type(value), "a number")


async def read(request: Request) -> Fields:
    """The JSON object of a request's body, whatever its content type says; FieldError where it is none. Where
    the request came through the gate it has been parsed there."""
    if PARSED in request.scope:
        return Fields(request.scope[PARSED])
    return Fields(parse(await request.body()))


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. FieldError where there is none; also for numbers that JSON does not have and
    for halves of surrogate pairs, which no tokenizer can write."""
    if not body.strip():
        raise FieldError("the request has no body", hint="send a JSON object")
    try:
        value = json.loads(body.decode(), parse_constant=_refuse, parse_float=_number)
        if b"\\ud" in body or b"\\uD" in body:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise FieldError("the body holds half of a surrogate pair, which is no text") from None
    except RecursionError:
        raise FieldError("the body is nested too deeply") from None
    except ValueError as error:
        raise FieldError(f"the body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise FieldError(f"the body must be a JSON object, got {kind(value)}")
    return value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


class Fields:
    """An object whose fields are asked for by name and type. `path` is where it stands, for messages."""

    def __init__(self, data: Mapping[str, Any], path: str = "") -> None:
        self.data, self.path = data, path

    def __contains__(self, name: str) -> bool:
        """Whether a field is there and is not null."""
        return self.data.get(name) is not None

    def where(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def wrong(self, name: str, message: str, hint: str = "", code: str | None = None) -> FieldError:
        """The error for one field; its name comes first."""
        where = self.where(name)
        return FieldError(f"'{where}' {message}", param=where, code=code, hint=hint)

    def any(self, name: str) -> Any:
        return self.data.get(name)

    def _typed(self, name: str, types: type | tuple[type, ...], what: str) -> Any:
        value = self.data.get(name)
        if value is None or (isinstance(value, types) and (types is bool or not isinstance(value, bool))):
            return value
        raise self.wrong(name, f"must be {what}, got {kind(value)}")

    @overload
    def text(self, name: str, default: str) -> str: ...
    @overload
    def text(self, name: str, default: None = None) -> str | None: ...
    def text(self, name: str, default: str | None = None) -> str | None:
        value = self._typed(name, str, "a string")
        return default if value is None else value

    def needed(self, name: str) -> str:
        """A text that must be there and not be empty."""
        value = self.text(name)
        if not value:
            raise self.wrong(name, "is required")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._typed(name, bool, "true or false")
        return default if value is None else value

    def integer(
        self, name: str, low: int | None = None, high: int | None = None, default: int | None = None
    ) -> int | None:
        """A whole number; 3.0 is one."""
        value = self._typed(name, (int, float), "a whole number")
        if value is None:
            return default
        if isinstance(value, float):
            if not value.is_integer():
                raise self.wrong(name, f"must be a whole number, got {value}")
            value = int(value)
        return int(self._in(name, value, low, high))

    def number(
        self, name: str, low: float | None = None, high: float | None = None, default: float | None = None
    ) -> float | None:
        value = self._typed(name, (int, float), "a number")
        if value is None:
            return default
        try:
            value = float(value)
        except OverflowError:
            raise self.wrong(name, "is too large") from None
        return float(self._in(name, value, low, high))

    def _in(self, name: str, value: float, low: float | None, high: float | None) -> float:
        if (low is not None and value < low) or (high is not None and value > high):
            if low is None or high is None:
                bounds = f"at least {low}" if high is None else f"at most {high}"
            else:
                bounds = f"from {low} to {high}"
            raise self.wrong(name, f"must be {bounds}, got {str(value)[:40]}")
        return value

    def choice(self, name: str, names: Sequence[str], default: str) -> str:
        """One of `names`."""
        value = self.text(name, default)
        if value not in names:
            known = ", ".join(f"'{known}'" for known in names)
            raise self.wrong(name, f"must be one of {known}, got '{value[:80]}'")
        return value

    def texts(self, name: str, most: int, *, empty: bool = False) -> tuple[str, ...]:
        """A text or a list of at most so many; none of them empty, unless that is said."""
        value = self._typed(name, (str, list), "a string or a list of strings")
        if value is None:
            return ()
        found: list[Any] = [value] if isinstance(value, str) else value
        if len(found) > most:
            raise self.wrong(name, f"may have at most {most} entries, got {len(found)}")
        for i, text in enumerate(found):
            if not isinstance(text, str):
                raise self.wrong(f"{name}[{i}]", f"must be a string, got {kind(text)}")
            if not (text or empty):
                raise self.wrong(name, "holds an empty text")
        return tuple(found)

    def object(self, name: str) -> Fields | None:
        value = self._typed(name, dict, "an object")
        return None if value is None else Fields(value, self.where(name))

    def objects(self, name: str, most: int) -> list[Fields]:
        """A list of objects; none where it is absent."""
        value = self._typed(name, list, "a list of objects") or []
        if len(value) > most:
            raise self.wrong(name, f"may have at most {most} entries, got {len(value)}")
        for i, item in enumerate(value):
            if not isinstance(item, dict):
                raise self.wrong(f"{name}[{i}]", f"must be an object, got {kind(item)}")
        return [Fields(item, f"{self.where(name)}[{i}]") for i, item in enumerate(value)]

    def refuse(self, name: str, why: str, but: Sequence[Any] = ()) -> None:
        """An error where a field is there that cannot be done, unless it says what is so anyway."""
        value = self.data.get(name)
        if value is not None and value not in ("", [], {}, False) and value not in but:
            raise self.wrong(name, why)

    def only(self, names: Sequence[str]) -> None:
        """An error for a field that nobody knows."""
        for name in self.data:
            if name not in names:
                raise self.wrong(name, f"is not known.{nearest(name, names)}")


def function_tools(tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tools as templates take them, by one name each; ConfigError where a name is used twice."""
    names = [tool["function"]["name"] for tool in tools]
    if (twice := next((name for name in names if names.count(name) > 1), None)) is not None:
        raise FieldError(f"two tools have the name '{twice}'", param="tools")
    return tools


def document(required: Sequence[str], **fields: str) -> dict[str, Any]:
    """OpenAPI's description of a JSON body, for `openapi_extra`; a field's type is that of JSON Schema, and
    "" any. What else is in a body is let pass, and null is the default."""
    properties = {
        name.rstrip("_"): {"type": kinds.split("|") + ([] if name in required else ["null"])} if kinds else {}
        for name, kinds in fields.items()
    }
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
