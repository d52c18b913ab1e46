"""A preference loss over a model: log-probabilities of whole answers, and the mean of the loss over rows.

A row holds two answers side by side, each as long as half a row: the chosen and the rejected one of a pair,
or an answer and one that belongs to another prompt. So whatever splits a batch by rows (accumulation,
streams, processes) never tears a pair apart. The model reads the halves as rows of their own. Shapes: B
rows, W tokens of a half.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tinygpt.core.backend import mx
from tinygpt.model.terms import MEASURE, Terms
from tinygpt.train.preference._scores import Facts, Labelled, Pairs
from tinygpt.train.protocols import SURVEY, Tensors

if TYPE_CHECKING:
    from tinygpt.model.lm import LM

READ = ("tokens", "targets", "weights", "positions", "segments")


class Preference:
    """The mean of losses(Pairs, config) over the pairs of a batch."""

    def __init__(self, model: LM, losses: Callable[..., tuple[mx.array, Facts]], config: Any) -> None:
        self.module, self.losses, self.config = model, losses, config

    def weights(self, batch: Tensors) -> mx.array:
        """(B, 1): 1 for a row with answers, 0 for padding."""
        return _real(batch)[:, None]

    def loss(self, batch: Tensors) -> tuple[mx.array, Tensors]:
        """The mean over rows with what layers add to it, and the loss's own figures."""
        terms = Terms(self._shares(batch))
        losses_B, facts = self.rows(batch, terms=terms)
        loss = _mean(losses_B, _real(batch), batch)
        told = {name: self.told(name, value, batch) for name, value in facts.items()}
        if not terms:
            return loss, told
        measures = {f"{MEASURE}{name}": value for name, value in terms.measures.items()}
        return loss + terms.loss(), {"loss": loss, **told, **terms.facts(), **measures}

    def measure(self, batch: Tensors) -> mx.array:
        """The mean as evaluation has it: without noise, and without what layers add in training."""
        return _mean(self.rows(batch)[0], _real(batch), batch)

    def report(self, batch: Tensors) -> dict[str, tuple[mx.array, mx.array]]:
        """Sums over rows of the loss and of its figures, and over how many rows each is."""
        losses_B, facts = self.rows(batch)
        counts = {name: self.counts(name, batch) for name in facts} | {"loss": _real(batch)}
        return {n: ((v * counts[n]).sum(), counts[n].sum()) for n, v in ({"loss": losses_B} | facts).items()}

    def rows(self, batch: Tensors, terms: Terms | None = None) -> tuple[mx.array, Facts]:
        """(losses (B,), facts (B,)); with `terms` as in training."""
        sums, counts = answers(self.module, halves(batch), terms=terms, keys=batch.get("keys"))
        chosen, rejected = sums[::2], sums[1::2]
        reference = batch["reference"]
        scores = Pairs(
            chosen, rejected, counts[::2], counts[1::2],
            reference[:, 0], reference[:, 1],
        )  # fmt: skip
        return self.losses(scores, self.config)

    def counts(self, name: str, batch: Tensors) -> mx.array:
        """(B,): 1 for the rows that a fact is about."""
        return _real(batch)

    def told(self, name: str, value_B: mx.array, batch: Tensors) -> mx.array:
        """A fact's mean over its rows."""
        return _mean(value_B, self.counts(name, batch), batch)

    def _shares(self, batch: Tensors) -> mx.array:
        """(2B, W) what each target counts: the tokens of a row are 1 together, as the row is in the mean."""
        weights = halves(batch)["weights"]
        return weights / (2 * mx.maximum(weights.sum(axis=1, keepdims=True), 1))


