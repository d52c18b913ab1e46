"""Times of an engine in this process, and of a fresh process up to its first token."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tinygpt.core.errors import ConfigError
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.lane import Limits
from tinygpt.infer.request import Piece
from tinygpt.infer.speculate._protocol import Told
from tinygpt.runs._engine import lane_of
from tinygpt.runs._streams import Stream, one_run

if TYPE_CHECKING:
    from tinygpt.core.energy import Meter
    from tinygpt.infer.engine import Engine
    from tinygpt.infer.speculate._protocol import Drafter


def prompts(n: int, length: int, vocab_size: int, seed: int) -> list[list[int]]:
    """Random ids, so that no two prompts begin alike."""
    import numpy as np

    return np.random.default_rng(seed).integers(0, vocab_size, (n, length)).tolist()


def together(engine: Engine, asked: Sequence[Sequence[int]], gen_tokens: int) -> list[Stream]:
    """Greedy answers of a given length, written together from one moment on."""
    config = SampleConfig(temperature=0.0, max_tokens=gen_tokens, seed=0)
    places = sum(len(ids) + gen_tokens for ids in asked)
    lane = lane_of(engine, Limits(rows=len(asked), places=places))
    heard: list[list[float]] = [[] for _ in asked]
    began = time.perf_counter()
    for ids, times in zip(asked, heard, strict=True):

        def hear(piece: Piece, times: list[float] = times) -> None:
            times.append(time.perf_counter())

        lane.submit(engine.request(ids, config, stop_ids=()), hear)
    lane.drain()
    return [
        Stream(began=began, times=times, tokens=len(times), prompt_tokens=len(ids))
        for ids, times in zip(asked, heard, strict=True)
    ]


def repeated(
    engine: Engine, drafter: Drafter | None, asked: Sequence[Sequence[Sequence[int]]], gen_tokens: int,
    *, warm: int, done: Callable[[], None], meter: Meter | None = None,
) -> tuple[list[list[Stream]], dict[str, float]]:  # fmt: skip
    """The runs that count, after `warm` others, and what guessing came to: acceptance, the share of guesses
    that were right; tokens_per_pass; speed_ratio, decoding beside that without guesses, which each run does
    first with the same prompts: the median; energy_per_token_j, where there is a meter."""
    runs: list[list[Stream]] = []
    ratios: list[float] = []
    joules = 0.0
    for i, prompts_of_run in enumerate(asked):
        before = one_run(together(engine, prompts_of_run, gen_tokens)) if drafter is not None else {}
        if drafter is not None and i == warm:
            drafter.told = Told()
        engine.drafter = drafter
        if meter is not None and i >= warm:
            meter.start()
        runs.append(together(engine, prompts_of_run, gen_tokens))
        if meter is not None and i >= warm:
            joules += meter.stop()
        engine.drafter = None
        after = one_run(runs[-1])
        if i >= warm and "decode_tok_s" in before and "decode_tok_s" in after:
            ratios.append(after["decode_tok_s"] / before["decode_tok_s"])
        done()
    told = Told() if drafter is None else drafter.told
    found = {"acceptance": told.accepted / told.drafted} if told.drafted else {}
    found |= {"tokens_per_pass": 1 + told.accepted / told.passes} if told.passes else {}
    found |= {"speed_ratio": statistics.median(ratios)} if ratios else {}
    tokens = sum(stream.tokens for run in runs[warm:] for stream in run)
    return runs[warm:], found | ({} if meter is None else {"energy_per_token_j": joules / tokens})


def cold(words: Sequence[str]) -> float:
    """Milliseconds from the start of a fresh process to the first byte that `tinygpt sample` writes: Python,
    opening the model, a prompt of one letter and a token. The files may be in the system's cache."""
    command = [sys.executable, "-m", "tinygpt", "sample", *words, "--prompt", "x", "--tokens", "1", "--quiet"]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        took = time.perf_counter() - began
        _, errors = process.communicate()
    if process.returncode or not first:
        raise ConfigError(f"a fresh process wrote nothing: {errors.decode(errors='replace').strip()[-300:]}")
    return 1000 * took
