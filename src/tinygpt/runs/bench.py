"""Time inference: first token, prefill and decode speed, gaps between tokens, memory; here or of a server."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tinygpt
from tinygpt.core import backend, energy
from tinygpt.core.config import flag, refuse_idle
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.runs import _bench_engine, _bench_plot, _bench_rows, _pieces
from tinygpt.runs._adapters import Adapters
from tinygpt.runs._bench_url import Load
from tinygpt.runs._drafters import Drafters, Speculation
from tinygpt.runs._engine import open_engine
from tinygpt.runs._openai import Client
from tinygpt.runs._streams import Told, listed, measured, together


@dataclass(frozen=True, kw_only=True)
class Config(Adapters, Speculation):
    """What to time."""

    model: Annotated[Path, "A model, run or specialist directory; with --url the server's name for it."]
    batch_sizes: Annotated[tuple[int, ...], "Numbers of streams that are written together, as 1,8,32."] = (1,)
    prompt_tokens: Annotated[tuple[int, ...], "Lengths of prompts, as 64,1024; with --url in words."] = (64,)
    gen_tokens: Annotated[int, "Tokens of each answer."] = 64
    n_runs: Annotated[int, "Runs that count; with --url requests of each client."] = 5
    warm_runs: Annotated[int, "Runs before them."] = 1
    seed: Annotated[int, "Seed of the random prompts."] = 0
    cold: Annotated[bool, "Also time a fresh process up to its first token."] = True
    energy: Annotated[bool, "Also joules a token, where this machine's counters may be read."] = True
    url: Annotated[str, "Time a server instead, as http://127.0.0.1:8080/v1."] = ""
    concurrency: Annotated[tuple[int, ...], "With --url: numbers of clients at once, as 1,8,32."] = ()
    chat: Annotated[bool, "With --url: ask its chat, not its completions."] = False
    ignore_eos: Annotated[bool, "With --url: have it write on past an end, where it knows that field."] = (
        False
    )
    plot: Annotated[Path | None, "Picture of the figures to write: .png, .svg or .pdf."] = None
    out: Annotated[Path | None, "JSONL file to append the figures to, as eval rows."] = None
    model_name: Annotated[str, "Model name in the rows; empty: the directory's, or the server's."] = ""

    def __post_init__(self) -> None:
        Adapters.__post_init__(self)
        Speculation.__post_init__(self)
        least_of = {
            "batch_sizes": 1, "prompt_tokens": 1, "concurrency": 1, "gen_tokens": 2, "n_runs": 1,
            "warm_runs": 0,
        }  # fmt: skip
        for name, least in least_of.items():
            given = getattr(self, name)
            if any(value < least for value in (given if isinstance(given, tuple) else (given,))):
                raise ConfigError(f"{flag(name)} must be at least {least}")
        if self.plot is not None and self.plot.suffix.lower() not in _bench_plot.KINDS:
            raise ConfigError(f"--plot {self.plot} is no picture", hint="name it .png, .svg or .pdf")
        refuse_idle(self, {"concurrency": "url", "chat": "url", "ignore_eos": "url", "model_name": "out"})
        if self.url and (self.adapter or self.guessing or self.batch_sizes != (1,)):
            what = "--adapter" if self.adapter else self.guessing or "--batch-sizes"
            raise ConfigError(f"{what} says nothing to a server", hint="use --concurrency for its load")


def run(config: Config, events: Events) -> dict[str, Any]:
    """Facts of what was timed, and `settings`: the figures for each length of prompts and number of streams.
    See runs/_streams.py for what they mean."""
    if config.plot is not None:
        _bench_plot.plotter()  # refused before the work
    began = time.perf_counter()
    found = _server(config, events) if config.url else _engine(config, events)
    if config.plot is not None:
        by = "concurrency" if config.url else "batch_size"
        _bench_plot.draw(config.plot, found["settings"], by=by, title=f"{found['model']}")
    if config.out is not None:
        _bench_rows.write(config.out, found, name=config.model_name, n=config.n_runs, began=began)
    return found


def _engine(config: Config, events: Events) -> dict[str, Any]:
    began = time.perf_counter()
    engine = open_engine(config.model, config, events)
    drafter = Drafters(config, config.model, events)(engine)
    load_ms = 1000 * (time.perf_counter() - began)
    total = max(config.prompt_tokens) + config.gen_tokens
    if total > engine.context:
        raise ConfigError(
            f"prompt and answer are {total} tokens, the context {engine.context}", hint="shorten one of them"
        )
    told = Told(events, config.n_runs + config.warm_runs, config.prompt_tokens, config.batch_sizes)
    meter, warnings = energy.meter(gpu=not backend.on_cpu()) if config.energy else (None, [])
    settings: list[dict[str, Any]] = []
    for length in config.prompt_tokens:
        for size in config.batch_sizes:
            asked = [
                _bench_engine.prompts(size, length, engine.tokenizer.vocab_size, config.seed + i)
                for i in range(config.warm_runs + config.n_runs)
            ]
            counted, guessed = _bench_engine.repeated(
                engine, drafter, asked, config.gen_tokens,
                warm=config.warm_runs, done=told.one_more, meter=meter,
            )  # fmt: skip
            sizes = {"batch_size": size, "prompt_tokens": length, "gen_tokens": config.gen_tokens}
            # Of the process, so of all settings up to this one.
            peak = {"peak_memory_bytes": backend.memory_peak()}
            settings.append(sizes | measured(counted) | guessed | peak | {"runs": listed(counted)})
    found: dict[str, Any] = {
        "tinygpt": tinygpt.__version__,
        "model": str(config.model),
        "parameters": _pieces.n_parameters(engine.model),
        "device": backend.setup().device,
        "blas": backend.setup().blas,
        "load_ms": load_ms,
        "energy": meter.source if meter is not None else None,
        "warnings": warnings,
    }
    if config.cold:
        words = [str(config.model), *(f"--adapter={path}" for path in config.adapter)]
        words += [f"--adapter-weight={w}" for w in config.adapter_weight]
        found["cold_ttft_ms"] = _bench_engine.cold(
            [*words, *config.words, *(["--force"] if config.force else [])]
        )
    return found | {"settings": settings}


def _server(config: Config, events: Events) -> dict[str, Any]:
    client = Client(config.url, tries=1)
    model = str(config.model) if str(config.model) != "." else client.model()
    load = Load(client, model, config.chat, config.ignore_eos, config.gen_tokens)
    clients = config.concurrency or (1,)
    told = Told(events, 1, config.prompt_tokens, clients)
    settings: list[dict[str, Any]] = []
    for length in config.prompt_tokens:
        for n in clients:
            first = config.seed + 1_000_003 * len(settings)  # no prompt comes twice: a cache would know it
            for i in range(config.warm_runs):
                load.at_once(n, 1, length, first + n * (config.n_runs + i))
            streams = load.at_once(n, config.n_runs, length, first)
            seen = sum(s.prompt_tokens for s in streams) / len(streams)
            sizes = {"concurrency": n, "prompt_tokens": length, "gen_tokens": config.gen_tokens}
            # Clients are not in step, so reading and writing are timed for each request alone.
            each = measured([[stream] for stream in streams])
            settings.append(sizes | {"prompt_tokens_seen": seen} | each | {"tok_s": together(streams)})
            told.one_more()
    return {
        "tinygpt": tinygpt.__version__, "url": client.url, "model": model, "warnings": load.warnings(),
        "settings": settings,
    }  # fmt: skip
