"""What a teacher's cache costs and loses, by how many tokens of a place it keeps.

    python scripts/teacher_cache.py MODEL --corpus FOLDER --glob "*.py" --rows 256

For each k: bytes of a place, their share of dense float32 logits, what the tokens left out share (tail), and
the KL divergence of what is kept to the whole distribution, with the others as one event (what training
reads) and with that event spread in proportion to the mean distribution of the places read. Beside it what a
store of last hidden states would cost and lose, of which the output matrix, kept once, makes all logits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from tinygpt.core.backend import mx
from tinygpt.data.source import text
from tinygpt.distill.divergence._events import log_softmax
from tinygpt.distill.likeliest import FACTS, errors
from tinygpt.distill.store import Key, Places
from tinygpt.runs import _pieces
from tinygpt.train.state import arrays

KS = (16, 32, 64, 128, 256, 512, 768, 873)
OF_ROW = 24  # bytes of a row's hash and start


def in_bytes(x_PD: np.ndarray) -> np.ndarray:
    """A byte for each value, and a scale for each place."""
    scale = np.abs(x_PD).max(-1, keepdims=True) / 127
    return (np.rint(x_PD / scale) * scale).astype(np.float32)


STATES = {"float16": lambda x_PD: x_PD.astype(np.float16).astype(np.float32), "a byte": in_bytes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--glob", default="*.py")
    parser.add_argument("--exclude", default="")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--places", type=int, default=2, help="of a row, whose errors are measured")
    parser.add_argument("--temperature", type=float, default=1.0)
    given = parser.parse_args()

    loaded, tokenizer = _pieces.open_model(given.model)
    exclude = tuple(filter(None, given.exclude.split(",")))
    config = text.Config(paths=(given.corpus,), glob=given.glob, exclude=exclude)
    # Of the held-out part, which the teacher did not learn.
    source = text.build(config, tokenizer, length=given.context, batch_size=8).held_out
    assert source is not None
    n, rng = tokenizer.vocab_size, np.random.default_rng(0)
    mean, n_mean, n_right, nll = np.zeros(n), 0, 0, 0.0
    sampled: list[np.ndarray] = []
    coarse: dict[str, list[float]] = {name: [] for name in STATES}
    for i in range(min(len(source), given.rows // 8)):
        batch = source[i]
        rows = arrays(batch)
        x_BLD = loaded.model.hidden(rows["tokens"], positions=rows["positions"], segments=rows["segments"])
        logits = loaded.model.output(x_BLD)
        log_p = log_softmax(logits[..., :n], given.temperature).reshape(-1, n)
        at = np.flatnonzero(batch.weights.reshape(-1) > 0)
        log_p = np.array(log_p[mx.array(at)])
        mean += np.exp(log_p.astype(np.float64)).sum(0)
        n_mean += len(at)
        targets = batch.targets.reshape(-1)[at]
        nll -= float(log_p[np.arange(len(at)), targets].sum())
        n_right += int((log_p.argmax(-1) == targets).sum())
        chosen = rng.choice(len(at), min(len(at), 8 * given.places), replace=False)
        sampled += [log_p[p].astype(np.float64) for p in chosen]
        x_PD = np.array(x_BLD.reshape(-1, x_BLD.shape[-1]))[at][chosen]
        for name, lost in coarse.items():
            again = loaded.model.output(mx.array(STATES[name](x_PD)))[..., :n]
            log_q = np.array(log_softmax(again, given.temperature), np.float64)
            p = log_p[chosen].astype(np.float64)
            lost += (np.exp(p) * (p - log_q)).sum(-1).tolist()
    print(f"{given.model}: vocabulary {n:,}, held-out loss {nll / n_mean:.3f} nats over {n_mean:,} places,")
    print(f"{100 * n_right / n_mean:.1f} % of tokens likeliest; errors of {len(sampled):,} places\n")
    print(f"| k | bytes a place | of dense fp32 | {' | '.join(FACTS)} | p99 of kl_spread |\n|{'---|' * 7}")
    for k in KS:
        key = Key(teacher="", tokenizer="", vocabulary=n, k=k)
        found: list[dict[str, float]] = []
        for whole in sampled:
            ids = np.argsort(-whole)[: key.k].astype(np.int32)[None]
            one = Places(ids, whole[ids].astype(np.float32), np.ones(1, bool))
            others = np.maximum(mean - np.exp(whole), 0) / (n_mean - 1)
            found.append(errors(whole, one, key.id_bytes, others))
        each = (key.id_bytes + 1) * key.k + 4 + OF_ROW / given.context
        cells = [f"{np.mean([one[name] for one in found]):.5f}" for name in FACTS]
        worst = np.quantile([one["kl_spread"] for one in found], 0.99)
        print(f"| {k} | {each:.1f} | {100 * each / (4 * n):.3f} % | {' | '.join(cells)} | {worst:.4f} |")
    width = loaded.config.hidden_size
    for name, lost in coarse.items():
        each = 2 * width if name == "float16" else width + 2
        print(
            f"hidden states, {name}: {each} bytes a place, {100 * each / (4 * n):.3f} % of dense fp32, ",
            end="",
        )
        print(f"KL {np.mean(lost):.6f}; the output matrix once: {2 * n * width / 1e6:.1f} MB in float16")


if __name__ == "__main__":
    main()
