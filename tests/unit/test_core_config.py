"""Strict configs: nothing unknown passes, every source says where it is wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from tinygpt.core.config import Pick, fields, from_dict, load_file, override, resolve_picks, to_dict
from tinygpt.core.errors import ConfigError, DependencyError, GateFailed, TinyGPTError
from tinygpt.core.family import Family

OPTIM = Family("tinygpt.train.optim")


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: Annotated[float, "A rate."] = 0.5
    mode: Annotated[Literal["fast", "slow"], "How."] = "fast"


@dataclass(frozen=True, kw_only=True)
class Outer:
    out: Annotated[Path, "Where to write."]
    steps: Annotated[int, "How many."] = 10
    resume: Annotated[bool, "Go on."] = False
    seed: Annotated[int | None, "Seed."] = None
    names: Annotated[tuple[str, ...], "Some names."] = ()
    inner: Annotated[Inner, "Nested."] = field(default_factory=Inner)
    optimizer: Annotated[Pick, "What turns gradients into steps.", OPTIM] = Pick("adamw")

    def __post_init__(self) -> None:
        resolve_picks(self)


def build(**data: Any) -> Outer:
    return from_dict(Outer, {"out": "x", **data})


def test_round_trip_through_json() -> None:
    config = build(
        steps=3, names=["a", "b"], inner={"mode": "slow"}, optimizer={"name": "adamw", "beta2": 0.9}
    )
    assert config.out == Path("x") and config.optimizer.options.beta2 == 0.9
    again = from_dict(Outer, json.loads(json.dumps(to_dict(config))))
    assert again == config and to_dict(again) == to_dict(config)
    # Defaults are resolved too, so that run.json says everything.
    assert to_dict(build())["optimizer"] == {"name": "adamw", **to_dict(OPTIM.config("adamw")())}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"stepz": 3}, r"unknown config key 'stepz'\. Did you mean 'steps'"),
        ({"inner": {"rte": 1}}, r"unknown config key 'inner\.rte'\. Did you mean 'rate'"),
        ({"optimizer": "adamv"}, r"unknown optimizer 'adamv'\. Did you mean 'adamw'"),
        ({"optimizer": {"name": "adamw", "bta2": 1}}, r"'optimizer\.bta2'\. Did you mean 'beta2'"),
        ({"optimizer": 3}, "a technique's name or a table with a 'name'"),
        ({"optimizer": {"name": "adamw", "beta1": 1.5}}, r"optimizer\.beta1 must be in \[0, 1\)"),
        ({"inner": {"mode": "fas"}}, r"'inner\.mode' cannot be 'fas'\. Did you mean 'fast'"),
        ({"inner": 3}, "'inner' must be a table"),
        ({"steps": 1.5}, "'steps' must be a whole number, got 1.5"),
        ({"steps": True}, "'steps' must be a whole number"),
        ({"steps": "ten"}, "'steps' must be a whole number"),
        ({"inner": {"rate": "nan"}}, r"'inner\.rate' must be a number"),
        ({"inner": {"rate": float("inf")}}, r"'inner\.rate' must be a number"),
        ({"resume": "maybe"}, "'resume' must be true or false"),
        ({"names": 3}, "'names' must be a list"),
        ({"out": 3}, "'out' must be text"),
        ({"out": ""}, "'out' is empty, a path was expected"),
        ({"out": "a\0b"}, "'out' must be a path without zero bytes"),
        ({"names": ["a\ud800"]}, r"'names\[0\]' must be valid Unicode"),
        ({"seed": -1}, "'seed' must not be negative, got -1"),
        ({"inner": {"rate": True}}, r"'inner\.rate' must be a number, got True"),
        ({"steps": "9" * 5000}, r"'steps' must be a whole number, got '9{100,200}\.\.\.$"),
        ({"steps": 10**400}, "'steps' must be a whole number"),
    ],
)
def test_wrong_values_are_named(data: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build(**data)


def test_a_missing_value_is_named_with_its_help() -> None:
    with pytest.raises(ConfigError, match="'out' is required: Where to write."):
        from_dict(Outer, {})


def test_text_and_whole_floats_are_converted() -> None:
    config = build(steps=1e3, resume="yes", names="a,b")
    assert (config.steps, config.resume, config.names) == (1000, True, ("a", "b"))
    assert type(config.steps) is int and build(steps=20.0).steps == 20
    assert build(names="a, b,,").names == ("a", "b") and build(names=["a,b"]).names == ("a,b",)
    assert build(seed=None).seed is None


def test_large_whole_numbers_keep_their_digits() -> None:
    assert build(seed=2**62 + 1).seed == 2**62 + 1
    settings = override(to_dict(build()), [f"seed={2**62 + 1}", "inner.rate=.5"])
    assert (from_dict(Outer, settings).seed, from_dict(Outer, settings).inner.rate) == (2**62 + 1, 0.5)


def test_a_number_that_is_told_as_text_is_refused() -> None:
    for wrong in ({"steps": "50"}, {"seed": "-1"}, {"inner": {"rate": "3e-4"}}):
        with pytest.raises(ConfigError, match="must be a (whole )?number, got '"):
            build(**wrong)


def test_a_key_that_a_file_says_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"steps": 1, "inner": {"rate": 1, "rate": 2}}')
    with pytest.raises(ConfigError, match=r"a\.json says 'rate' twice in one table"):
        load_file(path)


def test_overrides() -> None:
    data = to_dict(build())
    settings = [
        "steps=5",
        "inner.rate=2",
        "optimizer.beta2=0.9",
        'names=["a"]',
        "resume=true",
        "out=runs/a b",
        "seed=none",
    ]
    config = from_dict(Outer, override(data, settings))
    assert (config.steps, config.inner.rate, config.optimizer.options.beta2) == (5, 2.0, 0.9)
    assert (config.names, config.resume, config.out, config.seed) == (("a",), True, Path("runs/a b"), None)
    # A technique's name may stand where its table is, and its options follow.
    short = override({"out": "x", "optimizer": "adamw"}, ["optimizer.beta1=0.5"])
    assert from_dict(Outer, short).optimizer.options.beta1 == 0.5
    assert data == to_dict(build()), "the input is left as it was"
    assert override({}, ["out=2024-01-31"]) == {"out": "2024-01-31"}, "a date is text"


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("steps", "is not a setting"),
        ("=3", "is not a setting"),
        ("steps.a=1", "holds a value"),
        (f"{'.'.join('a' * 3000)}=1", "nested too deeply"),
        (f"a={'[' * 50}{']' * 50}", "nested too deeply"),
        ("names=[2024-01-31]", "'names.0' is a date"),
    ],  # fmt: skip
)
def test_malformed_overrides(setting: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        override(to_dict(build()), [setting])


def test_config_files(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('out = "x"\nsteps = 7\n[inner]\nmode = "slow"\n')
    config = from_dict(Outer, load_file(tmp_path / "a.toml"))
    assert (config.steps, config.inner.mode) == (7, "slow")
    # A run.json of an earlier run wraps its config.
    (tmp_path / "run.json").write_text(json.dumps({"command": "train", "config": to_dict(config)}))
    assert from_dict(Outer, load_file(tmp_path / "run.json")) == config
    for name, text, sentence in (
        ("b.toml", "steps = ", "not valid TOML"),
        ("b.json", "{", "not valid JSON"),
        ("c.json", "[1]", "one table of settings"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=sentence):
            load_file(tmp_path / name)
    (tmp_path / "d.toml").write_bytes(b"x = '\xff'")
    for name in ("d.toml", "missing.toml"):
        with pytest.raises(ConfigError, match=f"cannot read the config file .*{name}"):
            load_file(tmp_path / name)


def test_a_config_file_may_have_a_byte_order_mark_and_shout(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("steps = 7\n", encoding="utf-8-sig")
    (tmp_path / "A.JSON").write_text('{"steps": 7}', encoding="utf-8-sig")
    assert load_file(tmp_path / "a.toml") == load_file(tmp_path / "A.JSON") == {"steps": 7}


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.toml", "[inner]\nrate = 2024-01-31\n", r"a\.toml: 'inner\.rate' is a date or time, 2024-01-31"),
        ("a.toml", f"x = {'[' * 5000}{']' * 5000}", "nested too deeply"),
        ("a.json", '{"a":' * 50000 + "1" + "}" * 50000, "nested too deeply"),
        ("a.json", '{"a":' * 50 + "1" + "}" * 50, "nested too deeply"),
        ("a.toml", f"steps = {'9' * 5000}", "not valid TOML: a number has too many digits"),
        ("a.json", '{"steps": ' + "9" * 5000 + "}", "not valid JSON: a number has too many digits"),
        ("a.toml", f"steps = 0x{'f' * 5000}", "'steps' is too large a number"),
    ],
    ids=["date", "deep TOML", "deep JSON", "deeper than a config", "TOML digits", "JSON digits", "hex"],
)
def test_config_files_that_no_setting_can_hold(name: str, text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        load_file(tmp_path / name)


def test_fields_say_what_the_command_line_needs() -> None:
    by_name = {f.name: f for f in fields(Outer)}
    assert by_name["out"].required and not by_name["steps"].required
    assert by_name["steps"].help == "How many." and by_name["steps"].default == 10
    assert by_name["optimizer"].family == OPTIM
    assert {f.name: f for f in fields(Inner)}["mode"].choices == ("fast", "slow")


def test_a_pick_without_options_refuses_some() -> None:
    norm = Family("tinygpt.model.norm")
    assert Pick("rmsnorm").resolve(norm, "norm").options == {}
    with pytest.raises(ConfigError, match="'rmsnorm' has no options, got eps"):
        Pick("rmsnorm", {"eps": 1}).resolve(norm, "norm")


def test_families_read_the_folder() -> None:
    assert "adamw" in OPTIM.names() and OPTIM.kind == "optim"
    assert OPTIM.summary("adamw").startswith("AdamW:")
    told = OPTIM.describe("adamw")
    assert told.summary == OPTIM.summary("adamw")
    assert "1711.05101" in told.paper and "learning rate" in told.differs and "`m = b1 m" in told.body
    assert OPTIM.load("adamw").build is not None
    for missing in ("adam_w", "_adapter", "../update"):
        with pytest.raises(ConfigError, match="unknown optim"):
            OPTIM.path(missing)


def test_errors_have_hints_and_exit_codes() -> None:
    assert str(TinyGPTError("what", hint="do this")) == "what (do this)" and TinyGPTError.exit_code == 2
    assert GateFailed("no").exit_code == 1
    assert "pip install 'tinygpt[serve]'" in str(DependencyError("fastapi", "serve", "serving"))
