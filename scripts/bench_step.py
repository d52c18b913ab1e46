"""Time one float32 training step on this CPU: PyTorch eager, tinygpt, and MLX as it is installed.

    python scripts/bench_step.py [--layers 12 --width 256 --length 512 --batch 4 --vocab 2000] [--stock]

The same llama-shaped model (RoPE, RMSNorm, SwiGLU, tied embeddings, AdamW) three times, torch and tinygpt
interleaved in one process with the same number of threads; minima over the runs, and their ratio. On a busy
machine compare CPU time with OMP_NUM_THREADS=1: torch's threads wait for each other at every operator, ours
do not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

HEAD = 32


def shapes(a: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    D, F = a.width, a.hidden
    layer = {"n1": (D,), "q": (D, D), "k": (D, D), "v": (D, D), "o": (D, D), "n2": (D,)}
    layer |= {"gate": (F, D), "up": (F, D), "down": (D, F)}
    out: dict[str, tuple[int, ...]] = {"embed": (a.vocab, D), "norm": (D,)}
    for i in range(a.layers):
        out |= {f"{i}.{name}": shape for name, shape in layer.items()}
    return out


def torch_step(a: argparse.Namespace, tokens, threads: int):
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    p = {
        n: torch.nn.Parameter(torch.ones(s) if len(s) == 1 else torch.randn(s) * 0.02)
        for n, s in shapes(a).items()
    }
    opt = torch.optim.AdamW(p.values(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    B, L, D, H = a.batch, a.length, a.width, a.width // HEAD
    angle = torch.arange(L)[:, None] / 10000 ** (torch.arange(0, HEAD, 2) / HEAD)
    cos, sin = torch.cos(angle).repeat(1, 2), torch.sin(angle).repeat(1, 2)
    x_ids, y_ids = torch.tensor(tokens[:, :-1]), torch.tensor(tokens[:, 1:]).reshape(-1)

    def rotate(x):
        return x * cos + torch.cat([-x[..., HEAD // 2 :], x[..., : HEAD // 2]], -1) * sin

    def loss_fn():
        x = F.embedding(x_ids, p["embed"])
        for i in range(a.layers):
            h = F.rms_norm(x, (D,), p[f"{i}.n1"], 1e-5)
            q, k, v = (F.linear(h, p[f"{i}.{n}"]).view(B, L, H, HEAD).transpose(1, 2) for n in "qkv")
            h = F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
            x = x + F.linear(h.transpose(1, 2).reshape(B, L, D), p[f"{i}.o"])
            h = F.rms_norm(x, (D,), p[f"{i}.n2"], 1e-5)
            x = x + F.linear(F.silu(F.linear(h, p[f"{i}.gate"])) * F.linear(h, p[f"{i}.up"]), p[f"{i}.down"])
        return F.cross_entropy(
            F.linear(F.rms_norm(x, (D,), p["norm"], 1e-5), p["embed"]).view(B * L, -1), y_ids
        )

    def step() -> float:
        opt.zero_grad()
        loss = loss_fn()
        loss.backward()
        opt.step()
        return loss.item()

    return step


def tinygpt_step(a: argparse.Namespace, tokens):
    from tinygpt.core.backend import compile, mx, shards, streams
    from tinygpt.model import ops

    mx.random.seed(0)
    p = {n: mx.ones(s) if len(s) == 1 else mx.random.normal(s) * 0.02 for n, s in shapes(a).items()}
    moments = [{n: mx.zeros_like(v) for n, v in p.items()} for _ in range(2)]
    B, L, D, H = a.batch, a.length, a.width, a.width // HEAD
    lanes = streams(B)
    B = B // len(lanes)  # rows a lane
    x_ids, y_ids = mx.array(tokens[:, :-1]), mx.array(tokens[:, 1:])
    state = [p, *moments, mx.array(0.0)]
    mx.eval(state, x_ids, y_ids)

    def loss_fn(p, x_ids, y_ids):
        x = p["embed"][x_ids]
        for i in range(a.layers):
            h = ops.rms_norm(x, p[f"{i}.n1"], 1e-5)
            q, k, v = ((h @ p[f"{i}.{n}"].T).reshape(B, L, H, HEAD).transpose(0, 2, 1, 3) for n in "qkv")
            h = ops.attention(ops.rope(q), ops.rope(k), v, scale=HEAD**-0.5, mask="causal")
            x = x + h.transpose(0, 2, 1, 3).reshape(B, L, D) @ p[f"{i}.o"].T
            h = ops.rms_norm(x, p[f"{i}.n2"], 1e-5)
            x = x + ops.swiglu(h @ p[f"{i}.gate"].T, h @ p[f"{i}.up"].T) @ p[f"{i}.down"].T
        logits = ops.rms_norm(x, p["norm"], 1e-5).reshape(B * L, D) @ p["embed"].T
        return ops.cross_entropy(logits, y_ids.reshape(-1)).sum()

    def adamw(p, g, m, v, c1, c2):
        m = 0.9 * m + 0.1 * g
        v = 0.95 * v + 0.05 * (g * g)
        return p * (1 - 1e-5) - 1e-4 * (m * c1) / (mx.sqrt(v * c2) + 1e-8), m, v

    def train(p, m, v, t):
        parts = []
        for i, lane in enumerate(lanes):
            with mx.stream(lane):
                parts.append(mx.value_and_grad(loss_fn)(p, x_ids[i :: len(lanes)], y_ids[i :: len(lanes)]))
        n_tokens = x_ids.size
        loss = sum(part[0] for part in parts) / n_tokens
        t = t + 1
        c1, c2 = 1 / (1 - 0.9**t), 1 / (1 - 0.95**t)
        new = {}
        for i, n in enumerate(p):
            with mx.stream(lanes[i % len(lanes)]):
                g = sum(part[1][n] for part in parts) / n_tokens
                new[n] = adamw(p[n], g, m[n], v[n], c1, c2)
        return loss, [{n: x[i] for n, x in new.items()} for i in range(3)] + [t]

    compiled = compile(train)

    def step() -> float:
        with shards(lanes):
            loss, state[:] = compiled(*state)
            mx.eval(loss, state)
        return loss.item()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in dict(
        layers=12, width=256, hidden=688, length=512, batch=4, vocab=2000, runs=5
    ).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument(
        "--stock", action="store_true", help="also MLX as installed, in a subprocess (40 s a step)"
    )
    parser.add_argument("--only", choices=["tinygpt", "torch"], help="time one of them alone")
    a = parser.parse_args()
    import numpy as np

    from tinygpt.core.backend import setup

    backend = setup()
    print(f"blas {backend.blas}, {backend.threads} threads, notes {backend.notes}")
    tokens = np.random.default_rng(0).integers(0, a.vocab, (a.batch, a.length + 1))
    steps = {}
    if a.only != "torch":
        steps["tinygpt"] = tinygpt_step(a, tokens)
    if a.only != "tinygpt":
        steps["torch"] = torch_step(a, tokens, backend.threads)
    best: dict[str, float] = {}
    best_cpu: dict[str, float] = {}
    for run in range(a.runs + 1):  # the first one compiles
        for name, step in steps.items():
            start, cpu = time.perf_counter(), time.process_time()
            loss = step()
            took, cpu = time.perf_counter() - start, time.process_time() - cpu
            if run:
                best[name] = min(best.get(name, took), took)
                best_cpu[name] = min(best_cpu.get(name, cpu), cpu)
            print(f"  {name:8s} run {run}: {took:6.3f} s, {cpu:6.3f} s of CPU  loss {loss:.4f}")
    print("  ".join(f"{name} {seconds:.3f} s" for name, seconds in best.items()))
    if len(best) == 2:
        ratio, ratio_cpu = (b["tinygpt"] / b["torch"] for b in (best, best_cpu))
        print(f"tinygpt / torch = {ratio:.2f} in time, {ratio_cpu:.2f} in CPU time")
    if a.stock:
        code = [sys.executable, __file__, "--only", "tinygpt", "--runs", "1"]
        subprocess.run(code, env=os.environ | {"TINYGPT_BLAS": "reference"}, check=True)


if __name__ == "__main__":
    main()
