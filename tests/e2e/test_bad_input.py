"""Whatever a person gives wrongly: one line that says so, exit code 2, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.shell import NANO, good, process, refused, snapshot, sums, tinygpt
from tinygpt.core.backend import mx
from tinygpt.core.lock import gpu_lock
from tinygpt.model import checkpoint


@pytest.fixture
def here(trained: Path, tmp_path: Path) -> Path:
    """An empty folder beside which nothing of a refused command may appear."""
    return tmp_path


def train(corpus: Path, out: Path, *more: object, n: int = 2) -> tuple[object, ...]:
    sizes = NANO[4:] if "--base" in more else NANO  # a base brings its own
    return ("train", "--corpus", corpus, "--out", out, "--steps", n, "--seed", 1, *sizes, *more)


# Text and rows.


def test_a_missing_file(here: Path) -> None:
    refused(tinygpt(*train(here / "no.txt", here / "run")), r"no file or folder .*no\.txt", hint="check")
    refused(tinygpt("sft", "--data", here / "no.jsonl", "--out", here / "run", *NANO), r"no file .*no\.jsonl")
    refused(tinygpt("quickstart", "--data", here / "no.jsonl", "--out", here / "q"), r"no\.jsonl")
    refused(tinygpt("tokenize-train", "--corpus", here / "no.txt", "--out", here / "tok"), r"no\.txt")
    refused(tinygpt("eval-compare", here / "no.jsonl"), r"cannot read eval rows from .*no\.jsonl")
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("data", "pattern"),
    [
        (b"", "no text"),
        (b"caf\xe9 au lait\n", r"t\.txt is not UTF-8: byte 3, on line 1"),
        (b"too short", r"10 tokens to train on, but one row needs 32"),
    ],
    ids=["empty", "latin-1", "shorter than a context"],
)
def test_a_corpus_that_cannot_be_learned(data: bytes, pattern: str, here: Path) -> None:
    (here / "t.txt").write_bytes(data)
    done = tinygpt(*train(here / "t.txt", here / "run"))
    refused(done, pattern)
    assert "hint: " in done.err and [p.name for p in here.iterdir()] == ["t.txt"]


def test_a_folder_without_matching_files(here: Path) -> None:
    (here / "src").mkdir()
    (here / "src" / "a.py").write_text("x = 1\n")
    refused(tinygpt(*train(here / "src", here / "run")), r"no file in .* matches '\*\.txt'", hint="--glob")


def test_rows_that_do_not_fit_are_counted_and_shown(here: Path) -> None:
    rows = sums(here / "rows.jsonl", 40)
    bad = ['{"prompt": "no answer"}', "not json", "[1]", '{"prompt": 3, "completion": "x"}']
    rows.write_text(rows.read_text() + "\n".join(bad) + "\n")
    command = ("sft", "--data", rows, "--out", here / "run", "--steps", 1, "--seed", 1, *NANO)
    refused(tinygpt(*command, "--strict"), r"rows\.jsonl line 41: ")
    assert not (here / "run").exists()
    warned = next(line for line in good(*command).err.splitlines() if line.startswith("warning: "))
    assert "40 of 44 rows used, 4 left out" in warned
    assert all(f"line {n}: " in warned for n in (41, 42, 43)) and "line 44: " not in warned
    refused(tinygpt("quickstart", "--data", rows, "--out", here / "q", "--strict"), "line 41: ")
    rows.write_text("\n".join(bad))
    refused(tinygpt(*command[:3], "--out", here / "other", *NANO), "none of the 4 rows", hint="known shapes")
    assert not (here / "q").exists() and not (here / "other").exists()


# Checkpoints.


def cut(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-64])


def flip(model: Path) -> None:
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-50] ^= 1
    (model / "model.safetensors").write_bytes(data)


def newer(model: Path) -> None:
    edit(model / "tinygpt.json", format=99)


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def reseal(model: Path) -> None:
    """As if the directory had been saved like this."""
    (model / "tinygpt.json").unlink()
    checkpoint.seal(model, kind="model")


def tensors(model: Path, change: Callable[[dict[str, mx.array]], object]) -> None:
    found = checkpoint.read_tensors(model, "model")
    mx.eval(found)
    change(found)
    checkpoint.write_tensors(model, "model", found)
    reseal(model)


def lacking(model: Path) -> None:
    tensors(model, lambda found: found.pop("model.norm.weight"))


def foreign(model: Path) -> None:
    tensors(model, lambda found: found.update({"model.extra.weight": mx.zeros((3,))}))


def foreign_key(model: Path) -> None:
    edit(model / "config.json", warp_factor=9)
    reseal(model)


def no_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    reseal(model)


DAMAGE: dict[Callable[[Path], None], str] = {
    cut: r"model\.safetensors has \d+ bytes, the manifest says \d+",
    flip: r"model\.safetensors was changed after it was saved",
    newer: r"format version 99, this tinygpt reads up to 1",
    lacking: r"lacks the tensor model\.norm\.weight",
    foreign: r"has the tensor model\.extra\.weight, which this model has no place for",
    foreign_key: r"config\.json has the key 'warp_factor'",
    no_tokenizer: r"there is no tokenizer\.json at",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_a_damaged_checkpoint_names_its_defect(
    damage: Callable[[Path], None], trained: Path, here: Path
) -> None:
    shutil.copytree(trained / "run" / "final", here / "model")
    damage(here / "model")
    before = snapshot(here)
    refused(tinygpt("sample", here / "model", "--prompt", "a", "--tokens", 2), DAMAGE[damage])
    refused(
        tinygpt(*train(trained / "corpus.txt", here / "r", "--base", here / "model")),
        DAMAGE[damage],
    )
    if damage is not no_tokenizer:
        refused(tinygpt("validate", here / "model"), DAMAGE[damage])
    assert snapshot(here) == before


def test_a_damaged_last_checkpoint_stops_resuming(trained: Path, here: Path) -> None:
    shutil.copytree(trained / "run", here / "run")
    shutil.rmtree(here / "run" / "final")
    flip(here / "run" / "steps" / "000006")
    command = train(trained / "corpus.txt", here / "run", "--save-every", 2, "--resume", n=6)
    refused(tinygpt(*command), "000006/model.safetensors was changed")
    shutil.rmtree(here / "run" / "steps" / "000006")
    assert good(*command).out.startswith("done at step 6"), "the one before it serves"


@pytest.mark.parametrize("command", ["sample", "chat", "inspect", "validate", "debug-names", "debug-dtypes"])
def test_a_model_that_is_not_there(command: str, here: Path) -> None:
    refused(tinygpt(command, here / "nowhere"), "nothing at .*nowhere", hint="check the path")


def test_an_adapter_of_another_base(trained: Path, here: Path) -> None:
    run, rows = trained / "run", trained / "rows.jsonl"
    good("sft", run, "--data", rows, "--out", here / "a", "--steps", 1, "--seed", 1, *NANO[4:])
    good(*train(trained / "corpus.txt", here / "other", "--set", "model.initializer_range=0.03"))
    wrong = tinygpt("sample", here / "other", "--adapter", here / "a", "--prompt", "x", "--tokens", 1)
    refused(wrong, "trained on other weights", hint=str(run))
    good("sample", here / "other", "--adapter", here / "a", "--force", "--prompt", "x", "--tokens", 1)
    refused(tinygpt("sample", run, "--force", "--prompt", "x"), "--force means nothing without --adapter")
    refused(tinygpt("sample", run, "--adapter", run, "--prompt", "x"), "kind model, not an adapter")
    refused(tinygpt("sample", run, "--adapter", here / "no", "--prompt", "x"), "nothing at")


# What is typed.


@pytest.mark.parametrize(
    ("words", "pattern", "hint"),
    [
        (["trian"], "no command 'trian'. Did you mean 'train'", "--help"),
        (["--verison"], "no option --verison. Did you mean '--version'", "--help"),
        (["sample", "m", "--promt", "x"], "no option --promt. Did you mean '--prompt'", "sample --help"),
        (["sample"], "'model' is required", ""),
        (["sample", "m", "--tokens", "many"], "--tokens", "sample --help"),
        (["sample", "m", "--top-p", "2"], "'top_p' must be from 0 to 1", ""),
        (["explain", "adamww"], "unknown technique 'adamww'. Did you mean 'adamw'", "known: "),
        (["quickstart"], "say what to build", "--demo"),
        (["bench-train", "--dtype", "int3"], "'dtype' cannot be 'int3'", "float32"),
        (["bench-train", "--context", "-3"], "must not be negative", ""),
        (["run-bench", "m", "--limit", "0"], "--limit", ""),
        (["run-bench", "m", "--ctx", "8"], "--context means nothing without --perplexity", ""),
        (["run-bench", "m", "--go-on", "8"], "--go-on means nothing without --memorise", "add it"),
        (["run-bench", "m", "--control", "c.txt"], "--control means nothing without --memorise", "add it"),
        (["eval", "m"], "nothing to measure", "--corpus"),
        (["eval", "m", "--suite", "sort-6", "--glob", "*"], "--glob means nothing without --corpus", ""),
        (["bench-train", "--wait", "--no-lock"], "--wait means nothing without --lock", "leave --wait out"),
        (["quickstart", "--demo", "--wait", "--no-lock"], "--wait means nothing without --lock", ""),
        (["--show-completion", "pwsh"], "unknown shell", "bash"),
    ],
)  # fmt: skip
def test_mistyped(words: list[str], pattern: str, hint: str) -> None:
    refused(tinygpt(*words), pattern, hint=hint)


@pytest.mark.parametrize(
    ("words", "pattern", "hint"),
    [
        (["--stepz", "3"], "no option --stepz. Did you mean '--steps'", "train --help"),
        (["--min-lr", "1e-5"], "no option --min-lr$", "schedule.final"),
        (["--log-jsonl", "x"], "no option --log-jsonl$", "events.jsonl"),
        (["--decay-steps", "9"], "--decay-steps: the schedule 'cosine' has no decay", "trapezoid or wsd"),
        (["--decay-shape", "linear", "--schedule", "trapezoid"], "'trapezoid' has no shape", "wsd has"),
        (["--preset", "tinny"], "unknown preset 'tinny'. Did you mean 'tiny'", "behemoth"),
        (["--optimizer", "adamx"], "unknown optimizer 'adamx'. Did you mean 'adamw'", "muon"),
        (["--set", "nonsense"], "'nonsense' is not a setting", "a.b=value"),
        (["--set", "optimizer.betaa=1"], "unknown config key 'optimizer.betaa'. Did you mean", "beta1"),
        (["--set", "model.hiden_size=8"], "'model.hiden_size'. Did you mean 'hidden_size'", ""),
        (["--set", "model.hidden_size=33"], "33.* is not a multiple of num_attention_heads", "head_dim"),
        (["--set", "model.hidden_size=wide"], "'model.hidden_size' must be a whole number", ""),
        (["--set", "model.vocab_size=10"], "vocab_size is 10, but the tokenizer has 260 ids", "leave"),
        (["--set", "model.max_position_embeddings=8"], "--context 32 is longer than the model's own, 8", ""),
        (["--set", "corpus.x=1"], "'corpus' holds a value", ""),
        (["--steps", "0"], "--steps must be at least 1", ""),
        (["--lr", "nan"], "'lr' must be a number", ""),
        (["--lr", "-1"], "--lr must be positive", ""),
        (["--save-every", "-1"], "--save-every must not be negative", ""),
        (["--max-minutes", "-1"], "--max-minutes must not be negative", ""),
        (["--regime", "overtrained"], "--regime means nothing without --depth", "add --depth"),
        (["--set", "regime=overtrained"], "--regime means nothing without --depth", ""),
        (["--warmup", "soon"], "--warmup", "train --help"),
        (["--batch", "3", "--accumulate", "2"], "3 is not a multiple of --accumulate 2", ""),
        (["--held-out", "1.5"], "held_out must be at least 0 and below 1", ""),
        (["--seed", "-1"], "'seed' must not be negative, got -1", ""),
        (["--resume", "--force"], "--resume continues .* --force replaces", ""),
        (["--tokenizer", "nowhere"], "no tokenizer.json at nowhere", "tokenize-train"),
        (["--base", "nowhere"], "nothing at nowhere", ""),
        (["--base", "nowhere", "--preset", "huge"], "--preset: the base nowhere brings its own", "leave"),
        (["--config", "nowhere.toml"], "cannot read the config file nowhere.toml", "check"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(
    words: list[str], pattern: str, hint: str, trained: Path, here: Path
) -> None:
    refused(tinygpt(*train(trained / "corpus.txt", here / "run", *words)), pattern, hint=hint)
    assert not list(here.iterdir())


def test_config_files(trained: Path, here: Path) -> None:
    file = here / "c.toml"
    for text, pattern in (
        ("stepss = 3", "unknown config key 'stepss'. Did you mean 'steps'"),
        ("steps = [", r"c\.toml is not valid TOML"),
        ('steps = "many"', "'steps' must be a whole number"),
    ):
        file.write_text(text)
        refused(
            tinygpt("train", "--config", file, "--corpus", trained / "corpus.txt", "--out", here / "r"),
            pattern,
        )
    (here / "c.json").write_text("[]")
    refused(tinygpt("train", "--config", here / "c.json", "--out", here / "r"), "must hold one table")
    assert not (here / "r").exists()


def test_a_prompt_that_is_too_long(trained: Path) -> None:
    run = trained / "run"
    refused(tinygpt("sample", run, "--prompt", "x" * 40), "40 tokens and leaves no room in a context of 32")
    refused(tinygpt("debug-logits", run, "--prompt", "x" * 40), "40 tokens, the context only 32")
    talk = tinygpt("chat", run, stdin="x" * 60 + "\n/quit\n")
    assert talk.code == 2 and "none of 1 messages was answered" in talk.err and not talk.out


# What is there already.


def test_an_out_directory_that_exists(trained: Path, here: Path) -> None:
    corpus, run = trained / "corpus.txt", here / "run"
    good(*train(corpus, run, "--save-every", 1))
    before = snapshot(here)
    refused(tinygpt(*train(corpus, run)), "the run directory .*run exists", hint="--force")
    refused(tinygpt(*train(here / "no.txt", run, "--force")), "no file or folder")
    refused(tinygpt(*train(corpus, run, "--force", "--base", run / "final")), "--base .* is inside --out")
    refused(tinygpt(*train(corpus, run, "--resume", "--lr", "0.5")), "cannot resume .*lr 0.001 -> 0.5")
    refused(
        tinygpt("sft", run, "--data", trained / "rows.jsonl", "--out", run, "--force", *NANO[4:]), "--base"
    )
    inside = "--out .* lies inside the checkpoint .*final"
    refused(tinygpt(*train(corpus, run / "final" / "deep" / "run")), inside, hint="another --out")
    refused(tinygpt("tokenize-train", "--corpus", corpus, "--out", run / "final" / "tok"), inside)
    assert snapshot(here) == before
    assert good(*train(corpus, run, "--resume")).out.startswith("done at step 2")
    good(*train(corpus, run, "--force", n=3))
    assert sorted(p.name for p in (run / "steps").iterdir()) == ["000003"]


def test_what_is_not_ours_is_not_replaced(trained: Path, here: Path) -> None:
    mine = here / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    rows, corpus = trained / "rows.jsonl", trained / "corpus.txt"
    for out, pattern in ((mine, "is no .* directory"), (mine / "thesis.txt", "is a file")):
        refused(tinygpt(*train(corpus, out, "--force")), pattern)
        refused(tinygpt("tokenize-train", "--corpus", corpus, "--out", out, "--force"), pattern)
        refused(tinygpt("quickstart", "--demo", "--out", out, "--force"), pattern)
        refused(tinygpt("quickstart", "--data", rows, "--out", out, "--force"), pattern)
    refused(tinygpt(*train(corpus, mine, "--resume")), "holds no run to resume")
    refused(tinygpt(*train(corpus, mine / "thesis.txt" / "run")), "cannot write .*Not a directory")
    assert snapshot(here) == {"mine/thesis.txt": b"years of work"}


# The machine.


@pytest.fixture
def full_disk(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk on which a checkpoint does not fit: a small one where this user may mount it, else a pretended
    one."""
    disk = here / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(disk)]
    if (
        sys.platform == "linux"
        and os.geteuid() == 0
        and not subprocess.run(mount, capture_output=True).returncode
    ):
        yield disk
        subprocess.run(["umount", "-l", str(disk)], check=True)
    else:

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(mx, "save_safetensors", refuse)
        yield disk


