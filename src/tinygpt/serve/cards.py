"""What a model can do, for surfaces that are asked."""

from __future__ import annotations

from tinygpt.serve.job import ModelCard


def capabilities(card: ModelCard) -> list[str]:
    """Of completion, tools, insert, thinking and embedding: as the card's details say under this name, else as
    the template lets know."""
    if (said := card.details.get("capabilities")) is not None:
        return list(said)
    found = ["completion"]
    if "tools" in card.template:
        found.append("tools")
    if "enable_thinking" in card.template:
        found.append("thinking")
    return [*found, "embedding"]
