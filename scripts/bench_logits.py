"""Peak memory of the loss over a large vocabulary: all logits at once against chunks that are recomputed.

    python scripts/bench_logits.py [--vocab 150000 --tokens 2048 --width 256 --z-loss 0]

Forward and backward of the output matrix and its losses alone. Peaks contain the matrix and its gradient,
which both ways need; time is of one run.
"""

from __future__ import annotations

import argparse
import time


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in dict(vocab=150_000, tokens=2048, width=256).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--z-loss", type=float, default=0.0)
    a = parser.parse_args()
    import numpy as np

    from tinygpt.core.backend import mx, nn
    from tinygpt.model import ops
    from tinygpt.model.output import Output, token_losses

    matrix, table = mx.random.normal((a.vocab, a.width), key=mx.random.key(0)) * 0.05, nn.Embedding(1, 1)
    x_BLD = mx.random.normal((1, a.tokens, a.width), key=mx.random.key(1))
    targets_BL = mx.random.randint(0, a.vocab, (1, a.tokens), key=mx.random.key(2))
    mx.eval(matrix, x_BLD, targets_BL)

    def loss(matrix: mx.array, x_BLD: mx.array) -> mx.array:
        table.weight = matrix
        nats_BL, log_z_BL = token_losses(Output(table), x_BLD, targets_BL, a.vocab)
        return nats_BL.mean() + a.z_loss * log_z_BL.square().mean()

    step, found = mx.value_and_grad(loss, argnums=(0, 1)), []
    for name, most in (("chunks", ops.LOGITS), ("at once", a.tokens * a.vocab)):
        ops.LOGITS = most
        mx.clear_cache()
        mx.reset_peak_memory()
        begun = time.perf_counter()
        value, gradients = step(matrix, x_BLD)
        mx.eval(value, gradients)
        seconds = time.perf_counter() - begun
        print(f"{name:8} loss {value.item():.6f}  peak {mx.get_peak_memory() / 1e6:6.0f} MB  {seconds:.1f} s")
        table.weight = matrix
        found.append([np.array(x) for x in (value, *gradients)])  # out of the memory that is counted
    worst = max(float(np.abs(p - q).max() / np.abs(q).max()) for p, q in zip(*found))
    print(f"largest difference of loss and gradients: {worst:.1e} of the largest value")


if __name__ == "__main__":
    main()
