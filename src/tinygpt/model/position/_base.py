"""What positions do where they do nothing: nothing is added to embeddings, no head is turned."""

from __future__ import annotations

from tinygpt.core.backend import mx, nn
from tinygpt.model.frame import Frame


class NoPosition(nn.Module):
    """Holds nothing and changes nothing; techniques take what they have no use for from here."""

    def embed(self, x_BLD: mx.array, offset: int | mx.array, frame: Frame) -> mx.array:
        """Nothing is added to the embeddings."""
        return x_BLD

    def rotate(self, x_BHLK: mx.array, offset: int | mx.array, frame: Frame) -> mx.array:
        """Queries and keys stay as they are."""
        return x_BHLK
