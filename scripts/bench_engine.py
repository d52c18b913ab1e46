"""Contestants of scripts/bench.py that race against themselves: what is kept, guessed and enforced.

Each is a function of a directory that returns figures; it runs in a process of its own, the ways in turn.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PROMPT = 1000  # tokens of the prompt that is known or not
ANSWER = 100  # tokens written with a draft and without
ROUNDS = 5
TEXT = "the cat sat "
SENTENCES = (
    "the cat sat on the mat and looked at the moon.", "a small boat sails over the deep blue sea.",
    "she sells fresh bread and milk at the market.", "every morning the old man feeds the birds.",
)  # fmt: skip
BASE = {"hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 4}
DRAFT = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}


def prefix(model: Path) -> dict[str, float]:
    """Time to the first token of a prompt that is new, and of one whose beginning is known."""
    from tinygpt.infer.config import SampleConfig
    from tinygpt.infer.lane import Lane
    from tinygpt.infer.prefix import Prefixes
    from tinygpt.runs import _bench_engine as ours
    from tinygpt.runs._engine import open_engine

    engine = open_engine(model)
    lane = Lane(engine, prefixes=Prefixes(1 << 30))

    def first(ids: list[int]) -> float:
        began = time.perf_counter()
        answer = lane.submit(engine.request(ids, SampleConfig(temperature=0, max_tokens=1, seed=0)))
        lane.drain()
        return (answer.times.ended - began) * 1e3

    found: dict[str, list[float]] = {"miss_ms": [], "hit_ms": []}
    for seed in range(ROUNDS + 1):
        (ids,) = ours.prompts(1, PROMPT, engine.tokenizer.vocab_size, seed)
        miss, hit = first(ids), first([*ids[:-8], *ids[:8]])
        if seed:
            found["miss_ms"].append(miss)
            found["hit_ms"].append(hit)
    return {name: min(times) for name, times in found.items()}


def make_pair(folder: Path) -> None:
    """A base and its draft, trained on a repetitive text."""
    rng, corpus = random.Random(0), folder / "text.txt"
    corpus.write_text("\n".join(rng.choice(SENTENCES) for _ in range(12_000)))
    for name, sizes, flags in (
        ("base", BASE, ("--steps", 90, "--batch", 6, "--lr", 2e-3)),
        ("draft", DRAFT, ("--steps", 400, "--batch", 8, "--lr", 5e-3)),
    ):
        words = [word for key, size in sizes.items() for word in ("--set", f"model.{key}={size}")]
        subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "tinygpt",
                    "train",
                    "--corpus",
                    str(corpus),
                    "--out",
                    str(folder / name),
                ),
                *("--context", "128", "--seed", "1", "--quiet", *map(str, flags), *words),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )


def draft(folder: Path) -> dict[str, float]:
    """Seconds of an answer without a draft and with one, greedy and drawn, and tokens a pass."""
    from tinygpt.infer.config import SampleConfig
    from tinygpt.infer.speculate import draft as way
    from tinygpt.runs._engine import open_engine

    engine, small = (open_engine(folder / name / "final") for name in ("base", "draft"))
    guesses = way.build(engine, way.Config(), draft=small)
    found: dict[str, list[float]] = {}
    for _ in range(ROUNDS + 1):
        for temperature in (0.0, 0.7):
            config = SampleConfig(temperature=temperature, max_tokens=ANSWER, seed=1)
            for name, drafter in (("plain", None), ("draft", guesses)):
                engine.drafter = drafter
                began = time.perf_counter()
                engine.generate_batch([engine.encode(TEXT)], config, stop_ids=())
                found.setdefault(f"{name}_{temperature:g}_s", []).append(time.perf_counter() - began)
    told = guesses.told
    return {n: min(times[1:]) for n, times in found.items()} | {"per_pass": 1 + told.accepted / told.passes}


CONTESTANTS: dict[str, Callable[[Path], dict[str, float]]] = {"prefix": prefix, "draft": draft}
