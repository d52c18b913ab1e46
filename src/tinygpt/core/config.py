"""Strict configuration: frozen dataclasses from and to dicts, TOML, JSON and `a.b=c` overrides.

A config class is a frozen keyword-only dataclass whose fields are `Annotated[type, "help", ...]`. Unknown
keys and wrong types are errors that name the field and the nearest known key. The resolved config of a run is
its `run.json`."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tinygpt.core import hub
from tinygpt.core.errors import ConfigError, nearest
from tinygpt.core.family import Family

T = TypeVar("T")
DEEPEST = 20  # tables in tables, of what a person writes
POINT = re.compile(r"[+-]?(\d+\.|\.\d+)([eE][+-]?\d+)?")  # numbers that are none in TOML


@dataclass(frozen=True)
class Pick:
    """One technique of a family, by name, with its own options (a dict until resolved, then its Config)."""

    name: str
    options: Any = None

    def resolve(self, family: Family, where: str) -> Pick:
        """The same pick with its options checked against the technique's Config."""
        cls = family.config(self.name)
        given = to_dict(self.options) if dataclasses.is_dataclass(self.options) else dict(self.options or {})
        if cls is None:
            if given:
                raise ConfigError(f"{where}: '{self.name}' has no options, got {', '.join(given)}")
            return Pick(self.name, {})
        return Pick(self.name, from_dict(cls, given, where))


@dataclass(frozen=True)
class Fills:
    """A note on a switch: settings that it fills in where none are given, wherever the others come from."""

    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Field:
    """What a config field says about itself; the CLI and the docs are made from this."""

    name: str
    type: Any
    help: str
    default: Any
    required: bool
    choices: tuple[str, ...]
    family: Family | None
    fills: Fills | None = None


@functools.cache
def fields(cls: type) -> tuple[Field, ...]:
    """The fields of a config class in order."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return tuple(_field(f, hints[f.name]) for f in dataclasses.fields(cls) if f.init)


def _field(f: dataclasses.Field[Any], hint: Any) -> Field:
    notes = getattr(hint, "__metadata__", ())
    kind = typing.get_args(hint)[0] if notes else hint
    text = next((n for n in notes if isinstance(n, str)), "")
    family = next((n for n in notes if isinstance(n, Family)), None)
    fills = next((n for n in notes if isinstance(n, Fills)), None)
    literal = typing.get_origin(kind) is typing.Literal
    choices = tuple(str(c) for c in typing.get_args(kind)) if literal else ()
    default: Any = f.default
    if f.default_factory is not dataclasses.MISSING:
        default = f.default_factory()
    required = default is dataclasses.MISSING
    return Field(f.name, kind, text, None if required else default, required, choices, family, fills)


def flag(name: str) -> str:
    """What a setting is called on the command line."""
    return "--" + name.replace("_", "-")


def changed(config: Any, names: Iterable[str]) -> str | None:
    """The first of these settings that is not what it is by default."""
    return next((name for name in names if getattr(config, name) != getattr(type(config), name)), None)


def as_table(pick: Any) -> dict[str, Any]:
    """A pick as a table: a file may give its name alone, or its knobs alone."""
    return {"name": pick} if isinstance(pick, str) else dict(pick) if isinstance(pick, Mapping) else {}


def refuse_idle(config: Any, needs: Mapping[str, str]) -> None:
    """ConfigError for a setting that was changed, but means nothing without the one that `needs` names."""
    for name, other in needs.items():
        if getattr(config, name) != getattr(type(config), name) and not getattr(config, other):
            said, needed = flag(name), flag(other)
            raise ConfigError(
                f"{said} means nothing without {needed}", hint=f"add {needed}, or leave {said} out"
            )


def to_dict(value: Any) -> Any:
    """Plain JSON data of a config, nested ones included; paths become strings, picks keep their options."""
    if isinstance(value, Pick):
        return {"name": value.name, **(to_dict(value.options) or {})}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Path):
        return hub.spelled(value)
    if isinstance(value, Mapping):
        return {str(k): to_dict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_dict(v) for v in value]
    return value


def from_dict(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Build a config, refusing unknown keys, missing ones and wrong types. `where` names the source in
    errors."""
    known = {f.name: f for f in fields(cls)}
    prefix = f"{where}." if where else ""
    for key in data:
        if key not in known:
            listed = f"known keys: {', '.join(known)}" if known else "it has no options"
            raise ConfigError(f"unknown config key '{prefix}{key}'.{nearest(key, known)}", hint=listed)
    for name, f in known.items():
        if f.fills is not None and name in data and _convert(f, bool, data[name], prefix + name):
            data = _beneath(f.fills.settings, data)
    values: dict[str, Any] = {}
    for name, f in known.items():
        if name in data:
            values[name] = _convert(f, f.type, data[name], prefix + name)
        elif f.required:
            raise ConfigError(f"'{prefix}{name}' is required: {f.help or f.type}")
    return cls(**values)


