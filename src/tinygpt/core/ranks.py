"""Whether this process is one of several that a launcher started for one run, and which."""

from __future__ import annotations

import os

# What MLX's launcher and the MPI ones set.
NAMES = ("MLX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")


def launched() -> bool:
    """Whether a launcher started this process, perhaps with others."""
    return any(name in os.environ for name in NAMES)


def follows() -> bool:
    """Whether another process leads the run and speaks for this one."""
    return any(os.environ.get(name, "0") != "0" for name in NAMES)
