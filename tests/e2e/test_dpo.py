"""Preference tuning on the command line: what it learns, stop and resume, the reference, bad rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from e2e.shell import NANO, good, preferences, refused, tinygpt
from tinygpt.core import files
from tinygpt.model import checkpoint

KNOBS = ("--batch", 8, "--seed", 3, "--no-compile", "--json", "--schedule", "constant", "--context", 64)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small base, pairs, and an adapter of the base that sft made."""
    folder = tmp_path_factory.mktemp("dpo")
    preferences(folder / "pairs.jsonl")
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    said = [{"prompt": r["prompt"], "completion": r["chosen"]} for r in rows]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in said), encoding="utf-8")
    usual = ("--data", folder / "rows.jsonl", "--seed", 1, "--no-lock", "--steps", 2, "--batch", 4)
    good("sft", *usual, "--out", folder / "base", *NANO, "--context", 96)
    good("sft", folder / "base", *usual, "--out", folder / "sft", "--lr", 0.02)
    return folder


def dpo(root: Path, out: str, *more: object) -> tuple[object, ...]:
    return ("dpo", root / "base", "--data", root / "pairs.jsonl", "--out", root / out, *KNOBS, *more)


def told(root: Path, out: str, kind: str) -> list[dict[str, Any]]:
    lines = (root / out / "events.jsonl").read_text().splitlines()
    return [e for e in map(json.loads, lines) if e["kind"] == kind]


@pytest.mark.parametrize("how", ["adapter", "full", "started"])
def test_the_first_step_prints_log_2_and_preferences_are_learned(how: str, root: Path) -> None:
    more = {"adapter": (), "full": ("--full",), "started": ("--start-adapter", root / "sft")}[how]
    done = good(*dpo(root, how, *more, "--steps", 12, "--lr", 5e-3, "--held-out", 0.2, "--eval-every", 12))
    steps = told(root, how, "train.step")
    assert f"{steps[0]['loss']:.4f}" == "0.6931"
    assert {
        "accuracy",
        "margin",
        "chosen_reward",
        "rejected_reward",
        "chosen_logp",
        "rejected_logp",
    } <= steps[0]["metrics"].keys()
    held = told(root, how, "train.eval")[-1]["metrics"]
    assert held["accuracy"] > 0.9 and held["margin"] > 0.02 and held["loss"] < 0.68
    assert done.json["metrics"]["accuracy"] == held["accuracy"]
    kind = checkpoint.read_json(root / how / "final" / "tinygpt.json")["kind"]
    assert kind == ("model" if how == "full" else "adapter")
    base = () if how == "full" else (root / "base", "--adapter")
    good("sample", *base, root / how, "--prompt", "1?", "--tokens", 2)


def test_the_reference_is_where_an_adapter_starts(root: Path) -> None:
    """With the base as the reference a started adapter would be ahead of it already."""
    good(*dpo(root, "own", "--start-adapter", root / "sft", "--steps", 1))
    good(*dpo(root, "other", "--start-adapter", root / "sft", "--reference", root / "base", "--steps", 1))
    own, other = (told(root, name, "train.step")[0] for name in ("own", "other"))
    assert abs(own["metrics"]["chosen_reward"]) < 1e-4 < abs(other["metrics"]["chosen_reward"])
    assert own["metrics"]["chosen_logp"] == other["metrics"]["chosen_logp"]


