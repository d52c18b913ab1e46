"""Times of an engine in this process, and of a fresh process up to its first token."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinygpt.core.errors import ConfigError
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.lane import Limits
from tinygpt.infer.request import Piece
from tinygpt.runs._engine import lane_of
from tinygpt.runs._streams import Stream

if TYPE_CHECKING:
    from tinygpt.infer.engine import Engine


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
