"""Flags made from a config class."""

from __future__ import annotations

import importlib
import inspect
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer

from tinygpt.cli import _options
from tinygpt.cli._knobs import Knob
from tinygpt.core.config import Pick, resolve_picks
from tinygpt.core.errors import ConfigError
from tinygpt.core.family import Family
from tinygpt.infer.config import SampleConfig
from tinygpt.runs import pretrain, sft


@dataclass(frozen=True, kw_only=True)
class Config:
    """One field of each kind."""

    model: Annotated[Path, "Where."]
    steps: Annotated[int | None, "How many."] = None
    lr: Annotated[float, "Rate."] = 1e-3
    compile: Annotated[bool, "Compile."] = True
    strict: Annotated[bool, "Strict."] = False
    corpus: Annotated[tuple[Path, ...], "Files."] = ()
    exclude: Annotated[tuple[str, ...], "Names."] = ()
    stop: Annotated[tuple[str, ...], "Texts."] = ()
    dtype: Annotated[Literal["auto", "float32"], "Type."] = "auto"
    max_tokens: Annotated[int, "Longest."] = 200
    optimizer: Annotated[Pick, "Optimizer.", Family("tinygpt.train.optim")] = Pick("adamw")
    extra: Annotated[dict[str, Any], "A table."] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        resolve_picks(self)


@pytest.fixture
def seen() -> list[Any]:
    return []


def parser(cls: type, seen: list[Any], **more: Any) -> Any:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(_options.from_config(cls, lambda *given: seen.append(given), **more))

    def parse(*words: str) -> Any:
        app(list(words), standalone_mode=False)
        return seen[-1][0]

    return parse


@pytest.fixture
def run(seen: list[Any]) -> Any:
    """Parse a command line; gives the config that the command would get."""
    return parser(Config, seen, arguments=("model",), rename={"max_tokens": "tokens"})


def test_defaults_and_flags(run: Any, seen: list[Any]) -> None:
    assert run("m") == Config(model=Path("m"))
    config = run(
        "m", "--steps", "5", "--lr", "0.5", "--no-compile", "--strict", "--corpus", "a", "--corpus", "b",
        "--dtype", "float32", "--tokens", "7", "--optimizer", "muon", "--json", "-q",
    )  # fmt: skip
    assert config == Config(
        model=Path("m"), steps=5, lr=0.5, compile=False, strict=True, corpus=(Path("a"), Path("b")),
        dtype="float32", max_tokens=7, optimizer=Pick("muon"),
    )  # fmt: skip
    assert seen[-1][1].json and seen[-1][1].quiet and not seen[0][1].json


def test_errors_name_the_option_that_was_typed() -> None:
    rename = {"max_tokens": "tokens"}
    with pytest.raises(ConfigError, match="^--tokens must be at least 1"):
        parser(SampleConfig, [], rename=rename)("--tokens", "0")
    with pytest.raises(ConfigError, match="'temperature'"):
        parser(SampleConfig, [], rename=rename)("--temperature", "-1", "--tokens", "1")


def test_the_order_is_defaults_file_flags_set(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        'model = "file"\nsteps = 1\nlr = 0.1\nstrict = true\n[optimizer]\nname = "adamw"\nbeta2 = 0.9\n'
    )
    config = run("--config", str(file), "--steps", "2", "--set", "lr=0.3", "--set", "optimizer.beta1=0.5")
    assert (config.model, config.steps, config.lr, config.strict) == (Path("file"), 2, 0.3, True)
    assert (config.optimizer.options.beta1, config.optimizer.options.beta2) == (0.5, 0.9)
    assert run("--config", str(file), "--set", "extra.deep.x=1").extra == {"deep": {"x": 1}}


def test_an_earlier_run_is_a_config_file(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"command": "train", "tinygpt": "9", "config": {"model": "m", "steps": 4}}))
    assert run("--config", str(file)).steps == 4


def test_errors_name_the_field(run: Any) -> None:
    with pytest.raises(ConfigError, match="'model' is required: Where."):
        run()
    with pytest.raises(ConfigError, match="'dtype' cannot be 'float23'"):
        run("m", "--dtype", "float23")
    with pytest.raises(ConfigError, match="unknown optimizer 'adam'. Did you mean 'adamw'"):
        run("m", "--optimizer", "adam")
    with pytest.raises(ConfigError, match="unknown config key 'step'. Did you mean 'steps'"):
        run("m", "--set", "step=1")


