"""The whole path on real files with the nano sizes: text in, a measured, packaged specialist out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from e2e.shell import NANO, good, process, sentences, snapshot, sums, tinygpt
from tinygpt.core import energy, events
from tinygpt.core.rows import read_rows

SLOT = NANO[-1:]  # --no-compile


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder in which each test goes on where the one before ended."""
    folder = tmp_path_factory.mktemp("path")
    (folder / "text").mkdir()
    for i in range(12):
        (folder / "text" / f"{i:02}.txt").write_text(sentences(40, i), encoding="utf-8")
    sums(folder / "rows.jsonl")
    return folder


def train(root: Path, out: str, *more: object) -> tuple[object, ...]:
    return (
        "train", "--corpus", root / "text", "--tokenizer", root / "tok", "--out", root / out,
        "--held-out", 0.1, "--lr", 0.003, "--seed", 5, *NANO, *more,
    )  # fmt: skip


def final(root: Path, run: str) -> bytes:
    return (root / run / "final" / "model.safetensors").read_bytes()


def test_a_tokenizer(root: Path) -> None:
    done = good(
        "tokenize-train", "--corpus", root / "text", "--out", root / "tok", "--vocab-size", 300,
        "--held-out", 0.1, "--json",
    )  # fmt: skip
    assert done.json["vocab_size"] == 300 and done.json["files"] == 11 and done.json["bytes_per_token"] > 1.5


def test_train_stop_and_resume(root: Path) -> None:
    straight = good(*train(root, "straight", "--steps", 8, "--save-every", 2, "--json"))
    assert straight.json["status"] == "done" and straight.json["step"] == 8
    assert straight.json["path"] == str(root / "straight" / "final")
    assert re.match(r"train: [\d,]+ parameters learn, 8 steps \(\d+ an epoch\), seed 5\n", straight.err), (
        "progress goes to stderr"
    )
    assert "\ndata: " in straight.err and "step 8 · held_out: loss " in straight.err
    # An earlier end of the same run, continued: as if it had never stopped.
    command = train(root, "run", "--steps", 8, "--save-every", 2)
    good(*command)
    (root / "run" / "final").rename(root / "elsewhere")
    (root / "run" / "steps" / "000008").rename(root / "last")
    resumed = good(*command, "--resume")
    assert final(root, "run") == final(root, "straight")
    assert (resumed.out + resumed.err).count("done at step 8") == 1, "how it ended is said once"
    assert resumed.out.splitlines()[-1] == f"try: tinygpt sample {root / 'run' / 'final'}"
    told = events.read(root / "run" / "events.jsonl")
    assert [e["step"] for e in told if e["kind"] == "train.step"] == list(range(1, 9))
    losses = [e["loss"] for e in told if e["kind"] == "train.step"]
    assert losses[-1] < losses[0]


def test_a_run_is_repeated_from_its_own_settings(root: Path) -> None:
    good("train", "--config", root / "run" / "run.json", "--out", root / "again", "--quiet")
    assert final(root, "again") == final(root, "run")


def test_sample(root: Path) -> None:
    command = ("sample", root / "run", "--prompt", "The cat", "--tokens", 8, "--n", 2, "--seed", 3)
    done = good(*command, "--json")
    assert done.json["prompt"] == "The cat" and not done.err
    answers = done.json["answers"]
    assert [a["seed"] for a in answers] == [3, 4] and all(1 <= a["tokens"] <= 9 for a in answers)
    assert good(*command, "--json").json == done.json, "the same seed, the same text"
    shown = good(*command)
    assert shown.err == "seed 3\n" and f"The cat{answers[0]['text']}" in shown.out
    piped = good(
        "sample", root / "run", "--prompt", "-", "--tokens", 8, "--seed", 3, "--json", stdin="The cat"
    )
    assert piped.json["answers"][0] == answers[0]


def test_chat_through_a_pipe(root: Path) -> None:
    good(*train(root, "wide", "--steps", 2, "--context", 96))
    lines = "hello\n/reset\n\nand again\n/quit\nnever said\n"
    done = good("chat", root / "wide", "--max-tokens", 5, "--json", "--seed", 1, stdin=lines)
    said = [json.loads(line) for line in done.out.splitlines()]
    assert [turn["user"] for turn in said] == ["hello", "and again"]
    assert done.err == "forgotten\n"


