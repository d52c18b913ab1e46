"""The settings of `reasoning-classify`, which does one of three things."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tinygpt.core.errors import ConfigError, unknown
from tinygpt.data.classifier import Settings
from tinygpt.runs import _data_out

CLASSES: tuple[str, ...] = ("single-hop", "multi-hop", "comparison", "other")
SHORT = {"single": "single-hop", "multi": "multi-hop"}


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """Learn (--train), label rows (--score), or draw a mix of labelled rows (--filter)."""

    train: Annotated[Path | None, "Learn from these rows of {prompt, reasoning_depth}."] = None
    score: Annotated[Path | None, "Give these rows a reasoning_depth and its probability."] = None
    filter: Annotated[Path | None, "Draw from these labelled rows by --target-mix."] = None
    out: Annotated[Path, "Where the classifier, or the rows, go."]
    model: Annotated[Path | None, "The classifier of --score."] = None
    heldout: Annotated[Path | None, "Labelled rows for the report; by default a fifth of --train."] = None
    field: Annotated[str, "What is judged; by default prompt, text, or the last turn of the user."] = ""
    target_mix: Annotated[str, "Shares of the classes, such as single=.3,multi=.5,comparison=.2."] = ""
    ngram: Annotated[int, "Longest run of words."] = 3
    force: Annotated[bool, "Replace what exists."] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        chosen = [name for name in ("train", "score", "filter") if getattr(self, name)]
        if len(chosen) != 1:
            raise ConfigError("one of --train, --score and --filter is needed", hint=f"got {len(chosen)}")
        for name, mode in {"heldout": "train", "model": "score", "target_mix": "filter"}.items():
            if getattr(self, name) and chosen[0] != mode:
                raise ConfigError(f"--{name.replace('_', '-')} belongs to --{mode}", hint="leave it out")
        for name, mode in {"model": "score", "target_mix": "filter"}.items():
            if not getattr(self, name) and chosen[0] == mode:
                raise ConfigError(f"--{mode} needs --{name.replace('_', '-')}")
        if self.field and chosen[0] == "filter":
            raise ConfigError("--field means nothing with --filter", hint="leave it out")
        for name in ("vocab", "ngram", "epochs", "lr", "l2"):
            if chosen[0] != "train" and getattr(self, name) != getattr(type(self), name):
                raise ConfigError(f"--{name} belongs to --train", hint="leave it out")
        if chosen[0] != "train":
            _data_out.refuse({"--out": self.out}, filter(None, (self.score, self.filter)), force=self.force)
        if self.target_mix:
            _ = self.mix

    @property
    def mix(self) -> dict[str, float]:
        """The share of each class; they sum to 1."""
        found: dict[str, float] = {}
        for part in self.target_mix.split(","):
            name, _, share = (word.strip() for word in part.partition("="))
            name = SHORT.get(name, name)
            if name not in CLASSES:
                raise unknown("class", name, CLASSES)
            try:
                found[name] = float(share)
            except ValueError as error:
                raise ConfigError(f"--target-mix: '{part}' is no name=share") from error
            if not 0 <= found[name] <= 1:
                raise ConfigError(f"--target-mix: {part} is not between 0 and 1")
        if abs(sum(found.values()) - 1) > 1e-6:
            raise ConfigError(
                f"--target-mix sums to {sum(found.values()):g}, not 1", hint="such as single=.5,multi=.5"
            )
        return {name: found.get(name, 0.0) for name in CLASSES}
