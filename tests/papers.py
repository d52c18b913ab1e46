"""Optimizers as their papers write them, in numpy and float64, and the small tensors they step on."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygpt.core.backend import mx

SHAPES = {"matrix": (4, 3), "vector": (3,), "layers.0.weight": (2, 5), "embed_tokens.weight": (6, 2)}
TOKENS = 7  # of a batch, where an optimizer asks


def start(seed: int = 0) -> dict[str, mx.array]:
    rng = np.random.default_rng(seed)
    return {name: mx.array(rng.normal(size=size).astype(np.float32)) for name, size in SHAPES.items()}


def gradients(step: int) -> dict[str, mx.array]:
    return start(1000 + step)


def drawn(step: int) -> dict[str, mx.array]:
    """What the gradients at drawn targets would be."""
    return start(5000 + step)


def adamw_in_numpy(weights: Any, steps: int, c: Any, lr: float) -> Any:
    """Algorithm 2 of Loshchilov and Hutter, in float64, with decay times the learning rate."""
    w = {n: np.array(v, np.float64) for n, v in weights.items()}
    m, v = ({n: np.zeros_like(x) for n, x in w.items()} for _ in range(2))
    for t in range(1, steps + 1):
        for n, g in ((n, np.array(g, np.float64)) for n, g in gradients(t).items()):
            m[n] = c.beta1 * m[n] + (1 - c.beta1) * g
            v[n] = c.beta2 * v[n] + (1 - c.beta2) * g**2
            step = (m[n] / (1 - c.beta1**t)) / (np.sqrt(v[n] / (1 - c.beta2**t)) + c.eps)
            w[n] -= lr * (step + (c.weight_decay * w[n] if w[n].ndim > 1 else 0))
    return w


def muon_in_numpy(weights: Any, steps: int, c: Any, lr: float) -> Any:
    """Jordan's algorithm with the scale of Liu et al., one matrix at a time; tables and vectors by AdamW."""
    result = adamw_in_numpy(weights, steps, c, lr)
    for n in (n for n in weights if weights[n].ndim > 1 and "embed" not in n):
        w, momentum = np.array(weights[n], np.float64), 0
        for t in range(1, steps + 1):
            g = np.array(gradients(t)[n], np.float64)
            momentum = c.momentum * momentum + g
            x = g + c.momentum * momentum
            x = x / np.linalg.norm(x)
            for _ in range(5):
                s = x @ x.T
                x = 3.4445 * x - 4.7750 * s @ x + 2.0315 * s @ s @ x
            w = w - lr * (0.2 * np.sqrt(max(w.shape)) * x + c.weight_decay * w)
        result[n] = w
    return result


def lion_in_numpy(weights: Any, steps: int, c: Any, lr: float) -> Any:
    """Algorithm 2 of Chen et al."""
    w = {n: np.array(v, np.float64) for n, v in weights.items()}
    m = {n: np.zeros_like(x) for n, x in w.items()}
    for t in range(1, steps + 1):
        for n, g in ((n, np.array(g, np.float64)) for n, g in gradients(t).items()):
            update = np.sign(c.beta1 * m[n] + (1 - c.beta1) * g)
            w[n] -= lr * (update + (c.weight_decay * w[n] if w[n].ndim > 1 else 0))
            m[n] = c.beta2 * m[n] + (1 - c.beta2) * g
    return w


def adafactor_in_numpy(weights: Any, steps: int, c: Any, lr: float) -> Any:
    """Algorithms 4 (matrices) and 5 (vectors) of Shazeer and Stern, with the parameters of algorithm 6."""
    result = {}
    for n, w in ((n, np.array(v, np.float64)) for n, v in weights.items()):
        r, s, v = np.zeros(w.shape[:1]), np.zeros(w.shape[-1:]), np.zeros(w.shape)
        for t in range(1, steps + 1):
            g = np.array(gradients(t)[n], np.float64)
            rho = min(lr, 1 / np.sqrt(t)) if c.relative_step else lr
            alpha = max(c.parameter_scale, np.sqrt(np.mean(w**2))) * rho if c.parameter_scale else rho
            beta2 = 1 - t**-c.decay_power
            squares = g**2 + c.eps
            if w.ndim > 1:
                r = beta2 * r + (1 - beta2) * squares @ np.ones(w.shape[1])
                s = beta2 * s + (1 - beta2) * np.ones(w.shape[0]) @ squares
                v = np.outer(r, s) / r.sum()
            else:
                v = beta2 * v + (1 - beta2) * squares
            u = g / np.sqrt(v)
            u = u / max(1, np.sqrt(np.mean(u**2)) / c.clip)
            w = w - alpha * u - (lr * c.weight_decay * w if w.ndim > 1 else 0)
        result[n] = w
    return result


def codes_in_numpy(kind: str, signed: bool) -> np.ndarray:
    """What a byte can say: an indicator bit after i zeros leaves the rest of the bits for a fraction."""
    if kind == "linear":
        return np.linspace(-1, 1, 255) if signed else np.linspace(0, 1, 256)
    found = [np.array([0.0, 1.0])]
    for zeros in range(7):
        edges = np.linspace(0.1, 1, 2 ** (6 - zeros) * (1 if signed else 2) + 1)
        middles = (edges[1:] + edges[:-1]) / 2 * 10.0**-zeros
        found += [middles, -middles] if signed else [middles]
    return np.sort(np.concatenate(found))


