"""Linear head: the output matrix alone, `logits = W h`.

W is the embedding matrix when `tie_word_embeddings` is set, else a matrix of its own.

Paper: Press and Wolf, EACL 2017, arXiv:1608.05859 (tied weights).
Differs: nothing.
"""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.model.config import ModelConfig
from tinygpt.model.frame import Frame
from tinygpt.model.output import Output, token_losses


class LinearHead(nn.Module):
    """Shapes: B batch, L tokens, D width, V vocabulary."""

    key_width = 0  # it keeps nothing of earlier tokens

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_vocab = config.vocab_size

    def logits(
        self,
        x_BLD: mx.array,
        output: Output,
        tokens_BL: mx.array,
        frame: Frame,
        cache: Any | None,
        last: int,
    ) -> mx.array:
        """Logits (B, last, V) of what follows the last tokens."""
        return output(x_BLD[:, -last:])

    def losses(
        self, x_BLD: mx.array, output: Output, tokens_BL: mx.array, targets_BL: mx.array, frame: Frame
    ) -> mx.array:
        """-log p of each target (B, L)."""
        return next_losses(x_BLD, output, targets_BL, frame, self.n_vocab)


def next_losses(
    x_BLD: mx.array, output: Output, targets_BL: mx.array, frame: Frame, n_vocab: int
) -> mx.array:
    """-log p of each target (B, L) under softmax(W h), whose z-loss goes to the terms."""
    losses_BL, log_z_BL = token_losses(output, x_BLD, targets_BL, n_vocab)
    if frame.terms is not None:
        frame.terms.add_z(log_z_BL, frame.terms.counts(targets_BL.shape))
    return losses_BL


def build(config: ModelConfig) -> nn.Module:
    """The head of a model."""
    return LinearHead(config)
