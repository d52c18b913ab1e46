"""Compare training steps of variants of one model, taken in turns: processor seconds, and the peak of memory.

    OPENBLAS_NUM_THREADS=1 python scripts/bench_depth.py --rounds 6 plain mod diff diff+mod
    OPENBLAS_NUM_THREADS=1 python scripts/bench_depth.py --rounds 2 recompute

12 layers x 256, 4 rows of 512 random tokens, AdamW. Processor seconds of one thread are hardly disturbed by
what else the machine does. The peak is that of the last step, and is told where one variant runs alone, which
then has dropout.
"""

from __future__ import annotations

import argparse
import time

from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM, initialize
from tinygpt.model.noise import Noise
from tinygpt.runs.bench_train import random_batch
from tinygpt.train.objective import next_token
from tinygpt.train.optim import adamw
from tinygpt.train.update import Gradient

SLOTS = {
    "plain": {}, "recompute": {}, "mod": {"depth": Pick("mod")}, "mod2": {"depth": Pick("mod", {"whole": 2})},
    "soft": {"depth": Pick("mod_soft")}, "diff": {"attention": Pick("diff")},
}  # fmt: skip


def updater(name: str, *, noisy: bool) -> Gradient:
    """The updater of a variant: slots joined by a plus sign."""
    slots = {kind: pick for part in name.split("+") for kind, pick in SLOTS[part].items()}
    config = ModelConfig(
        vocab_size=2000, hidden_size=256, num_hidden_layers=12, num_attention_heads=8, num_key_value_heads=4,
        max_position_embeddings=512, **slots,
    )  # fmt: skip
    model = initialize(LM(config), 0)
    model.noise, model.recompute = Noise(dropout=0.1 if noisy else 0.0), "recompute" in name
    return Gradient(next_token.build(model), adamw.build(adamw.Config()), lambda step: 1e-4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("variants", nargs="+")
    parser.add_argument("--rounds", type=int, default=6)
    given = parser.parse_args()
    alone = len(given.variants) == 1
    updaters = {name: updater(name, noisy=alone) for name in given.variants}
    batch = random_batch(2000, 4, 512, 0)
    times: dict[str, list[float]] = {name: [] for name in updaters}
    for step in range(1, given.rounds + 1):
        for name, update in updaters.items():
            mx.reset_peak_memory()
            began = time.process_time()
            update.step(batch, step)
            times[name].append(time.process_time() - began)
    best = {name: min(values[1:] or values) for name, values in times.items()}
    for name, seconds in best.items():
        print(f"{name:12} {seconds:.3f} s  {seconds / best[given.variants[0]]:.3f}")
    if alone:
        print(f"peak {mx.get_peak_memory() / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
