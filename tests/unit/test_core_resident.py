"""The peak is that of this process, whoever started it."""

from __future__ import annotations

import subprocess
import sys

from tinygpt.core import resident

SMALL = "from tinygpt.core import resident; print(resident.peak())"
LARGE = f"""
import subprocess, sys
held = bytearray(b"x") * (200 << 20)
from tinygpt.core import resident
print(resident.peak())
print(subprocess.run([sys.executable, "-c", {SMALL!r}], capture_output=True, text=True).stdout)
"""


def test_a_child_of_a_large_process_is_small() -> None:
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    large, small = map(int, done.stdout.split())
    assert large > 200 << 20 > 100 << 20 > small > 1 << 20
    assert resident.peak() > small / 2
