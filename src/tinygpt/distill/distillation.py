"""The objective of a distillation run: the data's labels and the teacher's distributions, mixed.

    loss = alpha T^2 D(teacher, student) + (1 - alpha) NLL + w hint

D is a loss of divergence/, at temperature T, as a mean over the places that count; NLL is the cross-entropy
of the data's own tokens over the same places. With alpha = 1 only the teacher is heard; so it is in rows
whose answers the student wrote itself (on_policy.py). A hint (hint/) compares layers at the same places.

Source: Hinton et al. 2015, arXiv:1503.02531, section 2. Differs: the mean is over tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.distill.hint._points import looking
from tinygpt.model import ops
from tinygpt.model.terms import MEASURE, Terms
from tinygpt.train.objective import response
from tinygpt.train.protocols import Tensors

if TYPE_CHECKING:
    from tinygpt.distill.hint._points import Hint, Seen
    from tinygpt.distill.signal import Signal, Teacher
    from tinygpt.model.lm import LM

Losses = Callable[..., mx.array]


@dataclass(frozen=True, kw_only=True)
class Config(response.Config):
    """How labels and teacher are mixed, beside what counts."""

    temperature: Annotated[float, "What both distributions are flattened by."] = 1.0
    alpha: Annotated[float, "Share of the teacher in the loss; the labels have the rest."] = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be positive, got {self.temperature:g}")
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha must be from 0 to 1, got {self.alpha:g}")


class Distillation(response.Response):
    """Learns from the teacher at the places that the batch's weights choose."""

    def __init__(
        self, model: LM, teacher: Teacher | None, losses: Losses, config: Config, *, options: Any = None,
        apart: bool = False, hint: Hint | None = None, hint_weight: float = 1.0,
    ) -> None:  # fmt: skip
        """`teacher` may be None where nothing of it is heard: alpha 0, and no hint. A `hint` needs one that
        shows its points, and a module that carries its projections."""
        super().__init__(model, config)
        self.teacher, self.losses, self.options, self.apart = teacher, losses, options, apart
        self.hint, self.hint_weight = hint, hint_weight

    def loss(self, batch: Tensors) -> tuple[mx.array, Tensors]:
        """The mixed loss with what layers add to it; the facts tell its parts."""
        weights_BL = self.weights(batch)
        terms = Terms(weights_BL, z_loss=self.config.z_loss)
        logits_BLV, seen = self._passed(batch, terms=terms, keys=batch.get("keys"))
        nll_BL, log_z_BL = ops.cross_entropy_and_log_z(logits_BLV, batch["targets"])
        terms.add_z(log_z_BL, terms.counts(nll_BL.shape))
        labels_BL = weights_BL * batch["labelled"][:, None] if "labelled" in batch else weights_BL
        nll = mean(nll_BL, labels_BL, weights_BL)
        loss, told = (1 - self.config.alpha) * nll, {"nll": mx.stop_gradient(nll)}
        alpha, scale = self.config.alpha, self.config.temperature**2
        signal: Any = self.teacher(batch) if self.teacher is not None and (alpha or self.hint) else None
        if alpha:
            taught = mean(self._compared(signal, logits_BLV), signal.places(weights_BL), weights_BL)
            told["divergence"] = mx.stop_gradient(taught)
            # Labels that weigh 0 would still be differentiated.
            loss = alpha * scale * taught + (loss if alpha < 1 else 0.0)
        if self.hint is not None:
            hinted = mean(self.hint.losses(seen, signal.seen, batch["segments"]), weights_BL, weights_BL)
            loss, told["hint"] = loss + self.hint_weight * hinted, mx.stop_gradient(hinted)
        if not terms:
            return loss, told
        measures = {f"{MEASURE}{name}": value for name, value in terms.measures.items()}
        return loss + terms.loss(), {"loss": loss, **told, **terms.facts(), **measures}

    def report(self, batch: Tensors) -> dict[str, tuple[mx.array, mx.array]]:
        """Sums over places of the cross-entropy, the divergence and the hint, and over how much each is."""
        weights_BL = self.weights(batch)
        logits_BLV, seen = self._passed(batch)
        nll_BL, _ = ops.cross_entropy_and_log_z(logits_BLV, batch["targets"])
        found = {"loss": ((nll_BL * weights_BL).sum(), weights_BL.sum())}
        if self.teacher is None:
            return found
        signal: Any = self.teacher(batch)
        places_BL = signal.places(weights_BL)
        found["divergence"] = (self._compared(signal, logits_BLV) * places_BL).sum(), places_BL.sum()
        if self.hint is not None:
            hint_BL = self.hint.losses(seen, signal.seen, batch["segments"])
            found["hint"] = (hint_BL * weights_BL).sum(), weights_BL.sum()
        return found

    def _passed(self, batch: Tensors, **how: Any) -> tuple[mx.array, Seen]:
        """The student's logits, and what its layers show where a hint looks."""
        seen, tap = looking(self.hint.points[0] if self.hint is not None else ())
        logits_BLV = self.module(
            batch["tokens"], positions=batch["positions"], segments=batch["segments"], tap=tap, **how
        )
        return logits_BLV, seen

    def _compared(self, signal: Signal, logits_BLV: mx.array) -> mx.array:
        pair = signal.apart if self.apart else signal.events
        student, teacher = pair(logits_BLV, self.config.temperature)
        return self.losses(student, mx.stop_gradient(teacher), self.options)


def mean(values_BL: mx.array, places_BL: mx.array, weights_BL: mx.array) -> mx.array:
    """The weighted sum over what all places weigh, so that parts of a batch add up; a place where the teacher
    is silent counts as if the two agreed."""
    return (values_BL * places_BL).sum() / mx.maximum(weights_BL.sum(), 1.0)


def build(
    model: LM, teacher: Teacher | None, losses: Any, config: Config, options: Any = None, **hints: Any
) -> Distillation:
    """The objective of a loss's module; `options` are its Config, `hints` those of Distillation."""
    apart = getattr(losses, "APART", False)
    return Distillation(model, teacher, losses.losses, config, options=options, apart=apart, **hints)


def refuse_odd_heads(model: Any) -> None:
    """ConfigError for a head that predicts more than the next token: a teacher says nothing of that."""
    if hasattr(getattr(model, "head", None), "draft"):
        raise ConfigError(
            f"the head '{model.config.head.name}' predicts later tokens too: of these a teacher says nothing",
            hint="give the student the head linear, and train heads afterwards: tinygpt train-heads",
        )