def test_evaluate_and_compare(root: Path) -> None:
    rows = root / "eval.jsonl"
    held_out = root / "text" / "11.txt"
    found_of: dict[str, Any] = {}
    for run in ("run", "wide"):
        found = good("eval", root / run, "--corpus", held_out, "--name", run, "--out", rows, "--json").json
        assert {r["metric"] for r in found} >= {"loss", "bits_per_byte", "perplexity"}
        assert all(r["model_name"] == run for r in found)
        found_of[run] = found
        assert good("eval", root / run, "--corpus", held_out).out.splitlines()[0].split()[:3] == [
            "task", "metric", "score",
        ]  # fmt: skip
    bench = good(
        "run-bench", root / "wide", "--limit", 3, "--perplexity", held_out, "--model-name", "wide", "--out",
        rows, "--json",
    ).json  # fmt: skip
    assert {r["task"] for r in bench} >= {"sort-6", "reverse-16"}
    tables = good("eval-compare", rows, "--json").json
    assert tables and set(tables[0]["columns"]) == {"run", "wide"}
    assert (
        "| run |" in good("eval-compare", rows, "--markdown").out or "run" in good("eval-compare", rows).out
    )
    steps = good("eval", root / "run", "--corpus", held_out, "--every-step", "--json").json
    told = [r["model_step"] for r in steps if r["metric"] == "loss"]
    assert told == sorted(set(told)) and len(told) >= 2 and {r["model_name"] for r in steps} == {"run"}
    assert [r["score"] for r in steps if r["metric"] == "loss"][-1] == next(
        r["score"] for r in found_of["run"] if r["metric"] == "loss"
    )
    assert "no checkpoints" in tinygpt("eval", root / "text", "--corpus", held_out, "--every-step").err
    empty = root / "empty.jsonl"
    empty.write_text("not a row\n")
    assert tinygpt("eval-compare", empty).code == 2


def test_look_inside(root: Path) -> None:
    run = root / "run"
    facts = good("inspect", run, "--json").json
    assert facts["kind"] == "model" and facts["model_type"] == "llama" and facts["last_loss"] > 0
    assert facts["parameters"] == sum(t["bytes"] // 4 for t in facts["tensors"]), (
        "float32, all of them counted"
    )
    assert good("inspect", run, "--tensors").out.count("model.layers.0") == 9
    assert good("validate", run, "--json").json["verdict"] == "OK"
    assert good("debug-names", run, "--json").json | {"common": 0} == {
        "common": 0,
        "missing": [],
        "extra": [],
    }
    assert good("debug-dtypes", run, "--json").json["float32"]["values"] == facts["parameters"]
    assert all(r["difference"] == 0 for r in good("debug-load", run, "--json").json)
    top = good("debug-logits", run, "--prompt", "The", "--top", 4, "--json").json
    assert len(top) == 4 and [r["logit"] for r in top] == sorted((r["logit"] for r in top), reverse=True)
    assert 1 < good("debug-loss", run, "--json").json["bits_per_byte"] < 10
    for command in ("inspect", "validate", "debug-names", "debug-dtypes", "debug-load", "debug-logits"):
        assert good(command, run).out, f"{command} prints for people too"
    found = good("bench-train", "--preset", "tiny", "--batch", 1, "--context", 8, "--steps", 1, "--json").json
    assert found["tok_s"] > 0 and found["context"] == 8
    assert "openblas" in json.dumps(good("doctor", "--json").json).lower() or good("doctor").out
    assert good("explain", "adamw", "--json").json[0]["name"] == "adamw"


def test_a_model_is_timed(root: Path) -> None:
    sizes = ("--batch-sizes", "1,3", "--prompt-tokens", "4,6", "--gen-tokens", 4, "--n-runs", 2)
    rows = root / "speed.jsonl"
    found = good("bench", root / "run", *sizes, "--json", "--out", rows, "--model-name", "x").json
    told = read_rows(rows)[0]
    assert {(r.model_name, r.task) for r in told} == {("x", "bench")} and len(told) >= 4 * 5
    assert [r.score for r in told if r.metric == "decode_tok_s"] == [
        s["decode_tok_s"] for s in found["settings"]
    ]
    assert found["cold_ttft_ms"] > found["load_ms"] > 0
    assert [(s["prompt_tokens"], s["batch_size"]) for s in found["settings"]] == [
        (4, 1), (4, 3), (6, 1), (6, 3)
    ]  # fmt: skip
    for one in found["settings"]:
        assert [r["tokens"] for r in one["runs"]] == [4 * one["batch_size"]] * 2
        assert one["ttft_ms_p50"] <= one["ttft_ms_p99"] and one["itl_ms_p50"] <= one["itl_ms_p99"]
        assert one["decode_tok_s"] > 0 and one["peak_memory_bytes"] > 1e7
        assert ("energy_per_token_j" in one) == (found["energy"] is not None)
    assert found["energy"] or found["warnings"], "what cannot be counted is said"
    shown = good("bench", root / "run", "--batch-size", 3, *sizes[2:], "--no-cold", "--no-energy")
    assert "first token, ms (p50 p90 p99)" in shown.out and "cold" not in shown.out and not shown.err


