"""Held-out loss after quantization: trained for it (--qat) against trained plainly, on a small model.

    python scripts/qat.py --seeds 3 --steps 200 --more 80

A model is trained plainly on the Markov chain of spikes.py; the last --more steps go on from there in both
ways. Then mx.quantize rounds the matrices of attention and MLP, and the same unseen batches are read with the
whole weights and with the rounded ones. Weights are drawn as wide as --init says: rounding hurts wide ones
more. With --steps 0 all steps are --more.
"""

from __future__ import annotations

import argparse

from mlx.utils import tree_flatten, tree_unflatten
from spikes import HELD_OUT, LENGTH, VOCAB, Chain

from tinygpt.core.backend import mx
from tinygpt.core.events import Events, MemorySink
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM, initialize
from tinygpt.train.loop import Plan, fit
from tinygpt.train.objective import response
from tinygpt.train.optim import adamw
from tinygpt.train.qat import BITS, group_size, rounds, transform
from tinygpt.train.schedule import cosine
from tinygpt.train.update import Gradient, arrays


def fresh(seed: int, init: float) -> LM:
    """A model of 64 features."""
    config = ModelConfig(
        vocab_size=VOCAB, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=LENGTH, intermediate_size=128, initializer_range=init,
    )  # fmt: skip
    return initialize(LM(config), seed)


def train(model: LM, start: int, steps: int, lr: float, qat: int) -> None:
    """Train for so many bits (0: plainly) on the batches from `start` on."""
    updater = Gradient(
        response.build(model), adamw.build(adamw.Config(weight_decay=0.0)),
        lambda step: lr * cosine.at(step - start, steps - start, cosine.Config()),
        transform=transform(qat, group_size(model)) if qat else None,
    )  # fmt: skip
    fit(Chain(), updater, Plan(steps=steps), Events(MemorySink()), start=start)


def held_out(model: LM) -> float:
    clean, objective = Chain(), response.build(model)
    losses = [float(objective.loss(arrays(clean[HELD_OUT + i]))[0]) for i in range(32)]
    return sum(losses) / len(losses)


def quantize(model: LM, bits: int) -> None:
    """Round the matrices in place, by MLX's own quantizer."""
    size = group_size(model)
    read = []
    for name, w in tree_flatten(model.parameters()):
        if rounds(name, w):
            w = mx.dequantize(*mx.quantize(w, group_size=size, bits=bits), group_size=size, bits=bits)
        read.append((name, w))
    model.update(tree_unflatten(read))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, value in {"seeds": 3, "steps": 200, "more": 80, "bits": 4}.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"[{value}]")
    parser.add_argument("--init", type=float, default=0.2, help="[0.2]")
    options = parser.parse_args()
    assert options.bits in BITS.values()
    for seed in range(options.seeds):
        first = fresh(seed, options.init)
        if options.steps:
            train(first, 0, options.steps, 3e-3, 0)
        weights = first.parameters()
        for qat in (0, options.bits):
            model = fresh(seed, options.init)
            model.update(weights)
            train(model, options.steps, options.steps + options.more, 1e-3 if options.steps else 3e-3, qat)
            whole = held_out(model)
            quantize(model, options.bits)
            after = held_out(model)
            how = f"--qat int{qat}" if qat else "plain"
            print(f"seed {seed} {how:10}: {whole:.4f} whole, {after:.4f} in {options.bits} bits "
                  f"({after - whole:+.4f})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
