"""Attention sinks: the first N and the last M tokens are read, at places in that list, in bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.model.cache import sinks
from tinygpt.model.cache.full import KVCache
from tinygpt.model.frame import Frame
from tinygpt.model.lm import LM

N, M = 3, 6
IDS = nano.tokens(3, 40, seed=5)
KINDS: dict[str, dict[str, Any]] = {
    "rope": {},
    "qk-norm": {"attention": Pick("gqa", {"qk_norm": True})},
    "llama3": {"position": Pick("rope_llama3", {"theta": 100.0})},
    "alibi": {"position": Pick("alibi")},
    "nope": {"position": Pick("nope")},
    "diff": {"attention": Pick("diff", {"qk_norm": True}), "num_key_value_heads": 4},
    "shifted": {"attention": Pick("gqa", {"key_shift": True})},
    "canon": {"residual": Pick("canon")},
    "mixed": {"second_position": Pick("nope"), "second_layers": (1,)},
    "share": {"position": Pick("rope", {"share": 0.5, "theta": 100.0})},
    "capped": {"attention": Pick("gqa", {"softcap": 1.5, "scale": 0.6}), "residual": Pick("sandwich")},
}


def run(model: LM, ids: np.ndarray, cache: list[Any], sizes: list[int]) -> np.ndarray:
    """Logits of a text that comes in pieces of these sizes."""
    ends = np.cumsum(sizes)
    pieces = [np.array(model(mx.array(ids[:, e - n : e]), cache)) for e, n in zip(ends, sizes)]
    return np.concatenate(pieces, axis=1)


def turned(x_HNK: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Rotary embedding as its paper has it, halves paired."""
    half = x_HNK.shape[-1] // 2
    angle = places[:, None] * 10000.0 ** (-np.arange(half) / half)
    a, b = x_HNK[..., :half], x_HNK[..., half:]
    return np.concatenate(
        [a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=-1
    )


def streamed(model: LM, ids: np.ndarray) -> np.ndarray:
    """Token by token, as in section 3.2: evict, number what is left, attend."""
    frame = Frame(length=1)
    held: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in model.layers]
    out = []
    for token in ids:
        x = model.model.embed_tokens(mx.array([[int(token)]]))
        for layer, past in zip(model.layers, held):
            h, at = layer.input_layernorm(x), layer.self_attn
            q, k, v = (
                np.array(f(h), np.float64).reshape(-1, 1, at.d_head)
                for f in (at.q_proj, at.k_proj, at.v_proj)
            )
            past.append((k, v))
            del past[N:-M]
            keys, values = (np.concatenate([pair[i] for pair in past], axis=1) for i in (0, 1))
            q = turned(q, np.array([len(past) - 1])).reshape(len(keys), -1, at.d_head)
            scores = q @ turned(keys, np.arange(len(past))).swapaxes(1, 2) * at.d_head**-0.5
            p = np.exp(scores - scores.max(axis=-1, keepdims=True))
            y = (p / p.sum(axis=-1, keepdims=True)) @ values
            x = x + at.o_proj(mx.array(y.reshape(1, 1, -1).astype(np.float32)))
            x = x + layer.mlp(layer.post_attention_layernorm(x), frame)
        out.append(np.array(model.output(model.model.norm(x)))[0, 0])
    return np.stack(out)


def test_each_token_reads_sinks_and_window_at_places_in_the_cache() -> None:
    model = nano.model()
    wanted = streamed(model, IDS[0])
    for sizes in ([1] * 40, [40], [5, 1, 9, 1, 1, 20, 3]):
        nano.close(run(model, IDS[:1], sinks.make(model, N, M), sizes)[0], wanted, 2e-5)


