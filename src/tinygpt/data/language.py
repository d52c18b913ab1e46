"""Which language a text is in, by the package py3langid (97 languages, extra `filter`).

Texts with fewer letters than LEAST say too little: they have no language, and nobody leaves them out for it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from tinygpt.core.errors import DependencyError, unknown

LEAST = 20  # letters of a text that can be told
MOST = 4000  # letters that are looked at


def of(text: str) -> tuple[str, float]:
    """(code as in ISO 639-1, probability); ("", 0.0) where the text is too short. DependencyError without
    the package."""
    model = _model()
    if sum(map(str.isalpha, text[:MOST])) < LEAST:
        return "", 0.0
    code, probability = model.classify(text[:MOST])
    return str(code), float(probability)


def checked(codes: Sequence[str]) -> tuple[str, ...]:
    """The codes; ConfigError for one that no text can be told to have."""
    known = list(map(str, _model().labels))
    for code in codes:
        if code not in known:
            raise unknown("language", code, known)
    return tuple(codes)


@functools.cache
def _model() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DependencyError("py3langid", "filter", "telling languages") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
