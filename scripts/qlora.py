"""Memory and loss of QLoRA against LoRA on a random Qwen3-shaped base: `python scripts/qlora.py [--small]`.

Each variant is `sft` in a process of its own on the same base (stored in bfloat16), rows, order and steps:

    bf16    LoRA on a base that stays bfloat16, computed in bfloat16: few steps, for its memory
    dense   LoRA as this machine's default has it (float32 on CPUs): the losses to compare with
    qlora   the base packed as it is read

The peak is MLX's count of arrays, and beside it the process's resident set with Python and its libraries.
The last line is JSON with every figure."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HOURS = 6 * 3600


def base(path: Path, small: bool) -> None:
    """Write a Qwen3-shaped model with random weights, in bfloat16, with the byte tokenizer."""
    from tinygpt.core.config import Pick
    from tinygpt.data.tokenizer import byte
    from tinygpt.model import checkpoint
    from tinygpt.model.config import ModelConfig
    from tinygpt.model.lm import LM, initialize

    size = {"hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 768} if small else {}
    wanted = {
        "vocab_size": 8192, "hidden_size": 1024, "num_hidden_layers": 16, "intermediate_size": 3072,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 64, "max_position_embeddings": 512,
        "attention": Pick("gqa", {"qk_norm": True}), **size,
    }  # fmt: skip
    config = ModelConfig(**wanted)
    tokenizer = byte.load()
    checkpoint.save(path, initialize(LM(config), 0), write_tokenizer=tokenizer.save, dtype="bfloat16")


def rows(path: Path) -> None:
    """Questions with their answers."""
    lines = []
    for i in range(400):
        a, b = i * 7 % 50, i * 13 % 31
        lines.append({"prompt": f"What is {a} plus {b}?", "completion": f"{a} plus {b} is {a + b}."})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def variant(name: str, work: Path, steps: int, options: dict[str, Any]) -> dict[str, Any]:
    """Train here, and say what it took."""
    from tinygpt.core.backend import mx
    from tinygpt.core.config import Pick
    from tinygpt.core.events import Events, MemorySink
    from tinygpt.runs import sft

    peaks: list[int] = []
    reset = mx.reset_peak_memory

    def keep_and_reset() -> None:  # the estimate before step 1 resets the count; loading belongs to the peak
        peaks.append(mx.get_peak_memory())
        reset()

    mx.reset_peak_memory = keep_and_reset
    before = resident()
    how: dict[str, Any] = {"bf16": {"dtype": "bfloat16"}, "dense": {}, "qlora": {"qlora": True, **options}}
    sink = MemorySink()
    config = sft.Config(
        base=work / "base", data=(work / "rows.jsonl",), out=work / name, steps=steps, batch=1, context=64,
        lr=1e-3, adapter=Pick("lora", {"targets": ["all-linear"]}), learn="all", held_out=0.0, seed=1,
        grad_checkpoint=True, force=True, lock=False, save_every=0, **how[name],
    )  # fmt: skip
    start = time.perf_counter()
    sft.run(config, Events(sink))
    losses = [e.loss for e in sink.events if e.kind == "train.step"]
    return {
        "variant": name, "peak_bytes": max([*peaks, mx.get_peak_memory()]), "rss_bytes": resident(),
        "rss_before": before, "seconds": round(time.perf_counter() - start, 1), "steps": steps,
        "losses": [round(x, 4) for x in losses],
    }  # fmt: skip


def resident() -> int:
    """The largest resident set of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a base of 5 M parameters, to try the script")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--bf16-steps", type=int, default=1)
    parser.add_argument("--bits", type=int, default=0)
    parser.add_argument("--mode", default="affine")
    parser.add_argument("--only", default="bf16,dense,qlora")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.variant:
        work, options = given.work, {"qlora_bits": given.bits, "qlora_mode": given.mode}
        if given.variant == "base":
            base(work / "base", given.small)
            found: dict[str, Any] = {}
        else:
            found = variant(given.variant, work, given.steps, options)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        rows(work / "rows.jsonl")
        found = {}
        for name in ["base", *given.only.split(",")]:
            if name == "base" and (work / "base").exists():
                continue
            steps = given.bf16_steps if name == "bf16" else given.steps
            again = [sys.executable, __file__, "--variant", name, "--work", work, "--steps", steps]
            again += ["--bits", given.bits, "--mode", given.mode, *(["--small"] if given.small else [])]
            done = subprocess.run(
                [str(word) for word in again], check=True, stdout=subprocess.PIPE, text=True, timeout=HOURS
            )
            found[name] = json.loads(done.stdout.splitlines()[-1])
            if name != "base":
                tell(found[name])
    compare(found)
    print(json.dumps(found))


def tell(facts: dict[str, Any]) -> None:
    """One line a variant."""
    losses = facts["losses"]
    tail = losses[-20:]
    mb = {key: facts[key] / 1e6 for key in ("peak_bytes", "rss_bytes", "rss_before")}
    print(
        f"{facts['variant']:6} peak {mb['peak_bytes']:7.1f} MB, resident {mb['rss_bytes']:7.1f} MB"
        f" ({mb['rss_before']:.0f} before), loss {losses[0]:.3f} -> {sum(tail) / len(tail):.3f}"
        f" in {facts['steps']} steps, {facts['seconds']:.0f} s",
        flush=True,
    )


def compare(found: dict[str, dict[str, Any]]) -> None:
    """The two ratios that matter."""
    if {"bf16", "qlora"} <= set(found):
        one, two = found["qlora"], found["bf16"]
        arrays = one["peak_bytes"] / two["peak_bytes"]
        print(f"peak memory of QLoRA over bf16 LoRA: {arrays:.3f} of arrays", end="")
        print(f", {one['rss_bytes'] / two['rss_bytes']:.3f} of the resident set")
    if {"dense", "qlora"} <= set(found):
        ends = [sum(found[n]["losses"][-20:]) / len(found[n]["losses"][-20:]) for n in ("qlora", "dense")]
        print(f"loss of QLoRA over dense LoRA, mean of the last 20 steps: {ends[0] / ends[1]:.4f}")


if __name__ == "__main__":
    main()
