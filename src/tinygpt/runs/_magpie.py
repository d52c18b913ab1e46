"""Settings of `magpie`, and who writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tinygpt.core import config as configs
from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError, RemoteError
from tinygpt.core.events import Events
from tinygpt.data.sift import Sift
from tinygpt.data.template import _choice
from tinygpt.eval.reward import _composite
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.lane import Limits
from tinygpt.runs import _pieces, _prompt_cache
from tinygpt.runs._adapters import Adapters
from tinygpt.runs._answerers import Ask, Local, Remote, Told
from tinygpt.runs._engine import lane_of, open_engine
from tinygpt.runs._openai import Client

if TYPE_CHECKING:
    from tinygpt.data.template._choice import Template
    from tinygpt.data.tokenizer._protocol import Tokenizer
    from tinygpt.infer.lane import Lane

MANY = 10  # attempts for each row that is wanted


@dataclass(frozen=True, kw_only=True)
class Config(Adapters, Sift):
    """Settings of `magpie`."""

    model: Annotated[Path, "A model, run or specialist directory; with --url the server's name for it."]
    out: Annotated[Path, "JSONL file of the conversations, which sft reads."]
    count: Annotated[int, "Conversations to keep."] = 100
    max_attempts: Annotated[int, "Conversations to write at most; 0: ten times --count."] = 0
    turns: Annotated[int, "Questions and answers of a conversation."] = 1
    system: Annotated[str, "System prompt before the first question; it is kept in the rows."] = ""
    template: Annotated[str, _choice.HELP] = _choice.AUTO
    max_user: Annotated[int, "Longest question in tokens; one that is cut off is dropped."] = 64
    max_assistant: Annotated[int, "Longest answer in tokens; one that is cut off is dropped."] = 256
    min_user: Annotated[int, "Shortest question in tokens."] = 1
    min_assistant: Annotated[int, "Shortest answer in tokens."] = 1
    temperature: Annotated[float, "How freely questions are written."] = 0.9
    answer_temperature: Annotated[float | None, "How freely answers are; not given: as questions."] = None
    top_p: Annotated[float, "Keep the fewest likeliest tokens whose probability reaches p; 1: all."] = 1.0
    near: Annotated[
        float, "Likeness of questions from which the later one is dropped; 1: equal ones alone."
    ] = 0.7
    reward: Annotated[str, "What scores a conversation's last answer: a .toml or file.py:function."] = ""
    min_score: Annotated[float, "With --reward: the least score of a conversation that is kept."] = 0.5
    seed: Annotated[int, "Same seed, same conversations."] = 0
    batch: Annotated[int, "Conversations written together."] = 32
    url: Annotated[str, "An OpenAI-compatible server whose /v1/completions takes ids."] = ""
    tokenizer: Annotated[str, "With --url: the model's tokenizer and template, a directory or hf://."] = ""
    seconds: Annotated[float, "With --url: longest time for an answer."] = 600.0
    tries: Annotated[int, "With --url: how often a request is made."] = 6
    licence: Annotated[str, "Licence of what the model writes, for the card."] = ""
    resume: Annotated[bool, "Go on where an interrupted command stopped."] = False

    def __post_init__(self) -> None:
        Adapters.__post_init__(self)
        Sift.__post_init__(self)
        least = dict.fromkeys(
            ("count", "turns", "max_user", "max_assistant", "min_user", "min_assistant", "batch", "tries"), 1
        )
        for name, bound in {**least, "max_attempts": 0, "temperature": 0, "seconds": 0}.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"{configs.flag(name)} must be at least {bound}, got {getattr(self, name)}")
        if self.temperature == 0:
            raise ConfigError("--temperature 0 gives the same question each time", hint="raise it")
        if not 0 < self.near <= 1:
            raise ConfigError(f"--near must be above 0 and at most 1, got {self.near}")
        refuse_idle(self, {**dict.fromkeys(("tokenizer", "seconds", "tries"), "url"), "min_score": "reward"})
        if self.url and not self.tokenizer:
            raise ConfigError(
                "--url needs --tokenizer: the model's template is what makes it write",
                hint="name the model's directory, or hf://org/name",
            )
        if self.url and self.adapter:
            raise ConfigError("--adapter says nothing to a server", hint="leave it out")
        if self.out.is_dir() or self.out.suffix != ".jsonl":
            raise ConfigError(f"--out {self.out} is no .jsonl file", hint="such as written.jsonl")
        _choice.check(self.template)

    @property
    def most(self) -> int:
        """Attempts at most."""
        return self.max_attempts or MANY * self.count

    def scorer(self) -> _composite.Reward | None:
        """What scores an answer."""
        return _composite.load(self.reward) if self.reward else None

    def decides(self) -> dict[str, Any]:
        """The settings that decide what is written and kept, but for the model and how many."""
        idle = ("model", "out", "count", "max_attempts", "batch", "url", "tokenizer", "seconds", "tries")
        idle = (*idle, "licence", "resume", "adapter", "adapter_weight", "force")
        told = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in idle}
        scorer = self.scorer()
        return configs.to_dict(told) | ({"reward_hash": scorer.hash} if scorer else {})


class Author:
    """A model that goes on from ids, in this process or behind a server; `name` as rows say it, `identity`:
    what else decides what it writes."""

    def __init__(self, config: Config, events: Events) -> None:
        self._config = config
        self.identity: list[str] = []
        self._lane: Lane | None = None
        if config.url:
            self._client = Client(config.url, seconds=config.seconds, tries=config.tries, seed=config.seed)
            self.name = str(config.model) if str(config.model) != "." else self._client.model()
            self.tokenizer: Tokenizer = _pieces.open_tokenizer(config.tokenizer)
            self.identity += [self._client.url, self.name, self.tokenizer.hash]
        else:
            engine = open_engine(config.model, config, events)
            self._lane, self.tokenizer = lane_of(engine, Limits(rows=config.batch)), engine.tokenizer
            self.name = "+".join(one.resolve().name for one in (config.model, *config.adapter))
            self.identity += [str(_pieces.checkpoint.identity(_pieces.model_path(config.model)))]
            self.identity += [_prompt_cache.content(_pieces.model_path(one)) for one in config.adapter]
            self.identity += [f"{weight:g}" for weight in config.adapter_weight]
        self.template: Template = _pieces.template_of(self.tokenizer, config.template)
        if self.template.note:
            events.note(self.template.note)

    def write(
        self,
        asks: Sequence[Ask],
        *,
        max_tokens: int,
        temperature: float,
        stop: str = "",
        stop_ids: frozenset[int],
    ) -> dict[int, Told]:
        """What follows the ids of each, by their numbers. RemoteError where a server does not answer."""
        top_p, stops = self._config.top_p, (stop,) if stop else ()
        if self._lane is not None:
            how = SampleConfig(
                temperature=temperature, top_p=top_p, max_tokens=max_tokens, stop=stops, seed=0
            )
            writer: Local | Remote = Local(self._lane, how, stop_ids, self._config.batch)
        else:
            body: dict[str, Any] = {"model": self.name, "max_tokens": max_tokens, "temperature": temperature}
            body |= {"top_p": top_p} | ({"stop": list(stops)} if stops else {})
            writer = Remote(self._client, body, self._config.batch, {"stop_token_ids": sorted(stop_ids)})
        found = {ask.number: told for ask, told in writer.answers(iter(asks), ordered=False)}
        if lost := next((told for told in found.values() if told.again), None):
            raise RemoteError(lost.error, hint="give the same command with --resume: nothing is lost")
        return found
