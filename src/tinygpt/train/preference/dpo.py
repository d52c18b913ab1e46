"""DPO: raise the chosen answer's log-probability against the rejected one's, both measured from a reference.

    z    = beta [log p(y_w) / p_ref(y_w) - log p(y_l) / p_ref(y_l)]
    loss = - log sigmoid(z)                                            log 2 = 0.6931 at the start

It is the maximum-likelihood fit of a Bradley-Terry model of preferences whose reward is `beta log p /
p_ref`, so no reward model is trained. With `label_smoothing` e a share e of the labels is taken to be wrong:
`- (1 - e) log sigmoid(z) - e log sigmoid(-z)` (conservative); `robust` makes that unbiased,
`[- (1 - e) log sigmoid(z) + e log sigmoid(-z)] / (1 - 2 e)`. Both answers may become less likely, as long as
the rejected one does so faster; `alpha` adds `- alpha log p(y_w) / |y_w|`, which holds the chosen one up.

Paper: Rafailov et al. 2023, arXiv:2305.18290, eq. 7; conservative: Mitchell 2023, "A note on DPO with noisy
preferences", eq. 3; robust: Chowdhury et al. 2024, arXiv:2403.00409, eq. 12; alpha: Pang et al. 2024,
arXiv:2404.19733, eq. 1.
Differs: the likelihood of eq. 1 there is that of reasoning and answer, here of all learned tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.train.preference._scores import Facts, Knobs, Pairs, log_sigmoid


@dataclass(frozen=True, kw_only=True)
class Config(Knobs):
    """How far the model may go, and how far labels are trusted."""

    beta: Annotated[float, "Holds the model to the reference: the larger, the closer it stays."] = 0.1
    label_smoothing: Annotated[float, "Share of pairs taken to be labelled the wrong way round."] = 0.0
    robust: Annotated[bool, "With label_smoothing: the unbiased loss in place of the conservative one."] = (
        False
    )

    alpha: Annotated[float, "Weight of the chosen answer's likelihood, which keeps it likely; 0: none."] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha >= 0:
            raise ConfigError(f"alpha must not be negative, got {self.alpha:g}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(f"label_smoothing must be from 0 to below 0.5, got {self.label_smoothing:g}")
        if self.robust and not self.label_smoothing:
            raise ConfigError(
                "robust means nothing without label_smoothing", hint="say how many labels are wrong"
            )


def losses(scores: Pairs, config: Config) -> tuple[mx.array, Facts]:
    """(losses (B,), facts (B,) by name)."""
    chosen, rejected = scores.ratios()
    z, wrong = config.beta * (chosen - rejected), config.label_smoothing
    right, flipped = -(1 - wrong) * log_sigmoid(z), -wrong * log_sigmoid(-z)
    found = (right - flipped) / (1 - 2 * wrong) if config.robust else right + flipped
    facts = scores.facts(config.beta * chosen, config.beta * rejected)
    if not config.alpha:
        return found, facts
    nll = -scores.means()[0]
    return found + config.alpha * nll, facts | {"nll": mx.stop_gradient(nll)}
