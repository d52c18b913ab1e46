"""Time inference on a model: first token, prefill and decode speed, memory, over several runs."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tinygpt
from tinygpt.core import backend
from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events, Progress
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.runs import _pieces


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to time."""

    model: Annotated[Path, "A model, run or specialist directory."]
    adapter: Annotated[Path | None, "Adapter directory to put on the model."] = None
    batch_size: Annotated[int, "Prompts decoded together; 1: one stream."] = 1
    prompt_tokens: Annotated[int, "Tokens of each prompt."] = 64
    gen_tokens: Annotated[int, "Tokens of each answer."] = 64
    n_runs: Annotated[int, "Runs that count."] = 5
    warm_runs: Annotated[int, "Runs before them."] = 1
    seed: Annotated[int, "Seed of the random prompts."] = 0
    force: Annotated[bool, "Open an adapter that was trained on other weights too."] = False

    def __post_init__(self) -> None:
        least_of = {"batch_size": 1, "prompt_tokens": 1, "gen_tokens": 2, "n_runs": 1, "warm_runs": 0}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least {least}")
        refuse_idle(self, {"force": "adapter"})


def run(config: Config, events: Events) -> dict[str, Any]:
    """Every run and the medians: ttft_ms, prefill and decode tokens a second, itl_ms between tokens."""
    began = time.perf_counter()
    loaded, tokenizer = _pieces.open_model(config.model, config.adapter, force=config.force)
    engine = Engine(loaded.model, tokenizer, _pieces.TEMPLATE)
    load_ms = 1000 * (time.perf_counter() - began)
    total = config.prompt_tokens + config.gen_tokens
    if total > engine.context:
        raise ConfigError(
            f"prompt and answer are {total} tokens, the context {engine.context}", hint="shorten one of them"
        )
    prompts = _prompts(config, tokenizer.vocab_size)
    runs: list[dict[str, float]] = []
    for i in range(config.warm_runs + config.n_runs):
        runs.append(
            _one(engine, prompts[0], config) if config.batch_size == 1 else _many(engine, prompts, config)
        )
        events.emit(Progress(task="runs", done=i + 1, total=config.warm_runs + config.n_runs, unit="runs"))
    counted = runs[config.warm_runs :]
    return {
        "tinygpt": tinygpt.__version__,
        "model": str(config.model),
        "parameters": _pieces.n_parameters(loaded.model),
        "device": backend.setup().device,
        "blas": backend.setup().blas,
        "batch_size": config.batch_size,
        "prompt_tokens": config.prompt_tokens,
        "gen_tokens": config.gen_tokens,
        "load_ms": load_ms,
        "peak_memory_bytes": backend.memory_peak(),
        "summary": {name: statistics.median(r[name] for r in counted) for name in counted[0]},
        "runs": counted,
    }


def _prompts(config: Config, vocab_size: int) -> list[list[int]]:
    import numpy as np

    shape = (config.batch_size, config.prompt_tokens)
    return np.random.default_rng(config.seed).integers(0, vocab_size, shape).tolist()


def _one(engine: Engine, prompt: list[int], config: Config) -> dict[str, float]:
    """One greedy stream: the time to its first token, then the gaps between tokens."""
    settings = SampleConfig(temperature=0.0, max_tokens=config.gen_tokens, seed=0)
    began = time.perf_counter()
    times = [time.perf_counter() for _ in engine.generate(prompt, settings, stop_ids=())]
    gaps = [b - a for a, b in zip(times, times[1:])]
    first = times[0] - began
    return {
        "ttft_ms": 1000 * first,
        "prefill_tok_s": len(prompt) / first,
        "decode_tok_s": len(gaps) / (times[-1] - times[0]),
        "itl_ms": 1000 * statistics.median(gaps),
    }


def _many(engine: Engine, prompts: list[list[int]], config: Config) -> dict[str, float]:
    """A batch of greedy answers: tokens a second over all rows, reading the prompts included."""
    settings = SampleConfig(temperature=0.0, max_tokens=config.gen_tokens, seed=0)
    began = time.perf_counter()
    answers = engine.generate_batch(prompts, settings, stop_ids=())
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "tok_s": sum(len(a.ids) for a in answers) / seconds}
