"""What this machine offers: device, BLAS, compiler, extras, and advice where something is slow or missing."""

from __future__ import annotations

import importlib.util
import platform
from typing import Any

import tinygpt
from tinygpt.core import backend
from tinygpt.core.files import cache_dir

# Extra of pyproject.toml: the package that tells whether it is installed.
EXTRAS = {"hub": "huggingface_hub", "serve": "fastapi", "eval": "lm_eval", "test-parity": "transformers"}


def examine() -> dict[str, Any]:
    """Facts for a person or a bug report; `advice` is a list of sentences, empty when all is well."""
    import shutil

    facts = backend.describe(measure=True)
    advice = list(facts.pop("notes", ()))
    free = shutil.disk_usage(cache_dir()).free
    if free < 2 * 10**9:
        advice.append(
            f"only {free / 1e9:.1f} GB free in {cache_dir()}: make room, or set TINYGPT_CACHE to another disk"
        )
    extras = {name: importlib.util.find_spec(package) is not None for name, package in EXTRAS.items()}
    return {
        "tinygpt": tinygpt.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **facts,
        "extras": ", ".join(f"{name} {'yes' if found else 'no'}" for name, found in extras.items()),
        "cache": str(cache_dir()),
        "advice": advice,
    }