def test_a_second_name_and_a_knob_of_its_own(seen: list[Any]) -> None:
    knobs = {"beta2": "optimizer.beta2", "decay": "optimizer.weight_decay"}
    run = parser(Config, seen, arguments=("model",), also={"lr": "max_lr"}, knobs=knobs)
    config = run("m", "--max-lr", "0.5", "--beta2", "0.75", "--set", "optimizer.beta1=0.5")
    assert (config.lr, config.optimizer.options.beta1, config.optimizer.options.beta2) == (0.5, 0.5, 0.75)
    config = run("m", "--decay", "0.25", "--optimizer", "muon")
    assert (config.optimizer.name, config.optimizer.options.weight_decay) == ("muon", 0.25)
    assert run("m", "--beta2", "0.25", "--set", "optimizer.beta2=0.5").optimizer.options.beta2 == 0.5


def test_a_knob_beside_a_switch_that_fills_in_others(seen: list[Any]) -> None:
    run = parser(sft.Config, seen, arguments=("base",), knobs={"rank": "adapter.rank"})
    adapter = run("m", "--data", "d", "--out", "o", "--qlora", "--rank", "4").adapter
    assert (adapter.name, adapter.options.rank, adapter.options.targets) == ("dora", 4, ("all-linear",))


@pytest.mark.parametrize("command", ["sft", "dpo", "finetune"])
def test_how_a_base_is_packed_has_short_names(command: str) -> None:
    signature = inspect.signature(importlib.import_module(f"tinygpt.cli.tune.{command}").main)
    named = {n: p.annotation.__metadata__[0].param_decls or () for n, p in signature.parameters.items()}
    for flag in ("bits", "mode", "group_size"):
        assert f"--{flag.replace('_', '-')}" in named[f"qlora_{flag}"]
    assert {"rank", "alpha", "targets", "exclude"} <= set(named)


def test_a_knob_of_one_technique_alone(seen: list[Any], tmp_path: Path) -> None:
    knobs: dict[str, Any] = {
        "layers": "optimizer.layers",
        "galore_rank": Knob("optimizer.rank", "galore", chooses=True, off=0),
        "galore_every": Knob("optimizer.every", "galore"),
    }
    run = parser(Config, seen, arguments=("model",), knobs=knobs)
    galore = run("m", "--galore-rank", "8", "--galore-every", "5").optimizer
    assert (galore.name, galore.options.rank, galore.options.every) == ("galore", 8, 5)
    assert run("m", "--galore-rank", "0").optimizer.name == "adamw", "asks for nothing"
    assert run("m", "--galore-rank", "0", "--optimizer", "lisa").optimizer.name == "lisa"
    for words in (("--optimizer", "galore"), ("--set", "optimizer=galore")):
        assert run("m", "--galore-every", "5", *words).optimizer.options.every == 5
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"model": "m", "optimizer": {"name": "galore", "rank": 4, "scale": 0.5}}))
    options = run("--config", str(file), "--galore-every", "5").optimizer.options
    assert (options.rank, options.every, options.scale) == (4, 5, 0.5)
    assert run("--config", str(file), "--galore-rank", "0").optimizer.name == "adamw"
    for words, message in (
        (
            ("--galore-rank", "8", "--optimizer", "lisa"),
            "--galore-rank is about .* 'galore', but it is 'lisa'",
        ),
        (("--galore-every", "5", "--optimizer", "lisa"), "--galore-every is about the optimizer 'galore'"),
        (("--galore-every", "5"), "'galore', but it is 'adamw'"),
        (("--galore-rank", "0", "--optimizer", "galore"), "optimizer.rank must be at least 1, got 0"),
        (("--galore-rank", "8", "--set", "optimizer=lisa"), "'galore', but it is 'lisa'"),
        (("--layers", "3", "--optimizer", "lion"), "--layers: the optimizer 'lion' has no layers"),
    ):
        with pytest.raises(ConfigError, match=message):
            run("m", *words)


