"""The figures of a bench as eval rows, so that tables and the leaderboard hold speed beside accuracy."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import tinygpt
from tinygpt.core.rows import EvalRow, write_rows

TASK = "bench"
FIGURES = ("decode_tok_s", "prefill_tok_s", "tok_s", "ttft_ms_p50", "itl_ms_p50", "peak_memory_bytes")


def rows(found: dict[str, Any], *, name: str, n: int, seconds: float) -> list[EvalRow]:
    """A row for each figure of each setting; the subtask says which, as "64 tokens x 8"."""
    told: list[EvalRow] = []
    for one in found["settings"]:
        by = next(key for key in ("batch_size", "concurrency") if key in one)
        subtask = f"{one['prompt_tokens']} tokens x {one[by]}"
        settings = {key: one[key] for key in (by, "prompt_tokens", "gen_tokens")}
        settings |= {key: found[key] for key in ("device", "blas") if key in found}
        told += [
            EvalRow(
                model_path=found.get("url") or found["model"], model_name=name, task=TASK, subtask=subtask,
                metric=metric, score=float(one[metric]), n_examples=n, wall_seconds=round(seconds, 3),
                harness_version=f"tinygpt {tinygpt.__version__}", batch_size=one[by], settings=settings,
            )
            for metric in FIGURES if metric in one
        ]  # fmt: skip
    return told


def write(path: Path, found: dict[str, Any], *, name: str, n: int, began: float) -> None:
    """Append them to a file."""
    name = name or (found["model"] if "url" in found else Path(found["model"]).resolve().name)
    write_rows(path, rows(found, name=name, n=n, seconds=time.perf_counter() - began), append=True)