def test_a_packed_base_is_its_own_reference(root: Path) -> None:
    """Log-probabilities of the dense base, or of another packing, are kept as those of other models."""
    packed = ("--qlora", "--group-size", 32, "--steps", 1)
    good("sft", root / "base", "--data", root / "rows.jsonl", "--seed", 1, "--no-lock", "--batch", 4,
         "--out", root / "packed-sft", *packed)  # fmt: skip
    start = ("--start-adapter", root / "packed-sft", "--steps", 1)
    for i, how in enumerate((("--steps", 1), (*packed, "--bits", 2), packed, start)):
        good(*dpo(root, f"held-{i}", *how))
        first = told(root, f"held-{i}", "train.step")[0]
        assert f"{first['loss']:.4f}" == "0.6931", how
    made = [checkpoint.read_json(root / name / "final" / "tinygpt.json") for name in ("packed-sft", "held-3")]
    assert made[0]["packed"] == made[1]["packed"], "it goes on with the base as it was packed"
    refused(tinygpt(*dpo(root, "x", *start, "--qlora")), "packs the base as it was", hint="--qlora")


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_stop_and_resume_is_straight(loss: str, root: Path) -> None:
    knobs = ("--loss-type", loss, "--steps", 6, "--save-every", 2, "--keep", 9, "--accumulate", 2)
    good(*dpo(root, f"straight-{loss}", *knobs))
    good(*dpo(root, f"again-{loss}", *knobs))
    again, straight = root / f"again-{loss}", root / f"straight-{loss}"
    for gone in ("final", "steps/000004", "steps/000006"):
        files.remove_directory(again / gone)
    assert good(*dpo(root, f"again-{loss}", *knobs, "--resume")).json["step"] == 6
    for name in ("adapter_model.safetensors", "optimizer.safetensors"):
        assert (again / "steps/000006" / name).read_bytes() == (straight / "steps/000006" / name).read_bytes()
    refused(tinygpt(*dpo(root, f"again-{loss}", *knobs, "--beta", 0.3, "--resume")), "loss_type")


def test_the_reference_is_computed_once(root: Path) -> None:
    knobs = ("--steps", 1, "--context", 61)
    found = [
        told(root, name, "run.started")[0]["facts"]["reference_cached"]
        for name in ("first", "second")
        if good(*dpo(root, name, *knobs))
    ]
    assert found == [False, True]
    kept = max(files.cache_dir("reference").glob("*.json"), key=lambda p: p.stat().st_mtime_ns)
    kept.write_text("{", encoding="utf-8")
    done = good(*dpo(root, "third", *knobs))
    assert "is damaged" in done.err and not told(root, "third", "run.started")[0]["facts"]["reference_cached"]
    assert [told(root, n, "train.step")[0]["loss"] for n in ("first", "third")][0] == pytest.approx(
        0.693147, abs=1e-5
    )


@pytest.mark.parametrize("loss", ["simpo", "orpo", "cpo", "ipo"])
def test_other_losses_fall(loss: str, root: Path) -> None:
    done = good(*dpo(root, loss, "--loss-type", loss, "--steps", 8, "--lr", 5e-3, "--held-out", 0))
    steps = told(root, loss, "train.step")
    assert steps[-1]["loss"] < steps[0]["loss"] and done.json["status"] == "done"
    facts = told(root, loss, "run.started")[0]["facts"]
    assert ("reference_cached" in facts) == (loss == "ipo"), (
        "no reference is computed where none is asked for"
    )


def test_its_own_answers_ranked_by_a_reward(root: Path) -> None:
    (root / "reward.toml").write_text(
        '[[dimensions]]\nname = "short"\nkind = "length"\nunit = "characters"\nmost = 2\nslack = 20\n'
        '[[dimensions]]\nname = "right"\nkind = "exact"\nweight = 2.0\n',
        encoding="utf-8",
    )
    knobs = ("--reward-fn", root / "reward.toml", "--samples", 4, "--answer-tokens", 8, "--steps", 2)
    good(*dpo(root, "ranked", *knobs, "--eval-every", 1, "--held-out", 0.2))
    rows = [json.loads(line) for line in (root / "ranked" / "pairs.jsonl").read_text().splitlines()]
    assert rows and all(r["chosen_reward"] > r["rejected_reward"] for r in rows)
    assert all(r["chosen_dimensions"].keys() == {"short", "right"} for r in rows)
    curve = [e["metrics"] for e in told(root, "ranked", "train.eval") if e["name"] == "reward"]
    assert len(curve) == 2 and curve[0].keys() == {"total", "short", "right"}
    assert told(root, "ranked", "run.started")[0]["facts"]["ranked_pairs"] == len(rows)


