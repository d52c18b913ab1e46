"""The losses of heads that draft beside a frozen model, and how often their guesses would be right.

Medusa's head k at place i learns the token t_(i+1+k), `loss = sum_k 0.8^(k-1) CE_k`. EAGLE's layer at the
pair (f_i, t_(i+1)) learns the feature f_(i+1) and what the model makes of it, `loss = SmoothL1(f', f) +
0.1 CE(p(f), p(f'))`, features divided by their scale. Both count only places inside one document. What EAGLE
reads in training is off by uniform noise, U(-0.1, 0.1), so that it bears the errors of its own features.

Paper: Cai et al., ICML 2024, arXiv:2401.10774, eq. 1; Li et al., ICML 2024, arXiv:2401.15077, section 4.2.
Differs: EAGLE's noise is in units of the features' root mean square, which is another in every model.
"""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx, nn
from tinygpt.model import ops
from tinygpt.model.drafting.features import Features
from tinygpt.train.objective._weighted import real_targets
from tinygpt.train.protocols import Tensors

FADE = 0.8  # weight of each of Medusa's heads beside the one before
TOKENS = 0.1  # weight of EAGLE's cross-entropy beside the distance of features

Sums = dict[str, tuple[mx.array, mx.array]]


class HeadsLoss:
    """The objective. `module` is the heads alone; the model gives features without learning."""

    def __init__(self, heads: Any, features: Features) -> None:
        self.module, self._features = heads, features

    def weights(self, batch: Tensors) -> mx.array:
        """(B, L): 1 where the guess of the token after the next is learned."""
        return _ahead(real_targets(batch), batch["segments"], 1)

    def loss(self, batch: Tensors) -> tuple[mx.array, Tensors]:
        """The mean over places, and its parts."""
        given_BLD = self._given(batch)
        return self._loss(batch, given_BLD, self._made(batch, self._off(batch, given_BLD)))

    def measure(self, batch: Tensors) -> mx.array:
        """The same mean without noise."""
        given_BLD = self._given(batch)
        return self._loss(batch, given_BLD, self._made(batch, given_BLD))[0]

    def report(self, batch: Tensors) -> Sums:
        """The loss, and for each guess how often it is right: `accept_k`, equal to the model's likeliest
        token after the real text; `sampled_k`, the chance that the model draws it there."""
        features_BLD = self._given(batch)
        made = self._made(batch, features_BLD)
        loss, _ = self._loss(batch, features_BLD, made)
        total = self.weights(batch).sum()
        found: Sums = {"loss": (loss * total, total)}
        p_BLV = ops.softmax(self._features.logits(features_BLD).astype(mx.float32))
        best_BL = p_BLV.argmax(axis=-1)
        for k, made_BLD in enumerate(made, start=1):
            guess_BL = self._features.logits(made_BLD).argmax(axis=-1)[:, : best_BL.shape[1] - k]
            right_BL = (guess_BL == best_BL[:, k:]).astype(mx.float32)
            chance_BL = mx.take_along_axis(p_BLV[:, k:], guess_BL[..., None], axis=-1)[..., 0]
            counts_BL = _ahead(real_targets(batch), batch["segments"], k)[:, : best_BL.shape[1] - k]
            found[f"accept_{k}"] = ((right_BL * counts_BL).sum(), counts_BL.sum())
            found[f"sampled_{k}"] = ((chance_BL * counts_BL).sum(), counts_BL.sum())
        return found

    def _given(self, batch: Tensors) -> mx.array:
        how = {name: batch[name] for name in ("positions", "segments")}
        return mx.stop_gradient(self._features.of(batch["tokens"], **how)).astype(mx.float32)

    def _off(self, batch: Tensors, features_BLD: mx.array) -> mx.array:
        """Features as a training pass of the module reads them."""
        if not self.module.noise or "keys" not in batch:
            return features_BLD
        scale = self.module.facts.feature_scale
        return self.module.noise.of(batch["keys"]).off(features_BLD / scale) * scale

    def _made(self, batch: Tensors, features_BLD: mx.array) -> list[mx.array]:
        """The features that guesses are made of: element k - 1, at place i, of the token t_(i+1+k)."""
        if self.module.facts.kind == "medusa":
            return self.module(features_BLD)
        embedded_BLD = self._features.embed(batch["targets"]).astype(mx.float32)
        return [self.module(features_BLD, mx.stop_gradient(embedded_BLD), segments=batch["segments"])]

    def _loss(self, batch: Tensors, features_BLD: mx.array, made: list[mx.array]) -> tuple[mx.array, Tensors]:
        real_BL = real_targets(batch)
        if self.module.facts.kind == "eagle":
            return self._eagle(made[0], features_BLD, self.weights(batch))
        total, facts = mx.array(0.0), Tensors()
        for k, made_BLD in enumerate(made, start=1):
            length = real_BL.shape[1] - k
            counts_BL = _ahead(real_BL, batch["segments"], k)[:, :length]
            z_BLV = self._features.logits(made_BLD[:, :length])
            losses_BL = ops.cross_entropy(z_BLV, batch["targets"][:, k:])
            facts[f"loss_{k}"] = (losses_BL * counts_BL).sum() / mx.maximum(counts_BL.sum(), 1.0)
            total = total + FADE ** (k - 1) * facts[f"loss_{k}"]
        return total, facts

    def _eagle(
        self, made_BLD: mx.array, features_BLD: mx.array, counts_BL: mx.array
    ) -> tuple[mx.array, Tensors]:
        made_BLD, true_BLD, counts_BL = made_BLD[:, :-1], features_BLD[:, 1:], counts_BL[:, :-1]
        scale, n = self.module.facts.feature_scale, mx.maximum(counts_BL.sum(), 1.0)
        distance_BL = nn.losses.smooth_l1_loss(made_BLD / scale, true_BLD / scale, reduction="none").mean(
            axis=-1
        )
        p_BLV = mx.stop_gradient(ops.softmax(self._features.logits(true_BLD).astype(mx.float32)))
        z_BLV = self._features.logits(made_BLD).astype(mx.float32)
        entropy_BL = mx.logsumexp(z_BLV, axis=-1) - (p_BLV * z_BLV).sum(axis=-1)
        feature, token = ((x * counts_BL).sum() / n for x in (distance_BL, entropy_BL))
        return feature + TOKENS * token, {"loss_features": feature, "loss_tokens": token}


def _ahead(real_BL: mx.array, segments_BL: mx.array, k: int) -> mx.array:
    """(B, L): 1 where the token k places after the next one is of the same document."""
    same = (segments_BL[:, k:] == segments_BL[:, :-k]) & (segments_BL[:, k:] > 0)
    there_BL = same.astype(real_BL.dtype) * real_BL[:, k:]
    return mx.pad(there_BL, [(0, 0), (0, k)])