def adam8bit_in_numpy(weights: Any, steps: int, c: Any, lr: float) -> Any:
    """Block-wise quantisation of Dettmers et al. around Adam; small tensors and embeddings by AdamW."""
    result = adamw_in_numpy(weights, steps, c, lr)
    maps = [codes_in_numpy(c.codes, signed) for signed in (True, False)]

    def rounded(x: np.ndarray, table: np.ndarray) -> np.ndarray:
        flat = x.ravel().copy()
        for i in range(0, flat.size, c.block):
            part = flat[i : i + c.block]
            scale = np.abs(part).max()
            code = np.abs(table - part[:, None] / scale).argmin(axis=1)
            if table[0] == 0:
                code = np.where(part > 0, np.maximum(code, 1), code)
            part[:] = table[code] * scale
        return flat.reshape(x.shape)

    for n in (n for n in weights if weights[n].size >= c.minimum and "embed" not in n):
        w = np.array(weights[n], np.float64)
        m, v = np.zeros_like(w), np.zeros_like(w)
        for t in range(1, steps + 1):
            g = np.array(gradients(t)[n], np.float64)
            m, v = c.beta1 * m + (1 - c.beta1) * g, c.beta2 * v + (1 - c.beta2) * g**2
            step = (m / (1 - c.beta1**t)) / (np.sqrt(v / (1 - c.beta2**t)) + c.eps)
            w = w - lr * (step + (c.weight_decay * w if w.ndim > 1 else 0))
            m, v = rounded(m, maps[0]), rounded(v, maps[1])
        result[n] = w
    return result


def galore_in_numpy(weights: Any, steps: int, c: Any, lr: float) -> Any:
    """Algorithm 2 of Zhao et al., a tall matrix lying on its side; what is not projected by AdamW."""
    result = adamw_in_numpy(weights, steps, c, lr)
    hidden = (n for n in weights if weights[n].ndim > 1 and "embed" not in n)
    for n in (n for n in hidden if min(weights[n].shape) > c.rank):
        w = np.array(weights[n], np.float64)
        tall = w.shape[0] > w.shape[1]
        w = w.T if tall else w
        p = m = v = np.zeros(())
        for t in range(1, steps + 1):
            g = np.array(gradients(t)[n], np.float64)
            g = g.T if tall else g
            if (t - 1) % c.every == 0:
                new = np.linalg.svd(g)[0][:, : c.rank]
                p = new * np.where((new * p).sum(axis=0) < 0, -1, 1)
            r = p.T @ g
            m, v = c.beta1 * m + (1 - c.beta1) * r, c.beta2 * v + (1 - c.beta2) * r**2
            step = (m / (1 - c.beta1**t)) / (np.sqrt(v / (1 - c.beta2**t)) + c.eps)
            w = w - lr * (c.scale * p @ step + c.weight_decay * w)
        result[n] = w.T if tall else w
    return result


def sophia_in_numpy(weights: Any, steps: int, c: Any, lr: float, looked_at: Any = drawn) -> Any:
    """Algorithm 3 of Liu et al. with the estimator of algorithm 2."""
    w = {n: np.array(v, np.float64) for n, v in weights.items()}
    m, h = ({n: np.zeros_like(x) for n, x in w.items()} for _ in range(2))
    for t in range(1, steps + 1):
        for n, g in ((n, np.array(g, np.float64)) for n, g in gradients(t).items()):
            m[n] = c.beta1 * m[n] + (1 - c.beta1) * g
            if t % c.every == 1 % c.every:
                estimate = TOKENS * np.array(looked_at(t)[n], np.float64) ** 2
                h[n] = c.beta2 * h[n] + (1 - c.beta2) * estimate
            w[n] -= lr * c.weight_decay * w[n] if w[n].ndim > 1 else 0
            w[n] -= lr * np.clip(m[n] / np.maximum(c.rho * h[n], c.eps), -1, 1)
    return w


def sophia_light_in_numpy(weights: Any, steps: int, c: Any, lr: float) -> Any:
    """The same, with the empirical Fisher matrix's diagonal."""
    return sophia_in_numpy(weights, steps, c, lr, gradients)


def lisa_in_numpy(weights: Any, steps: int, c: Any, lr: float) -> Any:
    """Algorithm 1 of Pan et al. with one block, which is always drawn: AdamW, begun anew at each draw."""
    result = adamw_in_numpy(weights, steps, c, lr)
    for n in (n for n in weights if n.startswith("layers.")):
        w, m, v = np.array(weights[n], np.float64), 0, 0
        for t in range(1, steps + 1):
            g, since = np.array(gradients(t)[n], np.float64), (t - 1) % c.every + 1
            m, v = (0, 0) if since == 1 else (m, v)
            m, v = c.beta1 * m + (1 - c.beta1) * g, c.beta2 * v + (1 - c.beta2) * g**2
            step = (m / (1 - c.beta1**since)) / (np.sqrt(v / (1 - c.beta2**since)) + c.eps)
            w = w - lr * (step + c.weight_decay * w)
        result[n] = w
    return result


def sgd_in_numpy(weights: Any, steps: int, c: Any, lr: float) -> Any:
    """Steps against the gradient, with Polyak's momentum as Sutskever et al. write it."""
    result = {}
    for n, w in ((n, np.array(w, np.float64)) for n, w in weights.items()):
        m = np.zeros_like(w)
        for t in range(1, steps + 1):
            m = c.momentum * m + np.array(gradients(t)[n], np.float64)
            w = w - lr * (m + (c.weight_decay * w if w.ndim > 1 else 0))
        result[n] = w
    return result


# The paper's algorithm by technique; a new optimizer adds its own.
REFERENCE = {
    "adafactor": adafactor_in_numpy,
    "adam8bit": adam8bit_in_numpy,
    "adamw": adamw_in_numpy,
    "galore": galore_in_numpy,
    "lion": lion_in_numpy,
    "lisa": lisa_in_numpy,
    "muon": muon_in_numpy,
    "sophia": sophia_in_numpy,
    "sophia_light": sophia_light_in_numpy,
    "sgd": sgd_in_numpy,
}
