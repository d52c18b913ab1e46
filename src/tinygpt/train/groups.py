"""Parameter groups: which tensors learn faster or slower than the rest, and which do not decay.

A group multiplies the learning rate, not the gradient: Adam divides by the gradient's own size, so a
multiplied gradient would change nothing.

- layers below the last one learn slower, `lr_i = lr F^(L-1-i)` in block i of L, embeddings `lr F^L`: what
  comes first in a trained model is general, and should move least. Source: Howard and Ruder, ACL 2018,
  arXiv:1801.06146 (section 3.2); Clark et al., ICLR 2020, arXiv:2003.10555 (by factors of depth).
- LoRA+: adapter matrices B, which start at zero, learn `lambda` times as fast as A. Source: Hayou et al.,
  ICML 2024, arXiv:2402.12354 (section 4).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from tinygpt.core.errors import ConfigError, nearest

BLOCK = re.compile(r"model\.layers\.(\d+)\.")
EMBEDDINGS = "model.embed_"
LORA_B = ".lora_B"


@dataclass(frozen=True)
class Group:
    """What tensors of a group have in common."""

    rate: float = 1.0
    decay: bool = True


Groups = Callable[[str], Group]


def alike(name: str) -> Group:
    """All tensors in one group."""
    return Group()


def groups(
    names: Collection[str], *, layer_decay: float = 1.0, lora_plus: float = 1.0, no_decay: Iterable[str] = ()
) -> Groups:
    """The group of each of these tensors. `no_decay` are parts of names. ConfigError where a rule finds
    nothing to act on."""
    blocks = [int(found[1]) for name in names if (found := BLOCK.match(name))]
    n_layers = max(blocks, default=-1) + 1
    if layer_decay != 1 and not blocks:
        raise ConfigError("--lr-layer-decay finds no block that learns", hint="leave it out")
    if lora_plus != 1 and not any(LORA_B in name for name in names):
        raise ConfigError(
            "--lora-plus-ratio finds no adapter matrix B that learns",
            hint="use --adapter lora, or leave it out",
        )
    words = sorted({word for name in names for word in name.split(".") if not word.isdigit()})
    for part in no_decay:
        if not part or not any(part in name for name in names):
            raise ConfigError(
                f"--no-decay {part}: no tensor that learns has this in its name.{nearest(part, words)}",
                hint=f"names are made of: {', '.join(words)}",
            )

    def group(name: str) -> Group:
        rate = lora_plus if LORA_B in name else 1.0
        if found := BLOCK.match(name):
            rate *= layer_decay ** (n_layers - 1 - int(found[1]))
        elif name.startswith(EMBEDDINGS):
            rate *= layer_decay**n_layers
        return Group(rate, not any(part in name for part in no_decay))

    return {name: group(name) for name in names}.__getitem__
