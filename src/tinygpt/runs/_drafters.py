"""What guesses for an engine: settings of commands that write text, and the drafter that they mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.core.family import Family
from tinygpt.infer.engine import Engine
from tinygpt.infer.speculate._protocol import Drafter
from tinygpt.model.drafting import heads as stored
from tinygpt.runs import _pieces

SPECULATE = Family("tinygpt.infer.speculate")


@dataclass(frozen=True, kw_only=True)
class Speculation:
    """Whether tokens are guessed and then checked, several in one pass. The text keeps its law, and without
    a draft model's draws it stays the same text."""

    draft_model: Annotated[
        Path | None, "Smaller model with the same tokenizer that writes ahead (speculative decoding)."
    ] = None
    speculate: Annotated[
        Literal["off", "ngram", "mtp"],
        "Guess without another model: look the last tokens up in the text, or ask the model's own heads.",
    ] = "off"
    heads: Annotated[Path | None, "Heads of `train-heads`, Medusa's or EAGLE's, that guess."] = None
    draft_tokens: Annotated[
        int | None, "Tokens guessed at once; not given: 4 of a draft model, 8 of a lookup, 12 of heads."
    ] = None
    force_heads: Annotated[bool, "Also take heads that were trained on other weights than the model's."] = (
        False
    )

    def __post_init__(self) -> None:
        ways = [
            flag
            for flag, on in (
                ("--draft-model", self.draft_model is not None),
                (f"--speculate {self.speculate}", self.speculate != "off"),
                ("--heads", self.heads is not None),
            )
            if on
        ]
        if len(ways) > 1:
            raise ConfigError(f"{' and '.join(ways)} all guess the same tokens", hint="leave one")
        if self.draft_tokens is not None and (self.draft_tokens < 1 or not ways):
            raise ConfigError(
                "--draft-tokens means nothing where nothing is guessed"
                if self.draft_tokens >= 1
                else f"--draft-tokens must be at least 1, got {self.draft_tokens}",
                hint="add --draft-model, --speculate or --heads",
            )
        if self.draft_tokens is not None and self.speculate == "mtp":
            raise ConfigError(
                "--draft-tokens: a model's own heads guess as many tokens as they are", hint="leave it out"
            )
        refuse_idle(self, {"force_heads": "heads"})


def drafter(chosen: Speculation, engine: Engine, model: Path, events: Events | None = None) -> Drafter | None:
    """What the settings ask for, of the engine of the model in this directory; None: nothing. ConfigError
    where the model cannot be decoded so."""
    size = {} if chosen.draft_tokens is None else {"tokens": chosen.draft_tokens}
    if chosen.draft_model is not None:
        loaded, tokenizer = _pieces.open_model(chosen.draft_model, events=events)
        draft = SPECULATE.load("draft")
        found = draft.build(engine, draft.Config(**size), draft=Engine(loaded.model, tokenizer))
    elif chosen.heads is not None:
        heads = stored.load(
            _pieces.model_path(chosen.heads), base=_pieces.model_path(model), force=chosen.force_heads
        )
        way = SPECULATE.load(heads.facts.kind)
        found = way.build(engine, way.Config(**size), heads=heads)
    elif chosen.speculate == "mtp":
        found = SPECULATE.load("mtp").build(engine)
    elif chosen.speculate == "ngram":
        lookup = SPECULATE.load("ngram")
        found = lookup.build(engine, lookup.Config(**size))
    else:
        return None
    if found.note and events is not None:
        events.note(found.note)
    return found


def tell(engine: Engine, events: Events | None) -> None:
    """Say what guessing came to, if anything guessed."""
    if engine.drafter is not None and events is not None:
        events.note(f"speculation: {engine.drafter.told}")
