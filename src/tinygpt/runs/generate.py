"""Generate: continue a prompt with a model and optional adapters; `chat` talks through a Conversation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.infer import best
from tinygpt.infer.config import SampleConfig
from tinygpt.runs import _constrained, _drafters
from tinygpt.runs._adapters import Adapters
from tinygpt.runs._constrained import Constrained
from tinygpt.runs._conversation import ChatConfig as ChatConfig
from tinygpt.runs._conversation import Conversation as Conversation
from tinygpt.runs._drafters import Speculation
from tinygpt.runs._engine import Ends, lane_of, open_engine
from tinygpt.runs._packs import Packs
from tinygpt.runs._prompt_cache import PromptCache
from tinygpt.runs._sampled import Answered, answers

ALTERNATIVES = 100  # most of them beside a token


@dataclass(frozen=True, kw_only=True)
class Config(SampleConfig, Adapters, Packs, Ends, Speculation, Constrained, PromptCache):
    """Settings of `sample`."""

    model: Annotated[Path, "A model, run or specialist directory."]
    prompt: Annotated[str, "Text to continue; '-' reads it from stdin."] = ""
    n: Annotated[int, "How many answers; they are written together."] = 1
    best_of: Annotated[int | None, "Write so many, and show the --n with the largest mean log p."] = None
    logprobs: Annotated[
        int | None, "Show log p of each token under the model itself, and so many alternatives to it."
    ] = None
    echo: Annotated[bool, "With --logprobs: of the prompt's tokens too."] = False

    def __post_init__(self) -> None:
        SampleConfig.__post_init__(self)
        Adapters.__post_init__(self)
        Packs.__post_init__(self)
        Speculation.__post_init__(self)
        PromptCache.__post_init__(self)
        refuse_idle(self, {"prompt_cache": "prompt_cache_dir"})  # answers to one prompt read it once anyway
        Constrained.__post_init__(self)
        best.check(self.n, self.best_of, greedy=self.best_of is not None and self.greedy)
        if self.logprobs is not None and not 0 <= self.logprobs <= ALTERNATIVES:
            raise ConfigError(f"--logprobs must be from 0 to {ALTERNATIVES}, got {self.logprobs}")
        if self.echo and self.logprobs is None:
            raise ConfigError(
                "--echo means nothing without --logprobs", hint="the prompt is shown before its answer anyway"
            )


def sample(config: Config, prompt: str, events: Events | None = None) -> Iterator[Answered]:
    """Pieces of `n` answers, first those of the first; answer i has the seed `seed + i`. All of them are
    written at once. Of `best_of` each comes whole, the likeliest first."""
    engine = open_engine(config.model, config, events, config.packing)
    engine.drafter = _drafters.Drafters(config, config.model, events)(engine)
    stop_ids = config.stop_ids(engine)
    constraint = _constrained.maker(config, engine.tokenizer, stop_ids)
    assert config.seed is not None, "the caller shows the seed, so it draws it"
    logprobs = 0 if config.best_of and config.logprobs is None else config.logprobs
    request = engine.request(
        engine.encode(prompt), config, stop_ids=stop_ids, logprobs=logprobs, echo=config.echo
    )
    requests = best.several(request, config.best_of or config.n)
    if constraint is not None:
        requests = [replace(one, constraint=constraint()) for one in requests]
    kept = config.prompt_cache_dir
    lane = lane_of(engine) if kept is None else config.lane(engine, config.model, config, events)
    choose, tell = config.best_of is not None, config.logprobs is not None
    for piece in answers(lane, requests, config.n, choose=choose, tell=tell):
        if piece.index == 0 and piece.finish_reason is not None and kept is not None and events is not None:
            events.note(f"{kept}: {piece.n_cached} of {len(request.prompt)} tokens of the prompt were there")
        yield piece
    _drafters.tell(engine, events)
