"""Every command with --json: JSON on stdout and nothing else, strict enough for any reader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import fake_bfcl
import fake_github
import fake_hub
import fake_tau
import lm_eval_tasks
import nano
import problems
import row_suites
from e2e.shell import NANO, good, refused, tinygpt
from fake_github import FakeGitHub
from fake_hub import FakeHub
from tinygpt.cli import _root
from tinygpt.core.rows import write_rows
from tinygpt.data import atraj
from tinygpt.runs import _agent_facts
from tinygpt.runs._engine import open_engine
from unit.test_core_rows import row

# What each command is called with; {at} is the folder of a short run, {out} a place that is still free.
SPECIALIST = Path(__file__).resolve().parents[2] / "specialists" / "file-ops-tiny"

LINES = {
    "quickstart": "--data {at}/rows.jsonl --out {out} --steps 1",
    "doctor": "",
    "train": "--corpus {at}/corpus.txt --out {out} --steps 1 {nano}",
    "automix": "--corpus a={at}/corpus.txt --corpus b={at}/rows.jsonl --target {at}/run/run.json --dry-run",
    "es": "{at}/run --data {at}/rows.jsonl --out {out} --steps 1 --population 2 --batch 4 --no-compile",
    "sample": "{at}/run --prompt The --tokens 3 --n 2 --quantize 8 --quantize-group 32",
    "train-heads": "{at}/run --corpus {at}/corpus.txt --out {out} --steps 1 --batch 2 --no-compile",
    "infer-heatmap": "{at}/trace.json",
    "generate": "{at}/run --data {at}/asked.jsonl --out {out} --max-tokens 3",
    "chat": "{wide} --max-tokens 3",
    "tokenize-train": "--corpus {at}/corpus.txt --out {out} --vocab-size 300",
    "distill": "{at}/run --teacher {at}/run --corpus {at}/corpus.txt --out {out} --steps 1 --batch 4 "
    "--no-compile",
    "synthesize": "--teacher {wide} --inputs {at}/asked.jsonl --out {out}.jsonl --max-tokens 20 --keep-cut "
    "--temperature 1",
    "magpie": "{wide} --out {out}.jsonl --count 1 --batch 64 --max-attempts 640 --max-user 60 "
    "--max-assistant 60 --min-letters 1 --max-repetition 1 --temperature 1",
    "build-escalate-data": "{at}/judged-by-two.jsonl --out {out}",
    "record-correction": "--intent a --original b --corrected c --dir {out}",
    "corrections-to-data": "--dir {at} --out {out}.jsonl",
    "traces-to-data": "{at}/proxy.jsonl --out {out}.jsonl",
    "reject": "{specialist} --world file_ops --n 3 --samples 2 --out {out}",
    "gold-clone": "--n 3 --out {out}",
    "rest": "{specialist} --world file_ops --n 9 --samples 2 --out {out} --set sft.steps=1 "
    "--set sft.lock=false --set sft.compile=false --set sft.context=256 --set sft.batch=2",
    "finetune": "{at}/run --corpus {at}/corpus.txt --out {out} --steps 1 --batch 4 --no-compile",
    "sft": "{at}/run --data {at}/rows.jsonl --out {out} --steps 1 --batch 4 --no-compile",
    "merge": "{at}/run {at}/run/final --method linear --out {out}",
    "bake-lora": "{at}/run {at}/tuned --out {out}",
    "compare": "{at}/run --adapter {at}/tuned --corpus {at}/corpus.txt --windows 2 --no-sample",
    "adapter-convert": "{at}/tuned --format mlx --out {out}",
    "list-datasets": "--specialist math",
    "download-dataset": "org/data --dry-run",
    "fetch-github": "own/repo --dry-run --api-url {github}",
    "prep-data": "--config {at}/mix.toml --out {out}.jsonl",
    "replay": "{at}/own.atraj --model {at}/run --tolerance 1000",
    "extractor-data": "--tools {at}/tools.json --min-examples 1 --out {out}.jsonl",
    "agent": "{wide} --max-steps 1 --max-tokens 4 --workspace {at}",
    "escalate": "--provider {wide} --prompt hi --max-tokens 3",
    "hf-inspect": "{at}/run",
    "hf-load": "{at}/run --out {out}",
    "dpo": "{wide} --data {at}/pairs.jsonl --out {out} --steps 1 --batch 4 --no-compile",
    "bon": "{at}/run --prompt The --tokens 3 --scan 1,2",
    "eval": "{at}/run --corpus {at}/corpus.txt --out {at}/rows-of-eval.jsonl",
    "eval-gsm8k": "{wide} --data {at}/problems.jsonl --max-tokens 2 --prompt completion",
    "eval-humaneval": "{wide} --data {at}/programs.jsonl --max-tokens 2 --prompt completion",
    "eval-mbpp": "{wide} --data {at}/programs.jsonl --max-tokens 2 --prompt completion",
    "run-lm-eval": "{wide} --tasks own_choice --include-path {at}/tasks --limit 2",
    "eval-sql": "--predictions {at}/sql.jsonl",
    "eval-router": "--predictions {at}/router.jsonl",
    "train-extractor": "{at}/tool-pairs.jsonl --out {out} --steps 1 --no-compile --no-lock --batch 4 "
    "--set model.hidden_size=16 --set model.num_hidden_layers=1",
    "extract": "{at}/router --query f",
    "rerank-train": "--triples {at}/triples.jsonl --out {out} --steps 2 --no-compile --no-lock",
    "compress": "--query cats --in -",
    "eval-milu": "--predictions {at}/milu.jsonl",
    "eval-review": "--predictions {at}/review.jsonl",
    "eval-escalate": "--predictions {at}/escalate.jsonl",
    "eval-scaledown": "--predictions {at}/scaledown.jsonl",
    "eval-indic": "{wide} --task indicgenbench --indicgen-data {at}/xquad.jsonl --max-errors 6",
    "eval-judgement": "{wide} --data {judgement} --limit 2 --max-errors 2",
    "eval-mteb": "{at}/run --data {at}/sts.jsonl",
    "judge": "{wide} --data {at}/judged.jsonl --mode rate --high 5 --max-errors 1",
    "rerank-eval": "--predictions {at}/rerank.jsonl",
    "eval-bfcl": "{wide} --tasks irrelevance --limit 1 --max-tokens 1 --harness-python {at}/bfcl",
    "eval-tau-bench": "{wide} --user-model {wide} --tau-root {at}/tau --limit 1 --harness-python {at}/python",
    "eval-compare": "{at}/rows-of-eval.jsonl",
    "leaderboard": "{at}/ranked.jsonl",
    "eval-gate": "--candidate {at}/rows-of-eval.jsonl --baseline {at}/rows-of-eval.jsonl --out {out}",
    "run-bench": "{at}/run --limit 2 --perplexity {at}/corpus.txt --memorise {at}/corpus.txt --prefix 8 "
    "--go-on 4",
    "filter": "{at}/rows.jsonl --out {out}.jsonl",
    "train-quality-classifier": "--positive {at}/good.txt --negative {at}/poor.txt --out {out}",
    "quality-filter": "{at}/good.txt --classifier {at}/quality --score {out}.jsonl",
    "reasoning-classify": "--filter {at}/depths.jsonl --target-mix single=1 --out {out}.jsonl",
    "dedupe": "{at}/rows.jsonl --out {out}.jsonl --near-dup",
    "bench": "{at}/run --prompt-tokens 2 --gen-tokens 2 --n-runs 1",
    "bench-train": "--preset tiny --batch 1 --context 8 --steps 1 --no-compile",
    "debug-names": "{at}/run",
    "debug-load": "{at}/run",
    "debug-logits": "{at}/run",
    "debug-dtypes": "{at}/run",
    "debug-loss": "{at}/run --text hello",
    "explain": "lora",
    "inspect": "{at}/run --tensors",
    "validate": "{at}/run",
}


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_every_command_is_here() -> None:
    servers = {"serve"}  # they print what they serve at once, and do not end: see test_serve.py
    assert set(LINES) | servers == set(_root.commands()), "give a new command its line"


@pytest.fixture(scope="module")
def wide(trained: Path) -> Path:
    """A run with room for a conversation."""
    corpus, out = trained / "corpus.txt", trained / "wide"
    good("train", "--corpus", corpus, "--out", out, "--steps", 1, *NANO, "--context", 96, "--no-lock")
    return out


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with fake_github.serving(FakeGitHub()) as found:
        found.repository("own/repo")
        yield found


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    nano.require("huggingface_hub")
    with fake_hub.serving(FakeHub()) as found:
        found.add("datasets/org/data", {"train.jsonl": b'{"text": "a"}\n'})
        fake_hub.point_at(found, tmp_path / "cache", monkeypatch)
        yield found


@pytest.mark.parametrize("name", LINES)
def test_stdout_is_json_and_nothing_else(
    name: str, trained: Path, wide: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name == "download-dataset":
        request.getfixturevalue("hub")
    api = request.getfixturevalue("github").endpoint if name == "fetch-github" else ""

    def words(name: str) -> list[str]:
        nano = " ".join(NANO)
        return (
            LINES[name]
            .format(
                judgement=row_suites.FIXTURES,
                specialist=SPECIALIST,
                at=trained,
                wide=wide,
                out=tmp_path / "out",
                nano=nano,
                github=api,
            )
            .split()
        )

    if name in ("eval-compare", "eval-gate") and not (trained / "rows-of-eval.jsonl").exists():
        good("eval", *words("eval"))
    if name == "infer-heatmap":
        told = {"request_id": "a", "route": "/", "total_ms": 1.0, "spans": [], "tokens": []}
        (trained / "trace.json").write_text(json.dumps(told), encoding="utf-8")
    if name == "eval-bfcl":
        fake_bfcl.interpreter(trained / "bfcl")
    if name == "eval-tau-bench":
        fake_tau.clone(trained / "tau", "tau")
        fake_tau.interpreter(trained / "python")
    if name == "eval-gsm8k":
        (trained / "problems.jsonl").write_text(
            '{"question": "1 + 1?", "answer": "#### 2"}\n', encoding="utf-8"
        )
    if name in ("eval-humaneval", "eval-mbpp"):
        problems.need_sandbox()
        told = problems.MBPP if name == "eval-mbpp" else problems.HUMANEVAL
        problems.write(trained / "programs.jsonl", told[:1])
    if name == "leaderboard":
        write_rows(trained / "ranked.jsonl", [row()])
    if name == "run-lm-eval":
        nano.require("lm_eval")
        lm_eval_tasks.write(trained / "tasks")
    if "--predictions" in LINES[name]:
        row_suites.given(name.removeprefix("eval-").removesuffix("-eval"), trained)
    if name == "judge":
        (trained / "judged.jsonl").write_text('{"prompt": "1?", "response": "2"}\n', encoding="utf-8")
    if name == "eval-mteb":
        row_suites.write("sts", trained)
    if name == "eval-indic":
        row_suites.write("xquad", trained)
    if name == "build-escalate-data":
        told = {"prompt": "1?", "response": "1", "local_correct": True}
        (trained / "judged-by-two.jsonl").write_text(json.dumps(told) + "\n", encoding="utf-8")
    if name == "corrections-to-data":
        told = {"intent": "a", "original": "b", "corrected": "c"}
        (trained / "corrections.jsonl").write_text(json.dumps(told) + "\n", encoding="utf-8")
    if name == "traces-to-data":
        told = {"messages": [{"role": "user", "content": "1?"}], "response": "1"}
        (trained / "proxy.jsonl").write_text(json.dumps(told) + "\n", encoding="utf-8")
    if name == "prep-data":
        (trained / "mix.toml").write_text(f'[[sources]]\npath = "{trained}/rows.jsonl"\n')
    if name == "replay":
        model = _agent_facts.of_model(trained / "run", (), open_engine(trained / "run"))
        file = atraj.Writer.begin(trained, atraj.Header(id="own", model=model))
        file.step(atraj.Step(role="assistant", content="", ids=[1, 2], logprobs=[None, -1.0]))
        file.close()
    if name == "extractor-data":
        (trained / "tools.json").write_text('[{"name": "f", "description": "does it"}]')
    if name in ("train-extractor", "extract"):
        nano.require("matplotlib")
        pairs = [{"query": f"{tool} of {i}", "tool": tool} for tool in "fg" for i in range(20)]
        text = "\n".join(map(json.dumps, pairs))
        (trained / "tool-pairs.jsonl").write_text(text, encoding="utf-8")
    if name == "rerank-train":
        triples = [{"query": f"q {i}", "pos_doc": f"q yes {i}", "neg_doc": f"no {i}"} for i in range(20)]
        (trained / "triples.jsonl").write_text("\n".join(map(json.dumps, triples)), encoding="utf-8")
    if name == "extract":
        made = ("--out", trained / "router", "--steps", 1, "--no-compile", "--no-lock")
        small = ("--set", "model.hidden_size=16", "--set", "model.num_hidden_layers=1")
        good("train-extractor", trained / "tool-pairs.jsonl", *made, *small)
    if name in ("train-quality-classifier", "quality-filter"):
        nano.require("matplotlib")
        kinds = {"good": "a clear sentence", "poor": "click here now"}
        for kind, said in kinds.items():
            texts = [f"{said} {i} of {kind} things\n" for i in range(12)]
            (trained / f"{kind}.txt").write_text("\n".join(texts), encoding="utf-8")
    if name == "quality-filter":
        good("train-quality-classifier", *words("train-quality-classifier")[:-1], trained / "quality")
    if name == "reasoning-classify":
        row_of = {"prompt": "Who?", "reasoning_depth": "single-hop"}
        (trained / "depths.jsonl").write_text(json.dumps(row_of) + "\n", encoding="utf-8")
    if name in ("generate", "synthesize"):
        (trained / "asked.jsonl").write_text('{"prompt": "The"}\n', encoding="utf-8")
    if name == "bake-lora":
        given = ("--data", trained / "rows.jsonl", "--out", trained / "tuned", "--steps", 1, "--batch", 4)
        good("sft", trained / "run", *given, "--no-compile", "--no-lock")
    done = good(name, *words(name), "--json", stdin="hello\n\nagain\n")
    found = [json.loads(line, parse_constant=no_constant) for line in done.out.splitlines()]
    assert len(found) == (2 if name == "chat" else 1), "one document, on one line; chat: one a turn"
    assert found[0]


def test_numbers_that_json_lacks_are_null(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tinygpt.cli._render import Output

    Output(json=True).result({"a": [float("nan"), 1.5, float("inf")], "path": trained})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5, None], "path": str(trained)}


def test_markdown_and_json_are_two_answers(tmp_path: Path) -> None:
    done = tinygpt("eval-compare", tmp_path / "no.jsonl", "--markdown", "--json")
    refused(done, "--json and --markdown are two forms", hint="leave one out")
