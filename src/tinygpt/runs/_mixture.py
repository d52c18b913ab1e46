"""Rows of several sources in given shares, and the small model that is trained on them to see their worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tinygpt.core import backend
from tinygpt.core.events import Event, Events, Progress, TrainStep
from tinygpt.data.batch import Batch
from tinygpt.data.source import text
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


class Mixture:
    """Batches whose rows come from several sources of one row a batch, each as often as its share says.

    Row n comes from the source that is furthest behind its share, so shares hold at every length, and a
    source goes through its own rows in its own order."""

    def __init__(self, sources: Sequence[Source], shares: Sequence[float], rows: int) -> None:
        self.sources, self.shares, self.rows = sources, shares, rows
        self.read = [0] * len(sources)
        self._rows: list[tuple[int, int]] = []  # (source, its row) of each row so far

    def __getitem__(self, i: int) -> Batch:
        import numpy as np

        while len(self._rows) < (i + 1) * self.rows:
            n = len(self._rows) + 1
            behind = [share * n - read for share, read in zip(self.shares, self.read)]
            k = max(range(len(behind)), key=lambda k: (behind[k], -k))
            self._rows.append((k, self.read[k]))
            self.read[k] += 1
        parts = [self.sources[k][row] for k, row in self._rows[i * self.rows : (i + 1) * self.rows]]
        names = [f.name for f in dataclasses.fields(Batch)]
        return Batch(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def epochs(self) -> list[float]:
        """How often each source was read through."""
        return [round(read / source.n_rows, 3) for read, source in zip(self.read, self.sources)]


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
        """The corpora, a row a batch, in the order of a seed; tokens are cached on disk."""
        if seed not in self._sources:
            build: Callable[[text.Config], Source] = lambda corpus: text.build(  # noqa: E731
                corpus, self.tokenizer, length=self.context, batch_size=1, seed=seed, events=self.events
            )
            self._sources[seed] = [build(corpus) for corpus in self.corpora]
        return self._sources[seed]

    def score(self, shares: Sequence[float], seed: int, task: str, stop: Stop) -> dict[str, Any] | None:
        """Bits per byte of the target and how often each corpus was read; None when stopped on the way."""
        config = self.settings
        steps, rows, lr = config.amounts
        model = config.fresh(self.tokenizer.vocab_size, seed)
        schedule = SCHEDULE.load(config.schedule.name)
        updater = Gradient(
            OBJECTIVE.load("next_token").build(model),
            OPTIM.load(config.optimizer.name).build(config.optimizer.options),
            lambda step: lr * schedule.at(step, steps, config.schedule.options),
            accumulate=config.accumulate, clip=config.clip, compiled=config.compile,
            dtype=backend.setup().default_dtype if config.dtype == "auto" else config.dtype,
        )  # fmt: skip
        mixture = Mixture(self.sources(seed), shares, rows)
        told = Events(Steps(self.events, task, steps))
        if fit(mixture, updater, Plan(steps=steps), told, stop=stop).status != "done":
            return None
        endpoint = LocalEndpoint(Engine(model, self.tokenizer), name=task)
        found = heldout_loss.score(endpoint, self.examples, self.target).rows
        score = next(row.score for row in found if row.metric == "bits_per_byte")
        return {"bits_per_byte": score, "epochs": mixture.epochs()}
