"""Every command answers --help, has --json, completes, and refuses an unknown flag with the nearest one."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import re
from pathlib import Path
from typing import Any, get_origin

import docs
import pytest
import typer

from house.tree import ROOT
from tinygpt.cli import _exit, _root
from tinygpt.core import config
from tinygpt.core.config import Pick
from tinygpt.runs import explain

COMMANDS = list(_root.commands())
# Options whose text nobody can foresee; all other options with text complete.
FREE = {
    "--base", "--command", "--corpus", "--exclude", "--field", "--glob", "--judge",
    "--judge-name", "--map", "--model-name", "--no-decay", "--probe", "--prompt", "--reward-fn",
    "--sample-prompt", "--scan", "--stop", "--system", "--targets", "--text", "--tokenizer", "--logit-bias",
    "--regex", "--choices", "--out-field", "--url", "--allow-host", "--api-key", "--cors-origin", "--host",
    "--keep-alive", "--lora", "--metric", "--quantize", "--task", "--budget", "--tasks", "--gen-kwargs",
    "--think-end-token", "--hf-model", "--device", "--judged", "--user-model", "--user-url",
    "--teacher", "--api-key-env", "--input-field", "--body", "--licence",
    "--reward", "--intent", "--original", "--corrected", "--input", "--source", "--model", 
    "--reason",
    "--judge-url",
    "--score-field", "--where", "--target-mix", "--language",
    "--config-name", "--split", "--revision", "--label", "--since", "--token-env", "--api-url", "--github",
    "--synth-url",
    "--teacher-model", "--teacher-url",
    "--rationale-field",
    "--judge-model", "--min-reward", "--success-at",
    "--query", "--method",
    "--single", "--endpoint", "--allow", "--deny", "--test-command", "--cloud-escalate", "--tools",
    "--cloud-escalate-model", "--trajectory-task",
}  # fmt: skip
# Flags of the original that work beside ours, and those that are spelled as they were. PLAN.md lists them.
ORIGINAL = {
    "train": "--lr --max-lr, --schedule --lr-schedule, --clip --grad-clip, --accumulate --accum, "
    "--context --ctx, --held-out --val-split, --eval-every --val-every, --warmup, --steps, --dtype, "
    "--z-loss --z-loss-weight, --moe-experts, --moe-topk, --moe-aux-weight, --mtp-horizons, "
    "--sliding-window, --alibi, --diff-attn, --deep-norm, --embedding-rmsnorm, --decay-steps, --decay-shape, "
    "--galore-rank, --galore-update-every",
    "sft": "--context --max-seq, --clip --grad-clip, --rank, --alpha, --targets, --template, "
    "--pack --pack-mode, --length-bucket, --lr-layer-decay --llrd, --neftune-alpha, --lora-plus-ratio, "
    "--optimizer, --layer-drop, --throttle, --steps, --batch, --lr, --qlora, --qlora-bits --bits",
    "distill": "--teacher, --corpus, --out, --tokenizer, --temperature, --alpha --kl-weight, --steps, --lr, "
    "--batch, --context --ctx, --clip --grad-clip",
    "synthesize": "--teacher, --teacher-model, --inputs, --out, --input-field, --system, --system-file, "
    "--json-schema --schema, --grammar, --max-tokens, --temperature, --parallel, --rate-limit, --retries, "
    "--timeout",
    "magpie": "--out, --count, --template, --max-user, --max-assistant, --temperature",
    "build-escalate-data": "--out",
    "corrections-to-data": "--replay, --replay-ratio",
    "traces-to-data": "--out, --task, --mode, --no-tool-echo-drop, --minhash-threshold, --minhash-shingle, "
    "--minhash-perms, --dry-run",
    "finetune": "--corpus, --out, --rank, --alpha, --steps, --lr, --targets, --batch, --sample-every, "
    "--layer-drop, --lr-layer-decay --llrd, --qlora-bits --bits",
    "filter": "--in, --out, --pii, --drop-pii, --toxicity, --toxicity-model, --sidecar",
    "train-quality-classifier": "--positive, --negative, --out, --vocab, --ngram, --epochs, --lr, --l2, "
    "--seed",
    "quality-filter": "--classifier, --out, --score, --threshold, --per-line, --max-docs",
    "reasoning-classify": "--train, --out, --heldout, --vocab, --ngram, --epochs, --lr, --l2, --seed, "
    "--score, --model, --field, --filter, --target-mix",
    "dedupe": "--out, --unit, --min-len, --quiet, --near-dup, --minhash-perms, --near-threshold, --shingle",
    "eval-bfcl": "--tasks --categories, --bfcl-root, --tools, --tool-mode, --adapter --lora, --limit, --out, "
    "--model-name, --model-step, --baseline, --serve-port",
    "eval-tau-bench": "--env, --tau-root, --user-model, --limit, --out, --model-name, --model-step, "
    "--baseline, --serve-port",
    "compare": "--adapter --lora, --corpus",
    "sample": "--adapter --lora, --adapter-weight --lora-weight, --prompt, --tokens, --temperature, "
    "--sinks --streaming-llm-sink, --window --streaming-llm-window, --draft-model --draft, "
    "--draft-tokens --speculative-k, --heads, --quantize, --quantize-group, --prompt-cache-dir, "
    "--json-schema",
    "serve": "--port, --host, --max-context, --adapter --lora, --adapter-weight --lora-weight, --quantize, "
    "--quantize-group, --grammar, --tools, --tool-mode, --tool-metrics-out, --prompt-cache-dir, "
    "--trace-infer, --trace-dir, --no-eos-stop, --draft-model, --corrections-dir",
    "infer-heatmap": "--html",
    "train-heads": "--type, --corpus, --out, --steps, --lr, --batch, --context --ctx, --num-heads, "
    "--hidden-dim",
    "generate": "--data, --out, --out-field, --max-tokens, --adapter --lora",
    "dpo": "--context --max-seq, --clip --grad-clip, --rank, --alpha, --targets, --template, --beta, "
    "--loss-type, --gamma, --orpo-lambda, --lr, --layer-drop, --throttle, --lr-layer-decay --llrd",
    "bon": "--prompt, --tokens, --temperature, --n, --scan, --seed, --verifier, --corpus, --out",
    "chat": "--draft-model --draft, --draft-tokens --speculative-k, --sinks --streaming-llm-sink, "
    "--window --streaming-llm-window",
    "es": "--context --ctx, --corpus, --steps, --population, --sigma, --lr, --batch, --out",
    "automix": "--corpus, --proxy-runs, --proxy-steps, --max-iters, --ei-threshold, --seed, --dry-run, --out",
    "eval": "--adapter --lora, --corpus",
    "run-lm-eval": "--hf-model, --tasks, --out, --limit, --batch, --dtype, --device, --tokenizer, "
    "--model-name, --model-step, --baseline",
    "run-bench": "--context --ctx, --tasks, --perplexity, --limit, --model-name, --out",
    "eval-compare": "--by, --sort",
    "eval-gate": "--spec, --candidate, --baseline, --threshold, --budget, --passes, --update-baseline, --out",
    "eval-sql": "--db-dir, --out",
    "eval-router": "--out",
    "eval-milu": "--out",
    "eval-review": "--out",
    "eval-escalate": "--out",
    "agent": "--tools, --system, --single, --prompt-cache-dir, --transcript, --json-out, --temperature, "
    "--max-tokens, --max-steps, --tool-timeout, --cloud-escalate, --cloud-escalate-model, --router, "
    "--router-threshold, --trajectory-dir, --trajectory-task",
    "escalate": "--provider, --prompt, --model, --system, --max-tokens",
    "eval-scaledown": "--keep-frac, --threshold, --out",
    "eval-indic": "--task, --subtask, --milu-data, --indicgen-data, --limit, --max-tokens --max-new-tokens",
    "rerank-eval": "--data, --out",
    "eval-mteb": "--tasks, --limit, --batch, --out",
    "judge": "--mode, --out, --limit, --model-name",
    "bench": "--prompt-tokens, --gen-tokens, --n-runs, --warm-runs, --batch-sizes --batch-size, --no-energy",
    "bench-train": "--preset, --steps, --batch, --dtype, --warmup",
    "tokenize-train": "--corpus, --out, --vocab-size",
    "merge": "--out, --weights, --method, --density, --base, --dare-seed",
    "bake-lora": "--out, --dtype",
    "list-datasets": "--specialist, --format, --info",
    "download-dataset": "--format, --out, --map, --revision, --max-files, --inspect, --dry-run",
    "fetch-github": "--kind, --label, --state, --since, --max-diff-bytes, --limit, --out, --multi-repo, "
    "--resume, --dry-run",
    "prep-data": "--bfcl, --tau-bench, --github, --kinds, --dedup, --limit, --out, --dry-run",
    "extractor-data": "--bfcl, --tau-bench, --tools, --synth, --synth-model, --synth-per-tool, "
    "--min-examples, --out, --dry-run",
    "train-extractor": "--preset, --vocab-size, --tokenizer, --context, --steps, --batch, --lr, --min-lr, "
    "--warmup, --val-split, --eval-every --val-every, --out, --seed, --dry-run",
    "extract": "--query, --stdin, --top-k, --json, --threshold",
    "rerank-train": "--triples, --out, --steps, --lr",
    "compress": "--in --doc, --ratio --keep-frac, --threshold, --max-sentences, --out",
}


@functools.cache
def parsed() -> dict[str, Any]:
    """Every command as its parser sees it."""
    return {name: command for name, (_, command) in docs.parsed().items()}


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
def test_every_command_has_json(name: str) -> None:
    """That it prints nothing else with it is for tests/e2e/test_json.py, which runs them all."""
    assert any("--json" in p.opts for p in parsed()[name].params)


def offered(command: Any, parameter: Any, begun: str = "") -> list[str]:
    """What the shell is told about a parameter."""
    return [item.value for item in parameter.shell_complete(typer.Context(command), begun)]


def test_options_complete() -> None:
    free: set[str] = set()
    for name, command in parsed().items():
        for p in (p for p in command.params if p.param_type_name == "option"):
            names = offered(command, p)
            metavar = p.metavar or p.get_help_record(typer.Context(command))[0].split()[-1]
            if "|" in metavar:
                shown = metavar.removesuffix("|...").split("|")
                assert names[: len(shown)] == shown, f"{name} {p.opts[0]} shows {metavar}, completes {names}"
            free |= set(p.opts[:1]) if metavar == "<str>" and not names else set()
    assert free == FREE, "a text option has names to choose from, or is known to be free"


@pytest.mark.parametrize("name", ["train", "sft", "bench-train"])
def test_a_preset_completes(name: str) -> None:
    preset = next(p for p in parsed()[name].params if "--preset" in p.opts)
    assert offered(parsed()[name], preset, "gpt2-t") == ["gpt2-tiny", "gpt2-titan"]
    assert preset.metavar.startswith("tiny|small|huge|mega|behemoth|titan|")


@pytest.mark.parametrize("name", COMMANDS)
def test_prose_wraps_and_examples_stay(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert call(name, "--help") == 0
    prose, example, _ = re.split(
        r"\n  Example:\n|\n(?=Arguments:|Options:)", capsys.readouterr().out, maxsplit=2
    )
    assert max(map(len, prose.splitlines())) <= 60, "a paragraph is not wrapped"
    text = ast.get_docstring(ast.parse(_root.commands()[name].path.read_text(encoding="utf-8"))) or ""
    lines = [line.strip() for line in text.partition("Example:")[2].splitlines() if line.strip()]
    assert [line.strip() for line in example.splitlines() if line.strip()] == lines


@pytest.mark.parametrize("name", ORIGINAL)
def test_names_of_the_original_work(name: str) -> None:
    known = [{*p.opts, *p.secondary_opts} for p in parsed()[name].params]
    for names in ORIGINAL[name].split(", "):
        assert any(set(names.split()) <= flags for flags in known), f"{name} {names}"


@pytest.mark.parametrize("name", COMMANDS)
def test_unknown_flag(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(name, "--jsonn") == 2
    message = capsys.readouterr().err
    assert "--jsonn" in message and "'--json'" in message, message


@pytest.mark.parametrize("gone", _exit.INSTEAD)
def test_a_flag_that_is_gone_says_what_to_do(gone: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, name, flag = gone.split()
    assert call(name, flag, "1") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"has no option {flag} " in said and " ".join(_exit.INSTEAD[gone].split()) in said


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


@functools.cache
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


@functools.cache
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
    for name in kind.family.names():
        settings = [k["set"].removeprefix("--set ") for k in explain.technique(kind, name)["knobs"]]
        assert resolved(users(kind)[0], kind, [f"{kind.option}={name}", *settings]).name == name


@pytest.mark.parametrize("kind", CHOSEN, ids=lambda k: k.name)
def test_a_family_can_be_chosen_in_every_run_that_has_it(kind: explain.Kind) -> None:
    name = kind.family.names()[0]
    for cls in users(kind):
        assert resolved(cls, kind, [f"{kind.option}={name}"]).name == name


@pytest.mark.parametrize("kind", CHOSEN, ids=lambda k: k.name)
def test_knobs_of_the_default_need_no_name(kind: explain.Kind) -> None:
    for cls in users(kind):
        default = resolved(cls, kind, [])
        if default is None or default.name not in kind.family.names():
            continue  # nothing is chosen unless it is named, or what fits the base
        for knob in explain.technique(kind, default.name)["knobs"]:
            assert resolved(cls, kind, [knob["set"].removeprefix("--set ")]).name == default.name


def resolved(cls: type, kind: explain.Kind, settings: list[str]) -> Pick:
    """The pick that a run of `cls` ends up with, given --set settings."""
    required: dict[str, Any] = {f.name: sample(f.type) for f in config.fields(cls) if f.required}
    if kind.option == "adapter" and any(f.name == "base" for f in config.fields(cls)):
        required["base"] = Path("base")  # what it would learn on
    made = config.from_dict(cls, config.override(required, settings))
    first, _, rest = kind.option.partition(".")
    if not rest:
        value = getattr(made, first)
        return Pick(value) if isinstance(value, str) else value  # a technique without knobs, by name alone
    from tinygpt.model.config import ModelConfig

    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    return getattr(config.from_dict(ModelConfig, {**sizes, **getattr(made, first)}), rest)


def sample(kind: Any) -> Any:
    """Some value of a type."""
    return {int: 1, float: 1.0, bool: True, str: "x", Path: "x"}.get(kind, ["x"])