def test_one_layer_sees_a_text_of_the_kept_tokens_alone() -> None:
    for kind in ("rope", "alibi", "diff"):
        model = nano.model(num_hidden_layers=1, **KINDS[kind])
        got = run(model, IDS[:1], sinks.make(model, N, M), [30] + [1] * 10)
        for t in (N + M - 1, N + M, 29, 30, 39):
            kept = np.concatenate([IDS[:1, :N], IDS[:1, max(N, t + 1 - M) : t + 1]], axis=1)
            nano.close(got[0, t], np.array(model(mx.array(kept)))[0, -1], 2e-5)


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[] if k in ("rope", "diff") else [pytest.mark.wide]) for k in KINDS]
)
def test_pieces_paddings_and_leaving_rows_change_nothing(kind: str) -> None:
    model = nano.model(**KINDS[kind])
    alone = run(model, IDS, sinks.make(model, N, M), [1] * 30)
    nano.close(run(model, IDS, sinks.make(model, N, M), [7, 1, 14, 1, 7]), alone, 2e-5)
    nano.close(alone[:, : N + M], np.array(model(mx.array(IDS[:, : N + M]))), 2e-5)
    assert np.abs(alone - np.array(model(mx.array(IDS[:, :30])))).max() > 1e-2, "the window closes"
    lengths, total = [2, 20, 11], 20
    padding = [total - n for n in lengths]
    prompts = np.zeros((3, total), np.int32)
    for i, n in enumerate(lengths):
        prompts[i, padding[i] :] = IDS[i, :n]
    cache = sinks.make(model, N, M, padding)
    got = [run(model, prompts, cache, [12, 8])]
    for step in range(4):
        if step == 2:  # one row is finished and leaves
            for layer in cache:
                layer.filter(mx.array([2, 0]))
            got, lengths, padding = [np.concatenate(got, axis=1)[[2, 0]]], [11, 2], [9, 18]
        rows = (2, 0) if step >= 2 else (0, 1, 2)
        got.append(run(model, np.array([[IDS[r, n + step]] for r, n in zip(rows, lengths)]), cache, [1]))
    joined = np.concatenate(got, axis=1)
    assert np.isfinite(joined).all(), "padding never spreads"
    for i, (row, n) in enumerate(zip((2, 0), lengths)):
        nano.close(joined[i, padding[i] :], alone[row, : n + 4], 2e-5)


@pytest.mark.wide
@pytest.mark.parametrize("kind", ["rope", "canon", "alibi"])
def test_as_many_tokens_as_are_spare_are_taken_back(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KVCache, "step", 4)
    model, ends = nano.model(**KINDS[kind]), [2, 1]
    whole = run(model, IDS, sinks.make(model, N, M), [40])
    cache = sinks.make(model, N, M, left_padding=[0, 1])
    for layer in cache:
        layer.spare = 4
    run(model, np.array([IDS[0, :2], [0, IDS[1, 0]]]), cache, [2])
    for n_B in ([4, 4], [4, 3], [0, 2], [1, 4], [3, 0], [4, 4], [0, 1], [2, 0]):
        rows = [np.r_[IDS[i, end : end + 5 - n], IDS[2, :n]] for i, (end, n) in enumerate(zip(ends, n_B))]
        logits = run(model, np.stack(rows), cache, [5])
        for i, n in enumerate(n_B):
            nano.close(logits[i, : 5 - n], whole[i, ends[i] : ends[i] + 5 - n], 1e-5)
            ends[i] += 5 - n
        for layer in cache:
            layer.rewind(n_B)
    assert all(layer.kept < layer.held for layer in cache), "the window has moved"


def test_memory_is_bounded_and_text_goes_on_past_the_context() -> None:
    model = nano.model(max_position_embeddings=32)
    ids = nano.tokens(1, 600, seed=7)
    cache, full, sizes = sinks.make(model, 4, 28), model.make_cache(), []
    for i in range(0, 600, 5):
        part = model(mx.array(ids[:, i : i + 5]), cache)
        model(mx.array(ids[:, i : i + 5]), full)
        assert np.isfinite(np.array(part)).all()
        sizes.append(sum(layer.nbytes for layer in cache))
    # Sinks, the window before the new tokens, these, and a block of room; two groups of 8 features.
    each = 2 * 2 * 8 * 4
    assert max(sizes) == 2 * each * (4 + 27 + 5 + 64) == sizes[-1]
    assert sum(layer.nbytes for layer in full) == 2 * each * 640
    assert sum(x.nbytes for x in cache[0].state) == each * (4 + 28)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"position": Pick("learned")}, "position 'learned' adds positions before the first layer"),
        ({"position": Pick("rope_dynamic")}, "position 'rope_dynamic' follows the text's length"),
        ({"attention": Pick("gqa", {"window": 8})}, "keep all .* 'gqa' bounds its caches itself"),
        ({"attention": Pick("diff", {"window": 8})}, "keep all .* 'diff' bounds its caches itself"),
        ({"attention": Pick("yoco")}, "keep all .* 'yoco' bounds its caches itself"),
        ({"depth": Pick("mod")}, "keep all .*depth 'mod' keeps only the tokens that a block computes"),
        ({"head": Pick("pointer")}, "head 'pointer' points at all of them"),
        ({"max_position_embeddings": 8}, "--sinks 3 and --window 6 are 9 places, the model's context only 8"),
    ],
)
def test_models_that_would_read_something_else_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        sinks.make(nano.model(**changes), N, M)
