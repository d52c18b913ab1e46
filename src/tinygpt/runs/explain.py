"""Explain techniques from their own files: what, equation, paper, departures, knobs and how to set them."""

from __future__ import annotations

import ast
import dataclasses
import types
import typing
from pathlib import Path
from typing import Any

import tinygpt
from tinygpt.core import config
from tinygpt.core.config import Field, Pick
from tinygpt.core.errors import unknown
from tinygpt.runs._families import KINDS, Kind

# Reading a technique's file needs the repository's layout only for the path that is shown.
ROOT = Path(tinygpt.__file__).parent


def families() -> list[dict[str, Any]]:
    """Every family with its techniques' names and first lines; nothing is imported."""
    return [
        {
            "family": kind.name,
            "title": kind.title,
            "verb": kind.verb,
            "choose": kind.choose("NAME"),
            "techniques": {name: kind.family.summary(name) for name in kind.family.names()},
        }
        for kind in KINDS
    ]


def explain(name: str) -> list[dict[str, Any]]:
    """All that is called `name`: a family ("optimizer"), a technique ("adamw"), or both ("optim/adamw")."""
    head, slash, tail = name.partition("/")
    inside = [k for k in KINDS if head in k.called] if slash else list(KINDS)
    wanted = (tail or head).replace("-", "_")
    found = [technique(k, wanted) for k in inside if wanted in k.family.names()]
    if not slash:
        found += [technique(k, n) for k in KINDS if name in k.called for n in k.family.names()]
    if not found:
        names = {n for k in KINDS for n in k.family.names()} | {word for k in KINDS for word in k.called[1:]}
        raise unknown("technique", name, names)
    return found


def technique(kind: Kind, name: str) -> dict[str, Any]:
    """What one technique says about itself, and its knobs."""
    told = kind.family.describe(name)
    return {
        "name": name,
        "family": kind.name,
        "file": "src/tinygpt/" + str(kind.family.path(name).relative_to(ROOT)),
        **{key: value for key, value in dataclasses.asdict(told).items() if key != "name"},
        "choose": kind.choose(name),
        "knobs": [knob(kind, f) for f in knobs(kind, name)],
    }


def knobs(kind: Kind, name: str) -> tuple[Field, ...]:
    """The fields of the technique's Config; its file is imported only when it has one."""
    tree = ast.parse(kind.family.path(name).read_text(encoding="utf-8"))
    if not any(isinstance(node, ast.ClassDef) and node.name == "Config" for node in tree.body):
        return ()
    return config.fields(kind.family.config(name))


def knob(kind: Kind, f: Field) -> dict[str, Any]:
    """One knob: type, default, help, and the setting that changes it."""
    default = f.default.name if isinstance(f.default, Pick) else config.to_dict(f.default)
    shown = ",".join(map(str, default)) if isinstance(default, list) else str(default)
    return {
        "name": f.name,
        "type": type_name(f),
        "default": "required" if f.required else default,
        "help": f.help,
        "set": f"--set {kind.option}.{f.name}={'...' if f.required else shown}" if kind.option else "",
    }


def type_name(f: Field) -> str:
    """A field's type as a person reads it: choices spelled out."""
    if f.choices:
        return "|".join(f.choices)
    inner = typing.get_args(f.type)
    if typing.get_origin(f.type) in (typing.Union, types.UnionType):
        return " or ".join("none" if a is type(None) else a.__name__ for a in inner)
    return f"list of {inner[0].__name__}" if inner else f.type.__name__
