"""What this machine offers: device, BLAS, compiler, extras, and advice where something is slow or missing."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import tinygpt
from tinygpt.core import backend
from tinygpt.core.files import cache_dir

# Extra of pyproject.toml: the distribution that tells whether it is installed.
EXTRAS = {
    "cuda12": "mlx-cuda-12",
    "cuda13": "mlx-cuda-13",
    "hub": "huggingface_hub",
    "hf": "mlx-lm",
    "serve": "fastapi",
    "eval": "lm_eval",
    "mteb": "mteb",
    "parquet": "pyarrow",
    "plot": "matplotlib",
    "dedupe": "rensa",
    "filter": "phonenumbers",
    "classify": "scikit-learn",
    "reward": "jsonschema",
    "agent": "jsonschema",
    "mcp": "mcp",
    "test-parity": "transformers",
    "test-clients": "litellm",
    "test-fuzz": "schemathesis",
}
# First NVIDIA driver that MLX's wheels run on, from MLX's installation page.
DRIVERS = {"cuda13": (580,), "cuda12": (550, 54, 14)}


def examine() -> dict[str, Any]:
    """Facts for a person or a bug report; `advice` is a list of sentences, empty when all is well."""
    import shutil

    facts = backend.describe(measure=True)
    extras = {name: _installed(package) for name, package in EXTRAS.items()}
    advice = [*facts.pop("notes", ()), *_cuda(facts, extras)]
    free = shutil.disk_usage(cache_dir()).free
    if free < 2 * 10**9:
        advice.append(
            f"only {free / 1e9:.1f} GB free in {cache_dir()}: make room, or set TINYGPT_CACHE to another disk"
        )
    return {
        "tinygpt": tinygpt.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **facts,
        "extras": ", ".join(f"{name} {'yes' if found else 'no'}" for name, found in extras.items()),
        "cache": str(cache_dir()),
        "advice": advice,
    }


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _cuda(facts: dict[str, Any], extras: dict[str, bool]) -> list[str]:
    """What to do where there is an NVIDIA driver and MLX computes on the CPU all the same."""
    driver: str | None = facts["nvidia_driver"]
    if driver is None or facts["device"] != "cpu" or os.environ.get("TINYGPT_DEVICE") == "cpu":
        return []
    version = tuple(int(part) for part in driver.split(".")) if driver else None
    fitting = next((extra for extra, least in DRIVERS.items() if version and version >= least), "")
    here = f"an NVIDIA driver ({driver or 'of unknown version'}) is here, but MLX computes on the CPU"
    if installed := [EXTRAS[extra] for extra in DRIVERS if extras[extra]]:
        again = f"pip install --force-reinstall --no-deps {installed[0]}=={facts['mlx']}"
        return [f"{here}, though {installed[0]} is installed: if nvidia-smi shows a GPU, {again}"]
    if version and not fitting:
        return [f"{here}: MLX needs a driver from 550.54.14 on; with one, pip install 'tinygpt[cuda12]'"]
    wanted = fitting or "cuda12"
    return [f"{here}: if nvidia-smi shows a GPU, pip install 'tinygpt[{wanted}]'"]