def test_a_full_disk(trained: Path, full_disk: Path) -> None:
    done = tinygpt(*train(trained / "corpus.txt", full_disk / "run", "--quiet"))
    refused(done, r"cannot write .*steps/000002: ", hint="disk is full")
    assert sorted(p.name for p in (full_disk / "run").iterdir()) == ["events.jsonl", "run.json", "steps"]
    assert not list((full_disk / "run" / "steps").iterdir())
    refused(tinygpt("sample", full_disk / "run", "--prompt", "x"), "run has saved nothing yet")


def test_a_cache_folder_that_cannot_be_used(
    trained: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYGPT_CACHE", str(trained / "corpus.txt"))
    done = tinygpt(*train(trained / "corpus.txt", here / "run"))
    refused(done, "cannot use the cache folder", hint="TINYGPT_CACHE")
    refused(tinygpt("doctor"), "cannot use the cache folder", hint="TINYGPT_CACHE")
    assert not list(here.iterdir())


def test_two_runs_at_once(trained: Path, here: Path) -> None:
    (here / "run").mkdir()
    commands = [
        train(trained / "corpus.txt", here / "run"),
        ("sft", trained / "run", "--data", trained / "rows.jsonl", "--out", here / "s", "--steps", 1),
        ("quickstart", "--data", trained / "rows.jsonl", "--out", here / "q"),
        ("quickstart", "--demo", "--out", here / "d"),
        ("bench-train", "--preset", "tiny", "--steps", 1),
    ]
    with gpu_lock("train --preset mega"):
        for command in commands:
            holder = rf"'train --preset mega' \(process {os.getpid()}, since 2"
            refused(tinygpt(*command, "--quiet"), holder, hint="--wait")
        assert [p.name for p in here.iterdir()] == ["run"] and not list((here / "run").iterdir())
        good(*train(trained / "corpus.txt", here / "run", "--no-lock"))


# The same in a process of its own: what the shell sees.


def test_the_shell_sees_it_too(trained: Path, here: Path) -> None:
    refused(process(*train(here / "no.txt", here / "run")), r"no file or folder")
    refused(process("trian"), "Did you mean 'train'")
    nothing = process()
    assert nothing.code == 2 and "Usage: tinygpt COMMAND" in nothing.err and not nothing.out
    assert not list(here.iterdir())
