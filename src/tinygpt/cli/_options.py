"""Options made from a config class: one flag per field, its help from the annotation, its default shown.

A flag that is not given leaves the field to the config file or the default, so the order is: defaults <
--config < flags < --set. A technique is chosen by its name (`--optimizer lion`); its own knobs are set with
`--set optimizer.beta1=0.95`."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from tinygpt.cli._render import Output
from tinygpt.core import config
from tinygpt.core.config import Field, Pick

C = TypeVar("C")

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML or JSON file of settings, or an earlier run.json.")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Set one nested setting; may be repeated.")
]


def from_config(
    cls: type[C],
    call: Callable[[C, Output], Any],
    *,
    arguments: Sequence[str] = (),
    rename: dict[str, str] | None = None,
) -> Callable[..., Any]:
    """A Typer function whose options are the fields of `cls`; it builds the config and hands it to `call`.

    `arguments` are fields taken by position; `rename` maps a field to another flag name.
    """
    rename = rename or {}
    known = {f.name: f for f in config.fields(cls)}

    def main(**given: Any) -> Any:
        out = Output(json=given.pop("json_"), quiet=given.pop("quiet"))
        path, settings = given.pop("config_file"), given.pop("set_")
        data = config.load_file(path) if path else {}
        data |= {name: _plain(value) for name, value in given.items() if value not in (None, [], ())}
        return call(config.from_dict(cls, config.override(data, settings or [])), out)

    parameters = [_argument(known[name]) for name in arguments]
    flagged = (f for f in known.values() if f.name not in arguments and not _is_table(f))
    parameters += [_option(f, rename.get(f.name, f.name)) for f in flagged]
    common = {"config_file": ConfigFile, "set_": Set, "json_": Json, "quiet": Quiet}
    for name, hint in common.items():
        default = False if hint in (Json, Quiet) else None
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
        )
    main.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    main.__annotations__ = {p.name: p.annotation for p in parameters}
    return main


def _is_table(f: Field) -> bool:
    """Tables have no flag of their own; `--set` reaches into them."""
    return f.type is dict or typing.get_origin(f.type) is dict


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


def _argument(f: Field) -> inspect.Parameter:
    hint = Annotated[_flag_type(f) | None, typer.Argument(help=f.help, show_default=False)]
    return inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)


def _option(f: Field, name: str) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    kind = _flag_type(f)
    default = "required" if f.required else shown(f.default)
    names: dict[str, Any] = {"help": f"{f.help} [{default}]" if default else f.help, "show_default": False}
    if f.family is not None or f.choices:
        choices = f.family.names() if f.family else list(f.choices)
        names |= {"metavar": "|".join(choices), "autocompletion": lambda: choices}
    # A switch that is on by default gets its negation; `--set name=false` serves the rare other case.
    flags = (f"{flag}/--no-{flag[2:]}",) if kind is bool and f.default else (flag,)
    hint = Annotated[kind | None, typer.Option(*flags, **names)]
    return inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)


def shown(default: Any) -> str:
    """A default as help shows it; empty when there is nothing worth showing."""
    if isinstance(default, Pick):
        return default.name
    if default in (None, (), "", {}) or isinstance(default, bool):
        return ""
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _flag_type(f: Field) -> Any:
    """The Python type that Typer should parse: a union keeps its first real member, a pick is a name."""
    kind = f.type
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(a for a in typing.get_args(kind) if a is not type(None))
    if kind is Pick or typing.get_origin(kind) is typing.Literal:
        return str
    if typing.get_origin(kind) in (tuple, list):
        return list[typing.get_args(kind)[0]]
    return kind if kind in (bool, int, float, Path) else str
