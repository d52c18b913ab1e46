"""Batches of plain text where a run's settings name a corpus, else of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygpt.core.events import Events
from tinygpt.data.source import chat, text

if TYPE_CHECKING:
    from tinygpt.data.source._source import Source
    from tinygpt.runs._tuned import Opened


def opened(config: Any, opened: Opened, seed: int, events: Events) -> Source:
    """Batches of the text, or of the rows."""
    how: dict[str, Any] = {
        "length": config.row_length(opened.model.config, whole=config.whole),
        "batch_size": config.amounts.batch, "seed": seed, "events": events,
        "packs": getattr(opened.model, "packs", True),
    }  # fmt: skip
    if config.corpus:
        return text.build(config.words(), opened.tokenizer, **how)
    return chat.build(config.rows(), opened.tokenizer, **how)
