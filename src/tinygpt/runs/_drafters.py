"""What guesses for an engine: settings of commands that write text, and the drafter that they mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

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

    @property
    def guessing(self) -> str:
        """The flags that say who guesses; "" where nobody does."""
        ways = (
            ("--draft-model", self.draft_model is not None),
            (f"--speculate {self.speculate}", self.speculate != "off"),
            ("--heads", self.heads is not None),
        )
        return " and ".join(flag for flag, on in ways if on)

    @property
    def words(self) -> list[str]:
        """The flags again, as a command line has them."""
        paths = (("--draft-model", self.draft_model), ("--heads", self.heads))
        found = [f"{name}={path}" for name, path in paths if path is not None]
        found += [f"--speculate={self.speculate}"] if self.speculate != "off" else []
        found += [f"--draft-tokens={self.draft_tokens}"] if self.draft_tokens is not None else []
        return [*found, *(["--force-heads"] if self.force_heads else [])]

    def __post_init__(self) -> None:
        if " and " in self.guessing:
            raise ConfigError(f"{self.guessing} guess the same tokens", hint="leave one")
        if self.draft_tokens is not None and (self.draft_tokens < 1 or not self.guessing):
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


@dataclass(eq=False)
class Drafters:
    """Makes the drafters of engines with the weights of one directory, adapters on them or not; what guesses
    is read once."""

    chosen: Speculation
    model: Path
    events: Events | None = None
    _draft: Engine | None = None
    _heads: Any = None

    def __call__(self, engine: Engine) -> Drafter | None:
        """What the settings ask for; None: nothing. ConfigError where the model cannot be decoded so."""
        chosen = self.chosen
        size = {} if chosen.draft_tokens is None else {"tokens": chosen.draft_tokens}
        if chosen.draft_model is not None:
            if self._draft is None:
                loaded, tokenizer = _pieces.open_model(chosen.draft_model, events=self.events)
                self._draft = Engine(loaded.model, tokenizer)
            draft = SPECULATE.load("draft")
            found = draft.build(engine, draft.Config(**size), draft=self._draft)
        elif chosen.heads is not None:
            if self._heads is None:
                where, base = _pieces.model_path(chosen.heads), _pieces.model_path(self.model)
                self._heads = stored.load(where, base=base, force=chosen.force_heads)
            way = SPECULATE.load(self._heads.facts.kind)
            found = way.build(engine, way.Config(**size), heads=self._heads)
        elif chosen.speculate == "mtp":
            found = SPECULATE.load("mtp").build(engine)
        elif chosen.speculate == "ngram":
            lookup = SPECULATE.load("ngram")
            found = lookup.build(engine, lookup.Config(**size))
        else:
            return None
        if found.note and self.events is not None:
            self.events.note(found.note)
        return found


def tell(engine: Engine, events: Events | None) -> None:
    """Say what guessing came to, if anything guessed."""
    if engine.drafter is not None and events is not None:
        events.note(f"speculation: {engine.drafter.told}")
