"""A small model that is trained on a mixture of corpora, to see what the mixture is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tinygpt.core import backend
from tinygpt.core.events import Event, Events, Progress, TrainStep
from tinygpt.data.source import text
from tinygpt.data.source._mixture import PERIOD, Mixture
from tinygpt.eval.suites import heldout_loss
from tinygpt.infer.engine import Engine
from tinygpt.runs._local_endpoint import LocalEndpoint
from tinygpt.runs._settings import OBJECTIVE, OPTIM, SCHEDULE, FreshModel
from tinygpt.train.loop import Plan, fit
from tinygpt.train.stop import Stop
from tinygpt.train.update import Gradient

if TYPE_CHECKING:
    from tinygpt.data.source._source import Source
    from tinygpt.data.tokenizer._protocol import Tokenizer


class Steps:
    """Shows the steps of a proxy run as progress, and nothing else of it."""

    def __init__(self, events: Events, task: str, total: int) -> None:
        self.events, self.task, self.total = events, task, total

    def write(self, event: Event) -> None:
        if isinstance(event, TrainStep):
            self.events.emit(Progress(task=self.task, done=event.step, total=self.total, unit="steps"))

    def close(self) -> None:
        """Nothing to release."""


class Proxy:
    """A small model that learns from a mixture and is measured on a target text that it never reads."""

    def __init__(
        self,
        settings: FreshModel,
        tokenizer: Tokenizer,
        corpora: Sequence[text.Config],
        target: heldout_loss.Config,
        events: Events,
    ) -> None:
        self.settings, self.tokenizer, self.corpora, self.events = settings, tokenizer, corpora, events
        self.target, self.examples = target, heldout_loss.load(target)
        self.context = settings.fresh(tokenizer.vocab_size, 0).config.max_position_embeddings
        self._sources: dict[int, list[Source]] = {}

    def sources(self, seed: int) -> list[Source]:
        """The corpora in the order of a seed; tokens are cached on disk."""
        if seed not in self._sources:
            build: Callable[[text.Config], Source] = lambda corpus: text.build(  # noqa: E731
                corpus, self.tokenizer, length=self.context, batch_size=self.settings.amounts.batch,
                seed=seed, events=self.events,
            )  # fmt: skip
            self._sources[seed] = [build(corpus) for corpus in self.corpora]
        return self._sources[seed]

    def score(self, shares: Sequence[float], seed: int, task: str, stop: Stop) -> dict[str, Any] | None:
        """Bits per byte of the target and how often each corpus was read; None when stopped on the way."""
        config = self.settings
        steps, _, lr = config.amounts
        model = config.fresh(self.tokenizer.vocab_size, seed)
        schedule = SCHEDULE.load(config.schedule.name)
        updater = Gradient(
            OBJECTIVE.load("next_token").build(model),
            OPTIM.load(config.optimizer.name).build(config.optimizer.options),
            lambda step: lr * schedule.at(step, steps, config.schedule.options),
            accumulate=config.accumulate, clip=config.clip, compiled=config.compile,
            dtype=backend.compute_dtype(config.dtype),
        )  # fmt: skip
        used = {str(i): share for i, share in enumerate(shares) if share >= 1 / PERIOD}
        mixture = Mixture({name: self.sources(seed)[int(name)] for name in used}, used)
        told = Events(Steps(self.events, task, steps))
        if fit(mixture, updater, Plan(steps=steps), told, stop=stop).status != "done":
            return None
        endpoint = LocalEndpoint(Engine(model, self.tokenizer), name=task)
        found = heldout_loss.score(endpoint, self.examples, self.target).rows
        score = next(row.score for row in found if row.metric == "bits_per_byte")
        read = mixture.epochs(steps)
        return {"bits_per_byte": score, "epochs": [read.get(str(i), 0.0) for i in range(len(shares))]}
