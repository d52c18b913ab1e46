"""Speed and memory against live peers, measured in one run: ratios first, then the figures behind them.

    make bench        (or: python scripts/bench.py [--only train,tune,write,serve,own,stock,start] [--json])

Training: one step of a Llama-shaped model, 12 layers x 256, 512 tokens x 4 rows, float32, against PyTorch
eager and against MLX as its wheel installs it. Tuning: LoRA (rank 8, all matrices of the blocks) on a base
of 8 layers x 512, the same rows, against mlx-lm's own trainer. Writing (scripts/bench_streams.py), against
mlx-lm on the same weights: one greedy stream, a long prompt, 8 and 32 answers together (its batch generator),
and with --only serve 8 and 32 clients of both servers; the peer may keep products to one thread or not,
whichever is better. Ourselves against ourselves (scripts/bench_engine.py): a known prompt, a draft
model trained here, and what a constraint costs (scripts/bench_constrain.py). Every contestant runs in a
process of its own, in turn, and its best run counts: that is what the machine can do when nothing disturbs
it. Memory is the process's peak.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import bench_engine
import bench_llama
from bench_streams import CONTESTANTS

if TYPE_CHECKING:
    from tinygpt.data.batch import Batch

# What is compared with mlx-lm: the contestant, and its figures.
WRITING = {
    "single": {
        "decode_tok_s": "one stream, tokens a second (higher is better)",
        "prefill_tok_s": "a prompt of 512, tokens a second (higher is better)",
        "peak_mb": "one stream, peak memory (lower is better)",
    },
    **{
        name: {"tok_s": f"{what}, tokens a second (higher is better)"}
        for name, what in {
            "many-8": "8 answers together", "many-32": "32 answers together",
            "served-8": "8 clients over HTTP", "served-32": "32 clients over HTTP",
        }.items()
    },
}  # fmt: skip
PARTS = ("train", "tune", "write", "serve", "own", "stock", "start")
USUAL = tuple(part for part in PARTS if part != "serve")
LAYERS, WIDTH, HEADS, LENGTH, ROWS, VOCAB = 12, 256, 8, 512, 4, 2000


def ours(steps: int, *, compiled: bool = True) -> dict[str, float]:
    """A training step of the product's own model and updater."""
    from tinygpt.model.config import ModelConfig
    from tinygpt.runs.bench_train import time_steps

    config = ModelConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=LENGTH,
    )
    warmup = 2 if steps > 1 else 0
    times = time_steps(config, batch=ROWS, context=LENGTH, steps=steps, warmup=warmup, compiled=compiled)
    return {"seconds": min(times)}


def eager(steps: int) -> dict[str, float]:
    """The same step of transformers' Llama in PyTorch eager."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=704,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
        use_cache=False,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    tokens = torch.randint(0, VOCAB, (ROWS, LENGTH))
    times = []
    for _ in range(steps + 2):
        began = time.perf_counter()
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        times.append(time.perf_counter() - began)
    return {"seconds": min(times[2:])}


def rows_of(model: Path, steps: int) -> Batch:
    """Random tokens for `steps` batches, the same for both trainers."""
    from tinygpt.runs.bench_train import random_batch

    vocab_size = json.loads((model / "config.json").read_text())["vocab_size"]
    return random_batch(vocab_size, ROWS * steps, LENGTH, 0)


def tune(model: Path, steps: int) -> dict[str, float]:
    """LoRA by our loop: tokens a second of the best step, peak memory of MLX's arrays."""
    from tinygpt.core.backend import mx
    from tinygpt.core.config import Pick
    from tinygpt.core.events import Events, MemorySink, TrainStep
    from tinygpt.model import checkpoint
    from tinygpt.peft import _adapter
    from tinygpt.train.loop import Plan, fit
    from tinygpt.train.objective import next_token
    from tinygpt.train.optim import adamw
    from tinygpt.train.update import Gradient

    loaded, told = checkpoint.load(model), MemorySink()
    _adapter.attach(loaded.model, Pick("lora", {"rank": 8, "alpha": 16, "targets": ("all-linear",)}))
    batch = rows_of(model, steps)
    updater = Gradient(
        next_token.build(loaded.model),
        adamw.build(adamw.Config(weight_decay=0.0)),
        lambda step: 1e-5,
        clip=0.0,
    )
    source = [batch.rows(i * ROWS, (i + 1) * ROWS) for i in range(steps)]
    fit(source, updater, Plan(steps=steps), Events(told))
    rates = [event.tok_s for event in told.events if isinstance(event, TrainStep)]
    return {"tok_s": max(rates), "arrays_mb": mx.get_peak_memory() / 1e6}


