"""Every command answers --help, and refuses an unknown flag with the nearest one."""

from __future__ import annotations

import ast
import dataclasses
import importlib
from pathlib import Path
from typing import Any, get_origin

import pytest

from house.tree import ROOT
from tinygpt.cli import _exit, _root
from tinygpt.core import config
from tinygpt.core.config import Pick
from tinygpt.runs import explain

COMMANDS = list(_root.commands())


def call(*arguments: str) -> int:
    """A command line, in this process."""
    return _exit.run(lambda: _root.dispatch(list(arguments)))


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(name, "--help") == 0
    shown = capsys.readouterr().out
    assert _root.commands()[name].summary in " ".join(shown.split())
    assert f"tinygpt {name}" in shown.partition("Example")[2]
    assert "[default:" not in shown, "a default is shown as [10] everywhere"


@pytest.mark.parametrize("name", COMMANDS)
def test_unknown_flag(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(name, "--jsonn") == 2
    message = capsys.readouterr().err
    assert "--jsonn" in message and "'--json'" in message, message


def test_unknown_command_and_root_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("docter") == 2
    assert "'doctor'" in capsys.readouterr().err
    assert call("--versoin") == 2
    assert "'--version'" in capsys.readouterr().err


def test_front_page_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    shown = capsys.readouterr().out
    for name, command in _root.commands().items():
        assert name in shown and command.summary in shown


def configs() -> dict[str, type]:
    """Every config class of a run or of the CLI's options, by its dotted name."""
    found: dict[str, type] = {}
    for path in sorted((ROOT / "src/tinygpt/runs").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for cls in (n.name for n in tree.body if isinstance(n, ast.ClassDef)):
            made = getattr(importlib.import_module(f"tinygpt.runs.{path.stem}"), cls)
            if dataclasses.is_dataclass(made) and all(f.help for f in config.fields(made)):
                found[f"{path.stem}.{cls}"] = made
    return found


def users(kind: explain.Kind) -> list[type]:
    """Config classes in which the family can be chosen."""
    return [c for c in configs().values() if any(chooses(f, kind) for f in config.fields(c))]


def chooses(f: config.Field, kind: explain.Kind) -> bool:
    """Whether a field picks a technique of the family, itself or as a table of a model's fields."""
    first, dot, _ = kind.option.partition(".")
    nested = dot and get_origin(f.type) is dict
    return f.name == first and bool(nested or (f.family and f.family.package == kind.package))


CHOSEN = [k for k in explain.KINDS if k.option not in ("", "*")]


@pytest.mark.parametrize("kind", CHOSEN, ids=lambda k: k.name)
def test_explained_settings_work(kind: explain.Kind) -> None:
    """What `tinygpt explain` tells people to type is accepted, for every technique and knob."""
    assert users(kind), f"no run has the setting {kind.option}"
    for cls in users(kind):
        for name in kind.family.names():
            settings = [k["set"] for k in explain.technique(kind, name)["knobs"]]
            pick = resolved(
                cls, kind, [f"{kind.option}={name}", *(s.removeprefix("--set ") for s in settings)]
            )
            assert pick.name == name


@pytest.mark.parametrize("kind", CHOSEN, ids=lambda k: k.name)
def test_knobs_of_the_default_need_no_name(kind: explain.Kind) -> None:
    for cls in users(kind):
        default = resolved(cls, kind, [])
        for knob in explain.technique(kind, default.name)["knobs"]:
            assert resolved(cls, kind, [knob["set"].removeprefix("--set ")]).name == default.name


def resolved(cls: type, kind: explain.Kind, settings: list[str]) -> Pick:
    """The pick that a run of `cls` ends up with, given --set settings."""
    required: dict[str, Any] = {f.name: sample(f.type) for f in config.fields(cls) if f.required}
    made = config.from_dict(cls, config.override(required, settings))
    first, _, rest = kind.option.partition(".")
    if not rest:
        return getattr(made, first)
    from tinygpt.model.config import ModelConfig

    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    return getattr(config.from_dict(ModelConfig, {**sizes, **getattr(made, first)}), rest)


def sample(kind: Any) -> Any:
    """Some value of a type."""
    return {int: 1, float: 1.0, bool: True, str: "x", Path: "x"}.get(kind, ["x"])
