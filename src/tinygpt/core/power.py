"""What this machine says of its battery and its heat: `pmset` on macOS, /sys/class/power_supply on Linux."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

SUPPLIES = Path("/sys/class/power_supply")


def pmset(what: str) -> str:
    """What `pmset -g WHAT` prints; empty where there is no such command or it fails."""
    if sys.platform != "darwin":
        return ""
    try:
        done = subprocess.run(["/usr/bin/pmset", "-g", what], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def on_battery(ask: Callable[[str], str] = pmset, supplies: Path = SUPPLIES) -> bool | None:
    """Whether the machine runs on its battery; None where nothing tells."""
    if source := re.search(r"drawing from '(.+?)'", ask("batt")):
        return source.group(1) != "AC Power"
    found = {kind: [] for kind in ("Battery", "Mains", "USB")}
    for supply in sorted(supplies.glob("*")):
        # A mouse's battery says that it is a device's, not the system's.
        if _line(supply / "type") in found and _line(supply / "scope") != "Device":
            found[_line(supply / "type")].append(supply)
    if any(_line(s / "online") == "1" for s in found["Mains"] + found["USB"]):
        return False
    if found["Battery"]:
        return any(_line(s / "status") == "Discharging" for s in found["Battery"])
    return False if found["Mains"] else None


def too_hot(ask: Callable[[str], str] = pmset) -> bool | None:
    """Whether the system holds its processors back because of heat; None where nothing tells."""
    told = ask("therm")
    levels = [int(n) for n in re.findall(r"thermal warning level[^0-9\n]*(\d+)", told, re.IGNORECASE)]
    limits = [int(n) for n in re.findall(r"CPU_Speed_Limit\s*=\s*(\d+)", told)]
    if not told or not (levels or limits or "No thermal warning level" in told):
        return None
    return any(level > 0 for level in levels) or any(limit < 100 for limit in limits)


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""  # not every supply has every file