def _beneath(filled: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """`data`, with what it does not say filled in; another technique than the filled one comes without its
    options."""
    result = {**filled, **{name: value for name, value in data.items() if value is not None}}
    for name, value in filled.items():
        given = data.get(name)
        given = {"name": given} if isinstance(given, str) else given
        if isinstance(value, Mapping) and isinstance(given, Mapping):
            other = "name" in value and given.get("name", value["name"]) != value["name"]
            result[name] = given if other else {**value, **given}
    return result


def resolve_picks(config: Any) -> None:
    """Check and fill the options of every Pick of a frozen config; called from its `__post_init__`."""
    for f in fields(type(config)):
        value = getattr(config, f.name)
        if f.family is not None and isinstance(value, Pick):
            object.__setattr__(config, f.name, value.resolve(f.family, f.name))


def _convert(f: Field, kind: Any, value: Any, where: str) -> Any:
    """One value, checked and converted to its declared type."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        kinds = [a for a in args if a is not type(None)]
        for index, one in enumerate(kinds):
            try:
                return _convert(f, one, value, where)
            except ConfigError:
                if index == len(kinds) - 1:
                    raise
    if kind is Pick:
        assert f.family is not None, where
        pick = value if isinstance(value, Pick) else _pick(f, value, where)
        return pick.resolve(f.family, where)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if isinstance(value, kind):
            return value
        if not isinstance(value, Mapping):
            raise _wrong(where, "a table", value)
        return from_dict(kind, value, where)
    if origin in (list, tuple):
        if isinstance(value, str):
            parts = [part.strip() for part in value.split(",") if part.strip()]
            value = [_parse(part) for part in parts] if args and args[0] in (int, float) else parts
        if not isinstance(value, list | tuple):
            raise _wrong(where, "a list", value)
        return tuple(_convert(f, args[0] if args else str, v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict or kind is dict:
        if not isinstance(value, Mapping):
            raise _wrong(where, "a table", value)
        return value
    if kind is Any:
        return value
    return _scalar(f, kind, value, where)


def _pick(f: Field, value: Any, where: str) -> Pick:
    if isinstance(value, str):
        return Pick(value, {})
    if isinstance(value, Mapping):
        # `--set optimizer.beta2=0.99` names no technique: it means the default one.
        name = value.get("name", f.default.name if isinstance(f.default, Pick) else None)
        if isinstance(name, str):
            return Pick(name, {k: v for k, v in value.items() if k != "name"})
    raise _wrong(where, "a technique's name or a table with a 'name'", value)


def _scalar(f: Field, kind: Any, value: Any, where: str) -> Any:
    if typing.get_origin(kind) is typing.Literal or f.choices:
        if str(value) not in f.choices:
            close = nearest(str(value), f.choices)
            raise ConfigError(
                f"'{where}' cannot be '{value}'.{close}", hint=f"choose from: {', '.join(f.choices)}"
            )
        return value
    if kind is bool:
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "yes", "on", "1", "false", "no", "off", "0"):
            return str(value).lower() in ("true", "yes", "on", "1")
        raise _wrong(where, "true or false", value)
    if kind in (int, float):
        return _number(f, kind, value, where)
    if kind in (str, Path):
        return kind(_text(kind, value, where))
    raise AssertionError(f"config field {where} has a type this module does not know: {kind}")


def _number(f: Field, kind: Any, value: Any, where: str) -> int | float:
    """A finite number. A whole float is a fine int (1e3); a bool and a text are none."""
    try:
        number = value if kind is int and isinstance(value, int) else float(value)
        if isinstance(value, bool | str) or not math.isfinite(number) or kind(number) != number:
            raise ValueError(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise _wrong(where, "a whole number" if kind is int else "a number", value) from error
    if f.name == "seed" and number < 0:
        raise ConfigError(f"'{where}' must not be negative, got {value}")
    return kind(number)


def _text(kind: Any, value: Any, where: str) -> str:
    """A text that can be written to a file, or used as a path where it is one."""
    if not isinstance(value, str | Path):
        raise _wrong(where, "text", value)
    text = str(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON can spell
        raise _wrong(where, "valid Unicode", text) from error
    if kind is Path and not text:
        raise ConfigError(f"'{where}' is empty, a path was expected", hint="'.' is the current directory")
    if kind is Path and "\0" in text:
        raise _wrong(where, "a path without zero bytes", text)
    return text


def _wrong(where: str, expected: str, value: Any) -> ConfigError:
    got = repr(value)
    return ConfigError(f"'{where}' must be {expected}, got {got if len(got) < 200 else got[:200] + '...'}")


def load_file(path: Path) -> dict[str, Any]:
    """A TOML or JSON file as a dict. A `run.json` of an earlier run is such a file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigError(f"cannot read the config file {path}: {why}", hint="check the path") from error
    json_file = path.suffix.lower() == ".json"
    try:
        data = json.loads(text, object_pairs_hook=_once) if json_file else tomllib.loads(text)
    except _Twice as error:
        raise ConfigError(
            f"{path} says '{error}' twice in one table", hint="leave one of them out"
        ) from error
    except RecursionError as error:
        raise ConfigError(f"{path} is nested too deeply") from error
    except ValueError as error:
        why = "a number has too many digits" if type(error) is ValueError else error
        raise ConfigError(f"{path} is not valid {'JSON' if json_file else 'TOML'}: {why}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold one table of settings")
    _check_plain(data, str(path))
    # run.json wraps the config with the command and version that made it.
    return data["config"] if isinstance(data.get("config"), dict) and "command" in data else data


class _Twice(Exception):
    """A key that a table of JSON has twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A table of JSON; Python's own would let the last of equal keys win."""
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(key for key in keys if keys.count(key) > 1))
    return table