def test_a_knob_of_what_a_switch_chooses(seen: list[Any]) -> None:
    run = parser(pretrain.Config, seen, knobs={"warmup": "schedule.warmup", "decay": "schedule.decay"})
    start = ("--corpus", "c", "--out", "o", "--base", "b", "--decay", "9")
    schedule = run(*start, "--domain-adapt").schedule
    assert (schedule.name, schedule.options.warmup, schedule.options.decay) == ("wsd", 100, 9)
    with pytest.raises(ConfigError, match="--decay: the schedule 'cosine' has no decay"):
        run(*start)
    options = run(*start, "--warmup", "3", "--set", "schedule=wsd").schedule.options
    assert (options.warmup, options.decay) == (3, 9), "--set chooses a technique, and takes back no flag"


def test_what_would_be_ignored_is_refused(run: Any, seen: list[Any], tmp_path: Path) -> None:
    run = parser(Config, seen, arguments=("model",), needs={"dtype": "steps", "strict": "compile"})
    assert run("m", "--dtype", "float32", "--steps", "3").dtype == "float32"
    assert run("m", "--set", "dtype=auto").dtype == "auto", "the default, in a file or setting, says nothing"
    for words in (("--dtype", "auto"), ("--set", "dtype=float32")):
        with pytest.raises(ConfigError, match="--dtype means nothing without --steps"):
            run("m", *words)
    with pytest.raises(ConfigError, match="--strict means nothing without --compile"):
        run("m", "--strict", "--no-compile")
    run = parser(Config, seen, arguments=("model",), needs={"max_tokens": "strict", "lr": "max_tokens"})
    with pytest.raises(ConfigError, match="--max-tokens means nothing without --strict") as caught:
        run("m", "--max-tokens", "3")
    assert "--max-tokens" in caught.value.hint
    with pytest.raises(ConfigError, match="--lr means nothing without --max-tokens"):
        run("m", "--lr", "3", "--set", "max_tokens=0", "--strict")


def test_what_something_else_brings_along_is_refused(seen: list[Any], tmp_path: Path) -> None:
    run = parser(Config, seen, arguments=("model",), needs={"dtype": "no steps"})
    assert run("m", "--dtype", "auto").dtype == "auto" and run("m", "--steps", "3").steps == 3
    with pytest.raises(ConfigError, match="--dtype: the steps 3 brings its own"):
        run("m", "--dtype", "auto", "--steps", "3")
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"command": "train", "config": {"model": "m", "steps": 3, "dtype": "auto"}}))
    assert run("--config", str(file)).steps == 3, "an earlier run wrote its defaults down"


def test_names_come_with_commas_or_one_by_one(seen: list[Any]) -> None:
    run = parser(Config, seen, arguments=("model",))
    for words in (
        ("--exclude", "a*,b"), ("--exclude", "a*", "--exclude", "b"), ("--set", "exclude=a*, b"),
        ("--set", 'exclude=["a*", "b"]'),
    ):  # fmt: skip
        assert run("m", *words).exclude == ("a*", "b"), words
    assert run("m", "--set", 'exclude=["a,b"]').exclude == ("a,b",), "a name that has a comma"
    assert run("m", "--corpus", "a,b", "--corpus", "c").corpus == (Path("a,b"), Path("c"))
    assert run("m", "--stop", ", ", "--stop", "a,b").stop == (", ", "a,b"), "a text is taken as it is"


def test_long_lists_are_cut_in_help_only() -> None:
    names = [f"technique-{i}" for i in range(9)]
    assert _options.listed(names) == "technique-0|technique-1|technique-2|technique-3|technique-4|..."
    assert _options.listed(names[:3]) == "technique-0|technique-1|technique-2"


def test_help_shows_defaults_and_choices(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(_options.from_config(Config, lambda *_: None, arguments=("model",)))
    app(["--help"], standalone_mode=False)
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "--lr <float> Rate. [0.001]" in text
        and "--optimizer adafactor|adam8bit|adamw|galore|lion|lisa|muon|sgd|sophia|..." in text
    )
    assert "--dtype auto|float32" in text and "--no-compile" in text and "--no-strict" not in text
    assert "--extra" not in text, "a table is reached with --set"
