"""Evolution strategies on the command line: stop and resume, adapters, rewards over what is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import nano
from e2e.shell import NANO, good, refused, sentences, tinygpt
from tinygpt.data.batch import Batch
from tinygpt.data.tokenizer import byte
from tinygpt.model import checkpoint
from tinygpt.runs import _reward

KNOBS = ("--batch", 4, "--population", 4, "--seed", 3, "--no-compile", "--json")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of text, and rows that all have the same answer."""
    folder = tmp_path_factory.mktemp("es")
    (folder / "a.txt").write_text(sentences(200, 1), encoding="utf-8")
    knobs = ("--steps", 2, "--seed", 1, "--no-lock", *NANO)  # the lock is still that of whoever tests
    good("train", "--corpus", folder / "a.txt", "--out", folder / "base", *knobs)
    rows = [{"prompt": f"{i}", "completion": "ab"} for i in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return folder


def es(root: Path, out: str, *more: object) -> tuple[object, ...]:
    return ("es", root / "base", "--out", root / out, *KNOBS, *more)


def test_stop_and_resume_is_straight(root: Path) -> None:
    knobs = (
        "--corpus", root / "a.txt", "--steps", 4, "--save-every", 2, "--keep", 9,
        "--set", "optimizer.momentum=0.5", "--accumulate", 2, "--clip", 1,
    )  # fmt: skip
    straight = good(*es(root, "straight", *knobs))
    assert straight.json["status"] == "done" and straight.json["step"] == 4
    assert straight.json["metrics"]["reward"] < 0 and "nothing was learned" not in straight.err
    events = [json.loads(line) for line in (root / "straight" / "events.jsonl").read_text().splitlines()]
    steps = [e for e in events if e["kind"] == "train.step"]
    assert [e["step"] for e in steps] == [1, 2, 3, 4]
    assert all(e["grad_norm"] > 0 and e["metrics"].keys() == {"reward", "reward_std"} for e in steps)
    good(*es(root, "again", *knobs))
    (root / "again" / "steps" / "000004").rename(root / "last")
    (root / "again" / "final").rename(root / "gone")
    assert good(*es(root, "again", *knobs, "--resume")).json["step"] == 4
    name = "model.safetensors"
    assert (root / "again/final" / name).read_bytes() == (root / "straight/final" / name).read_bytes()
    for kept in ("model.safetensors", "optimizer.safetensors"):
        assert (root / "again/steps/000004" / kept).read_bytes() == (root / "last" / kept).read_bytes()
    assert (root / "last" / name).read_bytes() != (root / "straight/steps/000002" / name).read_bytes()
    refused(tinygpt(*es(root, "again", *knobs, "--sigma", 0.1, "--resume")), "sigma")


def test_an_adapter_alone_is_changed(root: Path) -> None:
    done = good(*es(root, "tuned", "--data", root / "rows.jsonl", "--adapter", "lora", "--steps", 2))
    assert (root / "tuned" / "final" / "adapter_config.json").is_file() and done.json["step"] == 2
    before = checkpoint.read_tensors(root / "tuned" / "final", "adapter_model")
    assert any(np.abs(np.array(w)).max() > 0 for n, w in before.items() if "lora_B" in n), "B left zero"
    good("sample", root / "base", "--adapter", root / "tuned" / "final", "--tokens", 4)


def test_a_reward_over_what_is_written(root: Path) -> None:
    """A model that never writes the answer has no direction to go: rewards are equal, weights stay."""
    rows = root / "rows.jsonl"
    done = good(*es(root, "exact", "--data", rows, "--reward", "exact", "--steps", 1))
    assert done.json["metrics"]["reward"] == 0 and done.err.count("warning: nothing was learned") == 1
    event = next(
        json.loads(line)
        for line in (root / "exact" / "events.jsonl").read_text().splitlines()
        if "train.step" in line
    )
    assert event["metrics"] == {"reward": 0.0, "reward_std": 0.0} and event["grad_norm"] == 0
    good("sft", root / "base", "--data", rows, "--full", "--out", root / "sft", "--steps", 60, "--lr", 0.01,
         "--batch", 4, "--no-compile", "--seed", 1)  # fmt: skip
    done = good(
        "es", root / "sft", "--data", rows, "--out", root / "kept", *KNOBS, "--reward", "exact", "--steps", 1,
        "--sigma", 0.001,
    )  # fmt: skip
    events = [json.loads(line) for line in (root / "kept" / "events.jsonl").read_text().splitlines()]
    assert next(e for e in events if e["kind"] == "train.step")["metrics"]["reward"] == 1.0
    assert done.json["step"] == 1


def test_what_makes_no_sense_is_refused(root: Path) -> None:
    text, rows = ("--corpus", root / "a.txt"), ("--data", root / "rows.jsonl")
    refused(tinygpt(*es(root, "no")), "from text or from rows")
    refused(tinygpt(*es(root, "no", *text, *rows)), "from text or from rows")
    refused(tinygpt(*es(root, "no", *text, "--reward", "exact")), "needs answers")
    refused(tinygpt(*es(root, "no", *text, "--population", 3)), "--population must be even")
    refused(tinygpt(*es(root, "no", *text, "--optimizer", "galore")), "reads all gradients at once")
    refused(tinygpt(*es(root, "no", *text, "--adapter", "lorra")), "lorra")
    refused(tinygpt(*es(root, "no", *rows, "--glob", "*.md")), "--glob means nothing without --corpus")
    refused(tinygpt(*es(root, "no", *text, "--auto-rollback", "on")), "do not go back", hint="use warn")
    shown = tinygpt("es", "--help").out
    for name, value in (("dropout", 0.1), ("qat", "int4"), ("lr_layer_decay", 0.5)):
        flag = "--" + name.replace("_", "-")
        refused(tinygpt(*es(root, "no", *text, "--set", f"{name}={value}")), f"{flag} means nothing to evol")
        assert flag not in shown, "what is always refused is not offered"
    assert not (root / "no").exists()


def test_what_a_batch_asks() -> None:
    """Prompts reach back to the start of their document, answers end before their end token."""
    tokens = np.array([[5, 6, 7, 8, 9, 1, 2, 3]], np.int32)
    batch = Batch(
        tokens=tokens, targets=np.array([[6, 7, 8, 9, 0, 2, 3, 4]], np.int32),
        weights=np.array([[0, 1, 1, 0, 1, 0, 1, 1]], np.float32),
        positions=np.array([[0, 1, 2, 3, 4, 0, 1, 2]], np.int32),
        segments=np.array([[1, 1, 1, 1, 1, 2, 2, 2]], np.int32),
    )  # fmt: skip
    found = [(case.prompt, case.answer) for case in _reward.cases(batch, (0, 8))]
    assert found == [([5, 6], [7]), ([1, 2], [3, 4])], "an answer that is only an end token is none"


def test_judges() -> None:
    exact, contains = _reward.JUDGES["exact"], _reward.JUDGES["contains"]
    assert exact(" a  b\n", "a b") and not exact("a b c", "a b")
    assert contains("so a b it is", "a b") and not contains("ab", "a b")
    reward = _reward.Written(nano.model(vocab_size=300, max_position_embeddings=8), byte.load(), "exact")
    long = nano.batch(1, 12, prompt=9)
    assert reward(long, 1) == 0.0, "what fills the context asks nothing"


def test_a_reward_of_ones_own_has_a_curve_for_each_dimension(root: Path) -> None:
    """Its total is what a step learns from; each dimension is told, as the mean over all that was tried."""
    (root / "reward.toml").write_text(
        '[[dimensions]]\nname = "right"\nkind = "exact"\n'
        '[[dimensions]]\nname = "long"\nkind = "length"\nunit = "characters"\nleast = 9\nslack = 9\n'
        "weight = 0.5\n",
        encoding="utf-8",
    )
    knobs = ("--data", root / "rows.jsonl", "--steps", 2, "--reward-fn", root / "reward.toml")
    good(*es(root, "own", *knobs, "--reward-tokens", 6, "--sigma", 0.05))
    lines = (root / "own" / "events.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [e for e in map(json.loads, lines) if e["kind"] == "train.step"]
    for told in (e["metrics"] for e in steps):
        assert told["reward"] == pytest.approx(told["reward.right"] + 0.5 * told["reward.long"], abs=1e-9)
    refused(tinygpt(*es(root, "no", *knobs, "--reward", "exact")), "--reward-fn and --reward")
    refused(tinygpt(*es(root, "no", "--corpus", root / "a.txt", *knobs[4:])), "--reward-fn needs answers")
    refused(tinygpt(*es(root, "no", *knobs[:4], "--reward-tokens", 3)), "--reward-fn")