def _check_plain(value: Any, where: str, key: str = "", depth: int = 0) -> None:
    """Refuse what no setting can hold, and what could not be written to run.json."""
    if depth > DEEPEST:
        raise ConfigError(f"{where}: '{key[:60]}...' is nested too deeply")
    if isinstance(value, dict | list):
        inside = value.items() if isinstance(value, dict) else enumerate(value)
        for name, one in inside:
            _check_plain(one, where, f"{key}.{name}" if key else str(name), depth + 1)
    elif isinstance(value, int) and value.bit_length() > 1000:
        raise ConfigError(f"{where}: '{key}' is too large a number")
    elif value is not None and not isinstance(value, str | int | float):
        raise ConfigError(f"{where}: '{key}' is a date or time, {value}", hint="put it in quotes")


def override(data: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Apply `a.b=c` settings to a nested dict; a technique's name may stand where its table is expected."""
    result = json.loads(json.dumps(to_dict(data)))
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise ConfigError(
                f"'{setting}' is not a setting",
                hint="write it as a.b=value, for example optimizer.beta2=0.99",
            )
        *parents, last = key.strip().split(".")
        node: dict[str, Any] = result
        for parent in parents:
            child: Any = node.get(parent, {})
            node[parent] = child = {"name": child} if isinstance(child, str) else child
            if not isinstance(child, dict):
                raise ConfigError(f"'{setting}': '{parent}' holds a value, not a table")
            node = child
        node[last] = _parse(text.strip())
        _check_plain(result, "--set")
    return result


def _parse(text: str) -> Any:
    """A value as TOML would read it, or a number that begins or ends with a point; else the bare text. A date
    is text: no setting is one."""
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except (ValueError, RecursionError):
        if POINT.fullmatch(text):
            return float(text)
        return None if text in ("none", "null") else text
    return value if isinstance(value, str | int | float | dict | list) else text