def tune_peer(model: Path, steps: int) -> dict[str, float]:
    """The same by mlx-lm's trainer. TINYGPT_BLAS decides which BLAS it gets."""
    from tinygpt.core.backend import mx, setup

    setup()
    import mlx.optimizers
    from mlx_lm.tuner import trainer
    from mlx_lm.tuner.callbacks import TrainingCallback
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    peer, _ = load_model(model)
    peer.freeze()
    linear_to_lora_layers(peer, len(peer.layers), {"rank": 8, "scale": 2.0, "dropout": 0.0})
    batch, rates = rows_of(model, steps), list[float]()
    rows = [([*map(int, row), int(last[-1])], 0) for row, last in zip(batch.tokens, batch.targets)]

    class Rates(TrainingCallback):
        def on_train_loss_report(self, train_info: dict[str, float]) -> None:
            rates.append(train_info["tokens_per_second"])

    with tempfile.TemporaryDirectory() as scratch:
        arguments = trainer.TrainingArgs(
            batch_size=ROWS, iters=steps, steps_per_report=1, steps_per_save=10**9, max_seq_length=LENGTH + 1,
            adapter_file=f"{scratch}/adapters.safetensors",
        )  # fmt: skip
        with contextlib.redirect_stdout(sys.stderr):
            trainer.train(
                peer, mlx.optimizers.Adam(learning_rate=1e-5), rows, args=arguments, training_callback=Rates()
            )
    return {"tok_s": max(rates), "arrays_mb": mx.get_peak_memory() / 1e6}


def tokenise() -> dict[str, float]:
    """MB of Python source a second through a 4096-token BPE, against the library alone on one text."""
    import sysconfig

    from tinygpt.data import bpe

    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [f.read_text(encoding="utf-8") for f in files]
    tokenizer = bpe.train_bpe(texts, bpe.Config(vocab_size=4096))
    tokenizer.encode_batch(texts[:4])
    size = sum(len(t.encode()) for t in texts) / 1e6
    began = time.perf_counter()
    tokenizer.encode_batch(texts)
    return {"mb_s": size / (time.perf_counter() - began)}


def help_ms() -> dict[str, float]:
    """Milliseconds of `tinygpt --help` and of the slowest `X --help`, best of three each."""
    from tinygpt.cli._root import commands

    def best(*words: str) -> float:
        times = []
        for _ in range(3):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-m", "tinygpt", *words], capture_output=True, check=True)
            times.append(time.perf_counter() - began)
        return 1000 * min(times)

    each = {name: best(name, "--help") for name in commands()}
    slowest = max(each, key=lambda name: each[name])
    return {"root_ms": best("--help"), "slowest_ms": each[slowest], "slowest": slowest}  # type: ignore[dict-item]


def make_model(path: Path) -> None:
    """A random 2.8 M parameter model to decode with."""
    from tinygpt.data.tokenizer import byte
    from tinygpt.model import checkpoint
    from tinygpt.model.lm import LM, initialize
    from tinygpt.model.presets import preset

    tokenizer = byte.load()
    model = initialize(LM(preset("small", vocab_size=tokenizer.vocab_size, max_position_embeddings=1024)), 0)
    checkpoint.save(path, model, write_tokenizer=tokenizer.save, ids={"eos": tokenizer.eos_id})


def make_base(path: Path) -> None:
    """A random 28 M parameter base to tune, Llama-shaped."""
    from tinygpt.data.tokenizer import byte
    from tinygpt.model import checkpoint
    from tinygpt.model.config import ModelConfig
    from tinygpt.model.lm import LM, initialize

    config = ModelConfig(
        vocab_size=8192, hidden_size=512, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4,
        max_position_embeddings=LENGTH,
    )  # fmt: skip
    checkpoint.save(path, initialize(LM(config), 0), write_tokenizer=byte.load().save)


def child(what: str, *arguments: str, **environ: str) -> dict[str, float]:
    """Run one contestant in a fresh process and add its peak memory."""
    environment = {**os.environ, **environ}
    command = [sys.executable, __file__, "--child", what, *arguments]
    out = subprocess.run(command, capture_output=True, text=True, env=environment)
    if out.returncode:
        sys.exit(f"{what} failed:\n{out.stderr}")
    return json.loads(out.stdout.splitlines()[-1])


def constraint() -> dict[str, float]:
    """What a mask of a JSON Schema costs beside a step, at 150,000 ids."""
    script = Path(__file__).with_name("bench_constrain.py")
    out = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    if out.returncode:
        sys.exit(f"{script.name} failed:\n{out.stderr}")
    found = json.loads(out.stdout.splitlines()[-1])
    step, mask, apply = (found[name][0] for name in ("step_ms", "mask_ms", "apply_ms"))
    return {"without_ms": step, "with_ms": step + mask + apply}


def run_child(what: str, arguments: list[str]) -> None:
    calls = {
        "ours": lambda: ours(6),
        "stock": lambda: ours(1, compiled=False),
        "eager": lambda: eager(6),
        "tune": lambda: tune(Path(arguments[0]), 6),
        "tune-peer": lambda: tune_peer(Path(arguments[0]), 6),
        **{
            name: lambda f=f: f(Path(arguments[0]))
            for name, f in (CONTESTANTS | bench_engine.CONTESTANTS | bench_llama.CONTESTANTS).items()
        },
        "tokenise": tokenise,
        "help": help_ms,
    }
    found = calls[what]()
    unit = 1 if sys.platform == "darwin" else 1024
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    print(json.dumps(found))


