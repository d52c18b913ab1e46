"""Options made from a config class: one flag per field, its help from the annotation, its default shown.

A flag that is not given leaves the field to the config file or the default, so the order is: defaults <
--config < flags < --set. A technique is chosen by its name (`--optimizer lion`); its own knobs are set with
`--set optimizer.beta1=0.95`."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from tinygpt.cli import _knobs, _slots
from tinygpt.cli._knobs import Knob
from tinygpt.cli._render import Output
from tinygpt.core import config, hub
from tinygpt.core.config import Field, Pick
from tinygpt.core.errors import ConfigError

C = TypeVar("C")
WIDEST = 60  # letters of a list of names in a help page; what does not fit is left to completion
WHOLE = {"stop", "model", "lora"}  # texts with commas of their own; names and patterns are split at them

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
    rename: Mapping[str, str] | None = None,
    also: Mapping[str, str] | None = None,
    knobs: Mapping[str, str | Knob] | None = None,
    choices: Mapping[str, Sequence[str]] | None = None,
    needs: Mapping[str, str] | None = None,
    spares: Mapping[str, str] | None = None,
    slots: bool = False,
    omit: Sequence[str] = (),
) -> Callable[..., Any]:
    """A Typer function whose options are the fields of `cls`; it builds the config and hands it to `call`.

    `arguments` are fields taken by position, `omit` those without a flag, since the run always refuses them.
    `rename` maps a field to another flag name, `also` to a second one. `knobs` are flags of their own for a
    technique's setting: {"rank": "adapter.rank"}. `choices` are the names that a text field can have, for
    help and completion; the run checks them. `needs` maps a field to the one without which it means nothing,
    or to "no x" where x brings its own; `spares` maps one to the required paths that it does without, with
    spaces between. `slots`: the original's architecture flags too, which fill slots of the field `model`.
    """
    rename, also, choices = rename or {}, also or {}, choices or {}
    flags = {name: Knob(to) if isinstance(to, str) else to for name, to in (knobs or {}).items()}
    known = {f.name: f for f in config.fields(cls)}

    def main(**given: Any) -> Any:
        out = Output(json=given.pop("json_"), quiet=given.pop("quiet"))
        path, settings = given.pop("config_file"), given.pop("set_") or []
        given = {name: _plain(name, value) for name, value in given.items() if value not in (None, [], ())}
        filled = {name: given.pop(name) for name in _slots.FLAGS if slots and name in given}
        plain = {name: value for name, value in given.items() if name not in flags}
        data = _slots.fill((config.load_file(path) if path else {}) | plain, filled)
        data = _knobs.fill(known, data, given, flags, settings)
        data = _slots.check(data, filled)
        _check_needs(needs or {}, known, given, data)
        for name, others in (spares or {}).items():
            data = dict.fromkeys(others.split(), ".") | data if data.get(name) else data
        try:
            made = config.from_dict(cls, data)
        except ConfigError as error:
            for name in rename.keys() & given.keys():  # it is told under the name that was typed
                error.message = error.message.replace(f"'{name}'", config.flag(rename[name]))
            raise
        return call(_fetched(made, out), out)

    parameters = [_argument(known[name]) for name in arguments]
    for f in known.values():
        if f.name not in (*arguments, *omit) and not _is_table(f):
            names = [rename.get(f.name, f.name), *([also[f.name]] if f.name in also else [])]
            parameters.append(_option(f, names, choices.get(f.name, ())))
    parameters += [_option(_knobs.field(known, to), [name], (), named=name) for name, to in flags.items()]
    parameters += [_option(f, [f.name], ()) for f in (_slots.options() if slots else ())]
    common = {"config_file": ConfigFile, "set_": Set, "json_": Json, "quiet": Quiet}
    for name, hint in common.items():
        default = False if hint in (Json, Quiet) else None
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
        )
    main.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    main.__annotations__ = {p.name: p.annotation for p in parameters}
    return main


def _fetched(made: C, out: Output) -> C:
    """The config with its models of the hub fetched, and named by their commits."""
    values = [
        getattr(made, f.name) for f in config.fields(type(made)) if f.name == "tokenizer" or f.type is not str
    ]
    if not any(isinstance(v, str | Path) and hub.is_hub(v) for value in values for v in _each(value)):
        return made
    from tinygpt.runs._hub import pinned

    return pinned(made, out.events())


def fetched(path: Path, out: Output) -> Path:
    """A path of this machine: what lies on the hub is fetched, with a progress bar."""
    if not hub.is_hub(path):
        return path
    from tinygpt.runs._hub import fetch

    return fetch(path, out.events())


def _each(value: Any) -> Sequence[Any]:
    return value if isinstance(value, tuple) else (value,)


def _check_needs(
    needs: Mapping[str, str], known: Mapping[str, Field], given: Mapping[str, Any], data: Mapping[str, Any]
) -> None:
    """Refuse a setting that would be ignored, wherever it comes from."""
    for name, other in needs.items():
        said = name in given or data.get(name, known[name].default) != known[name].default
        unwanted, other = other.startswith("no "), other.removeprefix("no ")
        there, flag = data.get(other, known[other].default), config.flag(name)
        if unwanted and name in given and there:  # an earlier run.json holds defaults
            raise ConfigError(
                f"{flag}: the {other} {there} brings its own", hint=f"leave it out, or the {other}"
            )
        if not unwanted and said and not there:
            needed = config.flag(other)
            raise ConfigError(
                f"{flag} means nothing without {needed}", hint=f"add {needed}, or leave {flag} out"
            )


def _is_table(f: Field) -> bool:
    """Tables have no flag of their own; `--set` reaches into them."""
    return f.type is dict or typing.get_origin(f.type) is dict


def _plain(name: str, value: Any) -> Any:
    """A parsed value as a config file would have it. Names, given with commas or one by one, are joined: the
    config splits them."""
    if isinstance(value, list | tuple):
        items = [_plain(name, one) for one in value]
        return items if name in WHOLE or not isinstance(value[0], str) else ",".join(items)
    return str(value) if isinstance(value, Path) else value


def _argument(f: Field) -> inspect.Parameter:
    hint = Annotated[_flag_type(f) | None, typer.Argument(help=f.help, show_default=False)]
    return inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)


def _option(f: Field, names: Sequence[str], choices: Sequence[str], *, named: str = "") -> inspect.Parameter:
    flags = [config.flag(name) for name in names]
    kind = _flag_type(f)
    default = "required" if f.required else shown(f.default)
    more: dict[str, Any] = {"help": f"{f.help} [{default}]" if default else f.help, "show_default": False}
    if choices := choices or (f.family.names() if f.family else f.choices):
        more |= {"metavar": listed(choices), "autocompletion": lambda: list(choices)}
    elif typing.get_origin(kind) is list:
        more["metavar"] = f"<{typing.get_args(f.type)[0].__name__.lower()}>"
    # A switch that is on by default gets its negation; `--set name=false` serves the rare other case.
    if kind is bool and f.default:
        flags = [f"{flag}/--no-{flag[2:]}" for flag in flags]
    hint = Annotated[kind | None, typer.Option(*flags, **more)]
    return inspect.Parameter(named or f.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)


def listed(choices: Sequence[str]) -> str:
    """Names as a help page shows them; a long list is cut."""
    text = "|".join(choices)
    return text if len(text) <= WIDEST else text[: text.rindex("|", 0, WIDEST)] + "|..."


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
        one = typing.get_args(kind)[0]
        return list[str if one in (int, float) else one]  # numbers may come with commas: the config parses
    return kind if kind in (bool, int, float, Path) else str
