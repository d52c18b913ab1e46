"""LISA: AdamW that moves a few layers at a time, drawn anew every K steps, and keeps moments for these alone.

Embeddings, the output matrix and whatever else lies outside the blocks learn at every step. Of the N blocks,
`layers` are drawn at the steps 1, 1 + K, 1 + 2K, ... with equal chances; the others stay as they are, without
decay. The moments of a block begin at zero when it is drawn, and so does the count of steps that corrects
them. They live in places that blocks take in turn: the state of N equal blocks is that of `layers` of them.

Paper: Pan et al., NeurIPS 2024, arXiv:2403.17919 (algorithm 1).
Differs: all gradients are computed, since one compiled step serves all draws, so memory is saved in the
optimizer's state alone, not in activations and gradients, and a step costs no less time than AdamW's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.train.optim import adamw
from tinygpt.train.optim._shared import Periodic, counts
from tinygpt.train.protocols import Seen, Tensors

BLOCK = re.compile(r"(?:model\.)?layers\.(\d+)\.(.+)")


@dataclass(frozen=True, kw_only=True)
class Config(adamw.Config):
    """Knobs of LISA: those of AdamW, and the draw."""

    layers: Annotated[int, "Blocks that learn at a time."] = 2
    every: Annotated[int, "Steps between two draws."] = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        counts(self, "layers")


def kinds(weights: Mapping[str, mx.array]) -> dict[str, dict[int, str]]:
    """Names of the tensors inside blocks, by what they are and by block: those of a kind can take each
    other's places. Blocks may differ: a kind is a name inside the block and a shape."""
    found: dict[str, dict[int, str]] = {}
    for name, w in weights.items():
        if match := BLOCK.match(name):
            kind = f"{match[2]}.{'x'.join(map(str, w.shape))}"
            found.setdefault(kind, {})[int(match[1])] = name
    return found


def blocks(kinds: Iterable[Mapping[int, str]]) -> list[int]:
    """The numbers of the blocks that have any of these tensors."""
    return sorted({block for members in kinds for block in members})


class Lisa(Periodic):
    """Pure functions on flat dicts of tensors. The state of a tensor outside the blocks is AdamW's. Each kind
    of tensor inside has `m.places.<kind>` and `v.places.<kind>` (places, *shape), and `places.<kind>`
    (places,), the block that has a place, counted from 1; 0 where none has; and `age.<kind>` (places,), the
    steps that these moments have seen."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.adamw = adamw.AdamW(config)

    def init(self, weights: Mapping[str, mx.array]) -> Tensors:
        """Fresh moments, all zero, and no block drawn: the first draw is due before the first step."""
        found = kinds(weights)
        n_blocks = len(blocks(found.values()))
        if self.config.layers > n_blocks:
            raise ConfigError(
                f"LISA draws {self.config.layers} blocks, and {n_blocks} can learn",
                hint="lower optimizer.layers",
            )
        state = self.adamw.init({n: w for n, w in weights.items() if not BLOCK.match(n)})
        for kind, members in found.items():
            places = min(self.config.layers, len(members))
            shape = (places, *weights[next(iter(members.values()))].shape)
            state |= {f"places.{kind}": mx.zeros(places, mx.int32), f"age.{kind}": mx.zeros(places)}
            state |= {f"{which}.places.{kind}": mx.zeros(shape) for which in "mv"}
        return state

    def refresh(self, state: Tensors, seen: Seen) -> Tensors:
        """The state with other blocks drawn, and their moments at zero."""
        found = kinds(seen.gradients)
        order = mx.random.permutation(mx.array(blocks(found.values())), key=seen.key)
        drawn = sorted(order[: self.config.layers].tolist())  # type: ignore[arg-type]
        new: Tensors = {}
        for kind, members in found.items():
            own = [block + 1 for block in drawn if block in members]
            n = state[f"places.{kind}"].size
            new[f"places.{kind}"] = mx.array(own + [0] * (n - len(own)), mx.int32)
            new[f"age.{kind}"] = mx.zeros(n)
            for key in (f"m.places.{kind}", f"v.places.{kind}"):
                new[key] = mx.zeros(state[key].shape)
        return state | new

    def apply(
        self, weights: Tensors, gradients: Tensors, state: Tensors, lr: mx.array, step: mx.array
    ) -> tuple[Tensors, Tensors]:
        """One step; see AdamW.apply for the arguments. A place whose block is not among these weights comes
        back as zeros, so that calls with parts of the weights add up to one with all."""
        outside = {n: w for n, w in weights.items() if not BLOCK.match(n)}
        new_weights, new_state = self.adamw.apply(outside, gradients, state, lr, step)
        for kind, members in kinds(weights).items():
            places, age = state[f"places.{kind}"], state[f"age.{kind}"] + 1
            moments: dict[str, list[mx.array]] = {"m": [], "v": []}
            new_places: list[mx.array] = []
            new_age: list[mx.array] = []
            own = places[:, None] == mx.array([block + 1 for block in members])
            for place in range(places.size):
                chosen = dict(zip(members.values(), own[place]))
                here = own[place].any()
                w = g = mx.zeros(state[f"m.places.{kind}"].shape[1:])
                for name, mine in chosen.items():
                    w, g = mx.where(mine, weights[name], w), mx.where(mine, gradients[name], g)
                old = {f"{which}.w": state[f"{which}.places.{kind}"][place] for which in "mv"}
                moved, new = self.adamw.apply({"w": w}, {"w": g}, old, lr, age[place])
                for name, mine in chosen.items():
                    weights = {**weights, name: mx.where(mine, moved["w"], weights[name])}
                for which in "mv":
                    moments[which].append(mx.where(here, new[f"{which}.w"], 0.0))
                new_places.append(mx.where(here, places[place], 0))
                new_age.append(mx.where(here, age[place], 0.0))
            new_state[f"places.{kind}"] = mx.stack(new_places)
            new_state[f"age.{kind}"] = mx.stack(new_age)
            for which in "mv":
                new_state[f"{which}.places.{kind}"] = mx.stack(moments[which])
        return {n: new_weights.get(n, w) for n, w in weights.items()}, new_state


def build(config: Config) -> Lisa:
    """The optimizer of a config."""
    return Lisa(config)
