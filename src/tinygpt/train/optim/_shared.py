"""What optimizers share: bounds of their knobs, which tensors are hidden matrices, when a refresh is due."""

from __future__ import annotations

from typing import Any

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError


class Knobs:
    """Refuses values out of range of the knobs that many optimizers have."""

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name, 0) < 1:
                raise ConfigError(f"optimizer.{name} must be in [0, 1), got {getattr(self, name)}")
        positive(self, "eps")
        not_negative(self, "weight_decay")
        counts(self, "every")


def positive(config: Any, *names: str) -> None:
    """ConfigError where one of these knobs is not above 0."""
    for name in names:
        if not getattr(config, name, 1) > 0:
            raise ConfigError(f"optimizer.{name} must be positive, got {getattr(config, name):g}")


def not_negative(config: Any, *names: str) -> None:
    """ConfigError where one of these knobs is below 0."""
    for name in names:
        if not getattr(config, name, 0) >= 0:
            raise ConfigError(f"optimizer.{name} must not be negative, got {getattr(config, name):g}")


def counts(config: Any, *names: str) -> None:
    """ConfigError where one of these knobs is below 1."""
    for name in names:
        if getattr(config, name, 1) < 1:
            raise ConfigError(f"optimizer.{name} must be at least 1, got {getattr(config, name)}")


def is_hidden(name: str, weight: mx.array) -> bool:
    """Whether a tensor is a matrix between hidden features, or a stack of such (experts): no table of tokens
    or positions, no output matrix, no single row or column, no depthwise kernels (D, K, 1)."""
    outside = any(part in name for part in ("embed", "lm_head"))
    return weight.ndim > 1 and min(weight.shape[-2:]) > 1 and not outside


class Periodic:
    """An optimizer that refreshes every `config.every` steps."""

    config: Any

    def due(self, step: int) -> bool:
        """Whether `refresh` is to be called before this step's `apply`: at steps 1, 1 + every, ..."""
        return (step - 1) % self.config.every == 0
