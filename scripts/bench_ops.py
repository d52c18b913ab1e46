"""What a training step on this CPU is made of: milliseconds of each operator, forward and backward.

    python scripts/bench_ops.py [--layers 12 --width 256 --length 512 --batch 4 --vocab 2000]

Each row is one operator on one lane (a core's share of the batch) alone, the minimum over runs, times the
number of such operators in the model of scripts/bench_step.py. The step takes a little more than the sum.
"""

from __future__ import annotations

import argparse
import time

HEAD = 32


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in dict(
        layers=12, width=256, hidden=688, length=512, batch=4, vocab=2000, runs=9
    ).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    from tinygpt.core.backend import compile, mx, shards, streams
    from tinygpt.model import ops

    B, L, D, F, H = a.batch // len(streams(a.batch)), a.length, a.width, a.hidden, a.width // HEAD
    x, g, qkv = (B, L, D), (B, L, F), (B, H, L, HEAD)
    y = mx.random.randint(0, a.vocab, (B * L,))

    def linear(x, w):
        return x @ w.T

    def heads(x):
        return ops.rope(x.reshape(B, L, H, HEAD).transpose(0, 2, 1, 3))

    table = [
        ("rms_norm", 2 * a.layers + 1, lambda x, w: ops.rms_norm(x, w, 1e-5), x, (D,)),
        ("q k v o products", 4 * a.layers, linear, x, (D, D)),
        ("gate up products", 2 * a.layers, linear, x, (F, D)),
        ("down product", a.layers, linear, g, (D, F)),
        ("split heads, rope", 2 * a.layers, heads, x),
        ("attention", a.layers, lambda q, k, v: ops.attention(q, k, v, scale=HEAD**-0.5), qkv, qkv, qkv),
        ("swiglu", a.layers, ops.swiglu, g, g),
        ("logits product", 1, linear, (B * L, D), (a.vocab, D)),
        ("cross-entropy", 1, lambda x: ops.cross_entropy(x, y), (B * L, a.vocab)),
    ]
    total = 0.0
    for name, count, fn, *inputs in table:
        arrays = [mx.random.normal(shape) for shape in inputs]
        cotangent = mx.random.normal(fn(*arrays).shape)
        both = compile(lambda c, *arrays, fn=fn: mx.vjp(fn, list(arrays), [c]))
        took = []
        for _ in range(2 + a.runs):
            mx.eval(arrays, cotangent)
            start = time.perf_counter()
            with shards(streams(a.batch)):
                mx.eval(both(cotangent, *arrays))
            took.append(time.perf_counter() - start)
        total += count * min(took) * 1e3
        print(f"  {name:20s} {count:3d} x {min(took) * 1e3:7.2f} ms = {count * min(took) * 1e3:7.1f} ms")
    print(f"  sum {total:.0f} ms")


if __name__ == "__main__":
    main()