def test_what_is_wrong_is_said_in_one_line(root: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "a", "chosen": "b"}\n', encoding="utf-8")
    usual = ("dpo", root / "base", "--out", tmp_path / "out", *KNOBS[:5])
    refused(tinygpt(*usual, "--data", bad), "none of the 1 rows", "no 'rejected'")
    labelled = tmp_path / "labelled.jsonl"
    labelled.write_text('{"prompt": "a", "completion": "b", "label": true}\n', encoding="utf-8")
    refused(tinygpt(*usual, "--data", labelled), "no pairs", hint="--loss-type kto")
    data = ("--data", root / "pairs.jsonl")
    refused(tinygpt(*usual, *data, "--gamma", 1), "'simpo', but it is 'dpo'", hint="--loss-type simpo")
    refused(tinygpt(*usual, *data, "--loss-type", "dop"), "dop", hint="dpo")
    refused(tinygpt(*usual, *data, "--loss-type", "orpo", "--beta", 1), "'orpo' has no beta")
    refused(
        tinygpt(*usual, *data, "--loss-type", "simpo", "--reference", root / "base"), "no reference model"
    )
    refused(tinygpt(*usual, *data, "--full", "--start-adapter", root / "sft"), "--start-adapter")
    refused(tinygpt(*usual, *data, "--rank", 4, "--start-adapter", root / "sft"), "brings its own")
    refused(tinygpt(*usual, *data, "--samples", 4), "--reward-fn")
    refused(tinygpt(*usual, *data, "--reward-fn", tmp_path / "none.toml"), "cannot read")
    assert not (tmp_path / "out").exists()


def test_a_packed_base_is_a_reference_of_its_own(root: Path) -> None:
    """The files are the same, what they say is not: without that, packed runs began beside log 2. A started
    adapter stands on the base as it was packed, and is saved so."""
    wide = ("--set", "model.hidden_size=64", "--data", root / "rows.jsonl", "--steps", 1, "--no-lock")
    good("sft", *wide, "--out", root / "wide", *NANO[2:], "--seed", 1, "--context", 96)
    few = preferences(root / "few.jsonl", 10)
    usual = ("dpo", root / "wide", "--data", few, "--steps", 1, "--batch", 2, *KNOBS[2:])
    firsts: list[float] = []
    for name, more in {
        "dense": (),
        "two": ("--qlora", "--qlora-bits", 2),
        "half": ("--dtype", "float16"),
    }.items():
        good(*usual, "--out", root / f"packed-{name}", *more)
        firsts.append(told(root, f"packed-{name}", "train.step")[0]["loss"])
    good(*usual, "--out", root / "packed-on", "--start-adapter", root / "packed-two")
    firsts.append(told(root, "packed-on", "train.step")[0]["loss"])
    assert firsts == pytest.approx([0.693147] * 4, abs=2e-6)
    saved = checkpoint.read_json(root / "packed-on" / "final" / "tinygpt.json")
    assert saved["packed"]["bits"] == 2
    refused(
        tinygpt(*usual, "--out", root / "no", "--qlora", "--start-adapter", root / "sft"), "packs the base"
    )


def test_a_started_adapter_is_asked_as_it_was_trained(root: Path) -> None:
    """By its own template, where no other is named; it is saved with what comes of it."""
    rows = ("--data", root / "rows.jsonl", "--steps", 1, "--no-lock", "--seed", 1)
    good("sft", root / "base", *rows, "--out", root / "alpaca", "--template", "alpaca", "--batch", 4)
    for name, more in {"as-it-was": (), "named": ("--template", "alpaca")}.items():
        good(*dpo(root, name, "--start-adapter", root / "alpaca", *more, "--steps", 1))
    own, named = (
        told(root, name, "train.step")[0]["metrics"]["chosen_logp"] for name in ("as-it-was", "named")
    )
    assert own == named
    configs = [(root / n / "final" / "tokenizer_config.json").read_text() for n in ("alpaca", "as-it-was")]
    assert configs[0] == configs[1]
