"""Flags of their own for a technique's knobs: `--warmup 10` is `--set schedule.warmup=10`.

They are names for settings, nothing else, and come before `--set`. A flag whose technique is not the one that
is chosen, or has no such knob, is refused in its own words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from tinygpt.core import config
from tinygpt.core.config import Field, Pick, as_table, flag
from tinygpt.core.errors import ConfigError


class Knob(NamedTuple):
    """What a flag sets: a knob of whatever technique is chosen, or of one technique alone."""

    setting: str  # "schedule.warmup"
    technique: str = ""  # the only one that the flag is about
    chooses: bool = False  # whether the flag asks for that technique, too
    off: int | None = None  # the value that asks for nothing, as it was the original's default


def field(known: Mapping[str, Field], knob: Knob) -> Field:
    """The field behind a flag, for the page of help: of its technique, else of the default one, else of the
    first that has it."""
    pick, last = _split(known, knob)
    assert pick.family is not None and isinstance(pick.default, Pick), knob
    names = [knob.technique] if knob.technique else [pick.default.name, *pick.family.names()]
    f = next(f for name in names for f in _fields(pick, name) if f.name == last)
    where = f"{knob.setting} of {knob.technique}" if knob.technique else knob.setting
    # Not given, the flag of one technique leaves things as they are.
    default = None if knob.technique else f.default
    return replace(f, help=f"{f.help.removesuffix('.')} ({where}).", default=default)


def fill(
    known: Mapping[str, Field],
    data: Mapping[str, Any],
    given: Mapping[str, Any],
    knobs: Mapping[str, Knob],
    settings: list[str],
) -> dict[str, Any]:
    """Settings with the flags of `knobs` in them, and those of --set on top. `given` has all flags: a
    technique that is chosen by name there goes before what another flag asks for."""
    data, acting = dict(data), dict[str, Knob]()
    for name, knob in ((n, knobs[n]) for n in knobs if n in given):
        first = knob.setting.partition(".")[0]
        table = as_table(data.get(first))
        if given[name] == knob.off and given.get(first) != knob.technique:
            if table.get("name") == knob.technique:
                del data[first]  # a flag turns off what a file says
            continue
        if knob.chooses and first not in given and table.get("name") != knob.technique:
            data[first] = {"name": knob.technique}
        acting[name] = knob
    data = config.override(data, [f"{knob.setting}={given[name]}" for name, knob in acting.items()])
    found = config.override(data, settings)
    for name, knob in acting.items():
        first, _, last = knob.setting.partition(".")
        if isinstance(found.get(first), str):  # --set schedule=wsd chooses, and says nothing of knobs
            found[first] = {"name": found[first], last: data[first][last]}
        elif isinstance(found.get(first), dict):
            found[first].setdefault(last, data[first][last])
        _check(known, found, name, knob)
    return found


def _check(known: Mapping[str, Field], data: Mapping[str, Any], name: str, knob: Knob) -> None:
    """Refuse a flag that says nothing of the technique that is chosen."""
    pick, last = _split(known, knob)
    chosen, said = _chosen(known, data, pick), flag(name)
    assert pick.family is not None
    if chosen not in pick.family.names():
        return  # refused where settings are checked
    noun = pick.name
    if knob.technique and chosen != knob.technique:
        raise ConfigError(
            f"{said} is about the {noun.replace('_', ' ')} '{knob.technique}', but it is '{chosen}'",
            hint=f"{flag(noun)} {knob.technique}, or leave {said} out",
        )
    if last not in {f.name for f in _fields(pick, chosen)}:
        have = [n for n in pick.family.names() if last in {f.name for f in _fields(pick, n)}]
        raise ConfigError(
            f"{said}: the {noun.replace('_', ' ')} '{chosen}' has no {last}",
            hint=f"{flag(noun)} {' or '.join(have)} has one, or leave {said} out",
        )


def _chosen(known: Mapping[str, Field], data: Mapping[str, Any], pick: Field) -> Any:
    """The name of the technique that a setting ends up with: named, filled in by a switch, or the default."""
    if (name := as_table(data.get(pick.name)).get("name")) is not None:
        return name
    for f in known.values():
        filled = f.fills.settings.get(pick.name) if f.fills is not None and data.get(f.name) else None
        if (name := as_table(filled).get("name")) is not None:
            return name
    return pick.default.name if isinstance(pick.default, Pick) else None


def _split(known: Mapping[str, Field], knob: Knob) -> tuple[Field, str]:
    first, _, last = knob.setting.partition(".")
    return known[first], last


def _fields(pick: Field, technique: str) -> tuple[Field, ...]:
    assert pick.family is not None
    cls = pick.family.config(technique)
    return () if cls is None else config.fields(cls)