class Unpaired(Preference):
    """The mean of losses(Labelled, config) over the answers of a batch. How far the model has moved is asked
    of the whole batch first (`survey`), so that no way of splitting it changes the loss."""

    def survey(self, batch: Tensors) -> Tensors:
        """Sums over rows: log p / p_ref of answers to other prompts, good answers, and rows."""
        real = _real(batch)
        sums, _ = answers(self.module, _half(batch, 1))
        moved = (sums - batch["reference"][:, 1]) * real
        return {"kl": moved.sum(), "good": (batch["good"] * real).sum(), "rows": real.sum()}

    def rows(self, batch: Tensors, terms: Terms | None = None) -> tuple[mx.array, Facts]:
        sums, _ = answers(self.module, _half(batch, 0), terms=terms, keys=batch.get("keys"))
        found = self._found(batch)
        kl = found["kl"] / mx.maximum(found["rows"], 1)
        scores = Labelled(sums, batch["reference"][:, 0], batch["good"], mx.stop_gradient(kl))
        return self.losses(scores, self.config)

    def counts(self, name: str, batch: Tensors) -> mx.array:
        good, real = batch["good"], _real(batch)
        if name.startswith("chosen"):
            return good * real
        return (1 - good) * real if name.startswith("rejected") else real

    def told(self, name: str, value_B: mx.array, batch: Tensors) -> mx.array:
        """A fact's part of its mean: parts are weighed by their rows, so what is about some of these only is
        divided by the share that they have in the whole batch. 0 where a batch has none."""
        found = self._found(batch)
        rows = mx.maximum(found["rows"], 1)
        good = found["good"] / rows
        bad = (found["rows"] - found["good"]) / rows
        share = good if name.startswith("chosen") else bad if name.startswith("rejected") else mx.array(1.0)
        return _mean(value_B, self.counts(name, batch), batch) / mx.maximum(share, 1e-9)

    def _found(self, batch: Tensors) -> Tensors:
        """The survey of the whole batch, or of this one where none was made."""
        names = ("kl", "good", "rows")
        if SURVEY + names[0] in batch:
            return {name: batch[SURVEY + name][0] for name in names}
        return {name: mx.stop_gradient(value) for name, value in self.survey(batch).items()}

    def _shares(self, batch: Tensors) -> mx.array:
        weights = _half(batch, 0)["weights"]
        return weights / mx.maximum(weights.sum(axis=1, keepdims=True), 1)


def over(model: LM, losses: Callable[..., tuple[mx.array, Facts]], config: Any) -> Preference:
    """The objective of a loss: of pairs, or of single answers."""
    return (Preference if config.paired else Unpaired)(model, losses, config)


def answers(
    model: LM, rows: Tensors, *, terms: Terms | None = None, keys: mx.array | None = None
) -> tuple[mx.array, mx.array]:
    """(sum of log p over the learned tokens, how many these are) of every row."""
    weights = rows["weights"]
    segments = mx.minimum(rows["segments"], 1)  # a half is one document, the second one, too
    if keys is not None and len(keys) < len(weights):  # both answers of a pair meet the same noise
        keys = mx.repeat(keys, 2, axis=0)
    losses = model.losses(
        rows["tokens"], rows["targets"], positions=rows["positions"], segments=segments,
        terms=terms, keys=keys,
    )  # fmt: skip
    return -(losses * weights).sum(axis=1), weights.sum(axis=1)


def halves(batch: Tensors) -> Tensors:
    """The rows' halves as (2B, W) rows, those of a pair after each other."""
    return {name: batch[name].reshape(-1, batch[name].shape[1] // 2) for name in READ}


def _half(batch: Tensors, which: int) -> Tensors:
    """(B, W): the first (0) or second (1) half of every row."""
    return {n: mx.split(batch[n], 2, axis=1)[which] for n in READ}


def _real(batch: Tensors) -> mx.array:
    """(B,): 1 for a row with answers, 0 for padding."""
    return (batch["weights"].sum(axis=1) > 0).astype(mx.float32)


def _mean(value_B: mx.array, counts_B: mx.array, batch: Tensors) -> mx.array:
    return (value_B * counts_B).sum() / mx.maximum(_real(batch).sum(), 1.0)
