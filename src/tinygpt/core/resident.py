"""How much memory this process took at most."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
HIGHEST = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def peak() -> int:
    """Bytes of the largest resident set so far.

    On Linux not `ru_maxrss`, which begins at what the process that started this one had taken."""
    if sys.platform == "linux" and (found := HIGHEST.search(STATUS.read_text(encoding="utf-8"))):
        return int(found[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)
