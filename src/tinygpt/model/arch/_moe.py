"""Routers of mixtures of experts, as other tools spell them."""

from __future__ import annotations

from typing import Any

from tinygpt.model.arch._source import Source
from tinygpt.model.config import ModelConfig

SUMMED = {True: "several", False: "always"}  # how we spell that gates sum to 1, by whether there are several


def write(config: ModelConfig) -> dict[str, Any]:
    """How many experts a token passes, and the terms of the loss."""
    knobs = config.mlp.options
    return {
        "num_experts_per_tok": knobs.top_k,
        "router_aux_loss_coef": knobs.balance / knobs.top_k,
        "output_router_logits": bool(knobs.balance),
        "router_z_loss_coef": knobs.z,
    }


def read(source: Source, experts: int) -> dict[str, Any]:
    """The inverse, as knobs of our mixture. Others add the balance term only to logits that they put out."""
    top_k, coefficient = source.whole("num_experts_per_tok"), source.number("router_aux_loss_coef")
    balance = round(coefficient * top_k, 12) if source.get("output_router_logits") else 0.0
    return {
        "experts": experts, "top_k": top_k, "balance": balance, "z": source.number("router_z_loss_coef"),
    }  # fmt: skip
