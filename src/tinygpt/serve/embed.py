"""Embeddings: the mean of a text's hidden states after the final norm, as a vector of length 1.

A language model is not trained for it, so this is a fair measure of likeness and no more.

    e = m / |m|,   m = mean over tokens of norm(h)

Shapes: B texts, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygpt.core.backend import mx
from tinygpt.core.errors import TooLongError, UnsupportedError
from tinygpt.serve.fields import FieldError

if TYPE_CHECKING:
    from tinygpt.infer.engine import Engine

TOKENS = 2048  # read at once: whoever writes meanwhile waits so long
# Where models of mlx_lm keep their final norm.
NORMS = ("model.norm", "language_model.model.norm", "model.norm_f", "transformer.ln_f", "backbone.norm_f",
         "model.final_layernorm", "model.language_model.norm", "transformer.norm_f")  # fmt: skip


def check(engine: Engine, rows: Sequence[Sequence[int]]) -> None:
    """FieldError where a text has no token, TooLongError where it has more than the context."""
    for ids in rows:
        if not ids:
            raise FieldError("a text of 'input' holds no token", param="input")
        if len(ids) > engine.context:
            raise TooLongError(len(ids), engine.context)
        n_vocab = engine.model.config.vocab_size
        if (wrong := next((i for i in ids if not 0 <= i < n_vocab), None)) is not None:
            raise FieldError(f"'input' names the id {wrong}, the model has 0 to {n_vocab - 1}", param="input")


def groups(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Numbers of rows that are read together: alike in length, few tokens in all."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: list[list[int]] = []
    for i in order:
        if found and (len(found[-1]) + 1) * len(rows[i]) <= TOKENS:
            found[-1].append(i)
        else:
            found.append([i])
    return found


def embed(engine: Engine, rows: Sequence[Sequence[int]]) -> list[list[float]]:
    """A vector of length 1 for each row of ids. On the device's thread."""
    longest = max(map(len, rows))
    tokens_BL = mx.array([[*ids, *[ids[-1]] * (longest - len(ids))] for ids in rows])  # causal: none looks
    states_BLD = _states(engine.model, tokens_BL).astype(mx.float32)
    counts_B = mx.array([len(ids) for ids in rows])
    kept_BL = mx.arange(longest)[None] < counts_B[:, None]
    mean_BD = (states_BLD * kept_BL[..., None]).sum(axis=1) / counts_B[:, None]
    vectors: Any = (mean_BD / mx.linalg.norm(mean_BD, axis=-1, keepdims=True)).tolist()
    return vectors


def _states(model: Any, tokens_BL: mx.array) -> mx.array:
    """Hidden states after the final norm."""
    if hasattr(model, "hidden"):
        return model.hidden(tokens_BL)
    seen: list[mx.array] = []
    last = f"blocks.{len(model.layers) - 1}.hook_resid_post"

    def tap(name: str, x: mx.array) -> mx.array:
        if name == last:
            seen.append(x)
        return x

    norm = next((found for path in NORMS if (found := _at(model, path)) is not None), None)
    if norm is None:
        raise UnsupportedError("this model's final norm is not known, so it gives no embeddings")
    model(tokens_BL, tap=tap, last=1)
    return norm(seen[0])


def _at(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name, None)
    return module
