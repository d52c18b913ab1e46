"""Leave out rows in other languages, by py3langid (extra `filter`).

Texts of fewer than 20 letters say too little and stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.errors import ConfigError
from tinygpt.data import filters
from tinygpt.data import language as languages
from tinygpt.data.stages import Context, Step


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which languages stay."""

    languages: Annotated[tuple[str, ...], "Codes such as en and de."]
    language_min: Annotated[float, "Least probability of the language."] = 0.5

    def __post_init__(self) -> None:
        if not self.languages:
            raise ConfigError("stage 'language' names no language", hint='languages = ["en"]')


def build(config: Config, context: Context) -> Step:
    """The stage. DependencyError without the package, ConfigError for a language that it does not know."""
    codes = languages.checked(config.languages)
    return filters.step(filters.Filters(languages=codes, language_min=config.language_min))