def test_joules_are_those_of_the_runs_that_count(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = iter([100.0, 102.0, 110.0, 111.0, 120.0, 123.0])  # before and after each run that counts
    counter = energy.Counter(name="a counter", read=lambda: next(looked))
    monkeypatch.setattr(energy, "meter", lambda *, gpu: (energy.Meter([counter]), ["no other"]))
    words = ("--prompt-tokens", 4, "--gen-tokens", 4, "--n-runs", 3, "--warm-runs", 2, "--no-cold")
    done = good("bench", root / "run", *words, "--json")
    assert done.json["settings"][0]["energy_per_token_j"] == 6.0 / 12
    assert (done.json["energy"], done.json["warnings"]) == ("a counter", ["no other"])


def test_tune_an_adapter_and_everything(root: Path) -> None:
    base, rows = root / "wide", root / "rows.jsonl"
    common = ("sft", base, "--data", rows, "--steps", 3, "--batch", 4, "--lr", 0.01, "--seed", 2, *SLOT)
    small = ("--out", root / "adapter", "--rank", 2, "--alpha", 4, "--targets", "q_proj")
    adapter = good(*common, *small, "--json")
    assert adapter.json["status"] == "done"
    told = json.loads((root / "adapter" / "final" / "adapter_config.json").read_text())
    assert (told["r"], told["lora_alpha"], told["target_modules"]) == (2, 4, ["q_proj"])
    assert good("inspect", root / "adapter", "--json").json["kind"] == "adapter"
    assert good("validate", root / "adapter", "--json").json["verdict"] == "OK"
    tuned = good("sample", base, "--adapter", root / "adapter", "--prompt", "The", "--tokens", 6, "--json")
    assert tuned.json["answers"][0]["tokens"] >= 1
    measure = ("eval", base, "--corpus", root / "text" / "11.txt", "--json")
    with_adapter = good(*measure, "--adapter", root / "adapter").json
    assert with_adapter[0]["score"] != good(*measure).json[0]["score"], "the adapter changes the model"
    good(*common, "--full", "--out", root / "full")
    assert good("inspect", root / "full", "--json").json["kind"] == "model"
    assert final(root, "full") != final(root, "wide")
    good("chat", base, "--adapter", root / "adapter", "--max-tokens", 3, stdin="3+4\n")
    resumed = good(*common, *small, "--resume")
    assert resumed.out.startswith("done at step 3")


def test_the_demo_in_small(root: Path) -> None:
    from tinygpt.project import specialist

    out = root / "demo"
    done = good(
        "quickstart", "--demo", "--out", out, "--n-train", 300, "--steps", 5, "--n-held-out", 4, "--json"
    )
    found = done.json
    assert [s["set"] for s in found["scores"]] == ["names", "phrases", "compositions"]
    for line in found["scores"]:
        assert line["n"] == 4 and {"untrained", "rule-based", "trained"} <= set(line)
    assert len(found["live"]) == 3 and all(one["request"] and one["after"] for one in found["live"])
    assert [line[:3] for line in done.err.splitlines() if line[1:3] == "/5"] == [
        "1/5",
        "2/5",
        "3/5",
        "4/5",
        "5/5",
    ]
    package = Path(found["package"])
    assert package.parent == out and specialist.verify(package)["name"] == package.name
    assert {"model", "model_card.md", "prompt.md", "tools.json", "eval_report.json"} <= {
        p.name for p in package.iterdir()
    }
    assert good("inspect", package, "--json").json["kind"] == "model"
    assert good("validate", package, "--json").json["verdict"] == "OK"
    before = snapshot(out)
    assert tinygpt("quickstart", "--demo", "--out", out).code == 2 and snapshot(out) == before


def test_ones_own_rows_in_small(root: Path) -> None:
    out = root / "own"
    done = good("quickstart", "--data", root / "rows.jsonl", "--out", out, "--steps", 3, "--json")
    assert "It answers" in " ".join(done.json["verdict"]) and "rows are few" in done.err
    assert len(done.json["samples"]) == 3 and (out / "rows-tiny" / "model_card.md").is_file()
    again = good("quickstart", "--data", root / "rows.jsonl", "--out", out, "--steps", 2, "--force")
    assert "packaged in" in again.out and "On rows kept apart" in again.out


def test_in_processes_of_their_own(root: Path) -> None:
    """The console script: results on stdout, progress on stderr, no stray line on either."""
    done = process(*train(root, "process", "--steps", 2, "--json"))
    assert done.code == 0 and done.json["step"] == 2 and "parameters learn, 2 steps" in done.err
    quiet = process("sample", root / "run", "--prompt", "The", "--tokens", 3, "--seed", 1, "--quiet")
    assert quiet.code == 0 and quiet.out.startswith("The") and not quiet.err
    chat = process("chat", root / "wide", "--max-tokens", 3, "--json", stdin="hello\n")
    assert chat.code == 0 and chat.json["user"] == "hello"
