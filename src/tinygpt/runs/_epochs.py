"""Settings of tuning runs: as long as so many readings of the data, and defaults that suit what learns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Self

from tinygpt.core.errors import ConfigError
from tinygpt.runs._settings import Amounts
from tinygpt.runs._tuned import Tuned

if TYPE_CHECKING:
    from tinygpt.data.source._source import Source
    from tinygpt.model.config import ModelConfig

ENDLESS = 10**9  # steps of a run whose data has not been looked at
ROW = 2048  # tokens of a row on a base that could read more: memory grows with them
# Peak learning rates on a base: LoRA's needs about ten times that of all weights (Biderman et al. 2024).
ADAPTER_LR, FULL_LR = 2e-4, 2e-5


@dataclass(frozen=True, kw_only=True)
class Epochs(Tuned):
    """Settings of runs that may be told how often to read their data."""

    epochs: Annotated[float, "Times to read the data, in place of --steps."] = 0.0
    steps: Annotated[int | None, "Optimizer steps; not given: 500, or what --epochs or --depth says."] = None
    batch: Annotated[int | None, "Rows of a step; not given: 8 on a base, else 16 or what --depth says."] = (
        None
    )
    lr: Annotated[
        float | None,
        "Peak learning rate; not given: 2e-4 for an adapter, 2e-5 for a base with --full, else 1e-3 or what "
        "--depth says.",
    ] = None
    context: Annotated[int, "Tokens of a row; 0: all that the model can read, on a base at most 2,048."] = 0

    def __post_init__(self) -> None:
        if not 0 <= self.epochs < ENDLESS:
            raise ConfigError(f"--epochs must be a number of epochs, at least 0, got {self.epochs:g}")
        if self.epochs and self.steps is not None:
            raise ConfigError("--epochs and --steps both say how long the run is", hint="leave one out")
        super().__post_init__()
        if self.epochs:
            object.__setattr__(self, "steps", None)  # known when the data is: see `counted`

    @property
    def amounts(self) -> Amounts:
        if self.epochs and self.steps is None:
            assert self.batch is not None and self.lr is not None
            return Amounts(ENDLESS, self.batch, self.lr)
        return super().amounts

    def derived(self) -> dict[str, Any]:
        found = super().derived()
        if self.base is not None:
            found |= {"lr": FULL_LR if self.full else ADAPTER_LR, "batch": 8}
        return found | ({"steps": ENDLESS} if self.epochs else {})

    def counted(self, source: Source) -> Self:
        """The same settings with the steps that --epochs means for this source."""
        if not self.epochs:
            return self
        return replace(self, epochs=0.0, steps=source.n_batches(self.epochs))

    def row_length(self, model: ModelConfig, *, whole: bool) -> int:
        if self.base is not None and not self.context and model.max_position_embeddings > ROW:
            return replace(self, context=ROW).row_length(model, whole=whole)
        return super().row_length(model, whole=whole)