def ratios() -> dict[str, tuple[tuple[str, str], tuple[str, str]]]:
    """What is shown first: the figure of one contestant over that of another."""
    same = {
        "training step / PyTorch eager (lower is better)": (
            "train: tinygpt", "train: PyTorch eager", "seconds",
        ),
        "training step / plain MLX (lower is better)": ("train: tinygpt", "train: plain MLX", "seconds"),
        "LoRA, tokens a second / mlx-lm, same BLAS (higher is better)": (
            "tune: tinygpt", "tune: mlx-lm, same BLAS", "tok_s",
        ),
        "LoRA, peak memory / mlx-lm, same BLAS (lower is better)": (
            "tune: tinygpt", "tune: mlx-lm, same BLAS", "peak_mb",
        ),
        "LoRA, tokens a second / mlx-lm as installed (higher is better)": (
            "tune: tinygpt", "tune: mlx-lm, its own BLAS", "tok_s",
        ),
        "one stream, tokens a second / mlx-lm as installed (higher is better)": (
            "single: tinygpt", "single: mlx-lm, its own BLAS", "decode_tok_s",
        ),
        "one stream, tokens a second / llama.cpp, where it is installed (higher is better)": (
            "single: tinygpt", "single: llama.cpp", "decode_tok_s",
        ),
        **{
            f"{what} / mlx-lm, same BLAS": (f"{name}: tinygpt", f"{name}: mlx-lm", key)
            for name, figures in WRITING.items()
            for key, what in figures.items()
        },
    }  # fmt: skip
    own = {
        f"first token after {bench_engine.PROMPT} tokens, new / known (higher is better)": (
            "prefix", "miss_ms", "hit_ms",
        ),
        "repetitive text, greedy, plain / with a draft (higher is better)": (
            "draft", "plain_0_s", "draft_0_s",
        ),
        "the same at temperature 0.7 (higher is better)": ("draft", "plain_0.7_s", "draft_0.7_s"),
        "a step at 150,000 ids, with a JSON Schema / without (lower is better)": (
            "constraint", "with_ms", "without_ms",
        ),
    }  # fmt: skip
    return {what: ((a, key), (b, key)) for what, (a, b, key) in same.items()} | {
        what: ((of, a), (of, b)) for what, (of, a, b) in own.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--only", default=",".join(USUAL), help="parts, of " + ", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=2, help="turns of each pair; the best counts")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        run_child(given.child[0], given.child[1:])
        return
    if wrong := set(parts := given.only.split(",")) - set(PARTS):
        parser.error(f"--only: there is no part {', '.join(sorted(wrong))}; there are {', '.join(PARTS)}")
    found: dict[str, dict[str, float]] = {}

    def keep(name: str, key: str, better: Callable[..., float], one: dict[str, float]) -> None:
        if name not in found or better(one[key], found[name][key]) == one[key]:
            found[name] = one

    with tempfile.TemporaryDirectory() as scratch:
        model, base = Path(scratch) / "model", Path(scratch) / "base"
        make_model(model)
        make_base(base)
        for _ in range(given.rounds):
            if "train" in parts:
                keep("train: tinygpt", "seconds", min, child("ours"))
                keep("train: PyTorch eager", "seconds", min, child("eager"))
            if "tune" in parts:
                keep("tune: tinygpt", "tok_s", max, child("tune", str(base)))
                keep("tune: mlx-lm, same BLAS", "tok_s", max, child("tune-peer", str(base)))
            for name in WRITING:
                if ("serve" if name.startswith("served") else "write") not in parts:
                    continue
                main_figure = "decode_tok_s" if name == "single" else "tok_s"
                keep(f"{name}: tinygpt", main_figure, max, child(name, str(model)))
                for threads in ({}, {"OPENBLAS_NUM_THREADS": "1"}):
                    one = child(f"{name}-peer", str(model), **threads)
                    keep(f"{name}: mlx-lm", main_figure, max, one)
                if name == "single" and bench_llama.installed():
                    keep("single: llama.cpp", main_figure, max, child("single-llama", str(model)))
        if "own" in parts:
            pair = Path(scratch) / "pair"
            pair.mkdir()
            bench_engine.make_pair(pair)
            found["draft"] = child("draft", str(pair))
            found["prefix"] = child("prefix", str(model))
            found["constraint"] = constraint()
        if "stock" in parts:
            own = {"TINYGPT_BLAS": "reference"}
            found["train: plain MLX"] = child("stock", **own)
            found["tune: mlx-lm, its own BLAS"] = child("tune-peer", str(base), **own)
            found["single: mlx-lm, its own BLAS"] = child("single-peer", str(model), **own)
        if "start" in parts:
            found["tokenise"] = child("tokenise")
            found["help"] = child("help")
    shown = {
        what: found[a][x] / found[b][y]
        for what, ((a, x), (b, y)) in ratios().items()
        if a in found and b in found
    }
    if given.json:
        print(json.dumps({"ratios": shown, "figures": found}))
        return
    for name, ratio in shown.items():
        print(f"{ratio:8.2f}  {name}")
    print()
    for name, facts in found.items():
        print(
            f"{name:32} "
            + "  ".join(f"{k} {v:,.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in facts.items())
        )


if __name__ == "__main__":
    main()
