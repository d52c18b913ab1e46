"""Joules that processors took, from counters that anyone may read.

On Linux the kernel counts microjoules of each CPU package (and of memory, where it is counted apart) under
/sys/class/powercap, which many systems let only root read; NVIDIA's driver counts millijoules of a GPU. Both
count all that runs on them, and what they take while idle. macOS tells root alone.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ZONES = Path("/sys/class/powercap")
NVML = "libnvidia-ml.so.1"


@dataclass(frozen=True, kw_only=True)
class Counter:
    """Something that counts energy. wraps: joules at which it begins again at 0; 0: never."""

    name: str
    read: Callable[[], float]
    wraps: float = 0.0


class Meter:
    """Joules between two moments, over all counters together."""

    def __init__(self, counters: list[Counter]) -> None:
        self.counters = counters
        self._before: list[float] = []

    @property
    def source(self) -> str:
        """What is counted."""
        return ", ".join(counter.name for counter in self.counters)

    def start(self) -> None:
        """From now on."""
        self._before = [counter.read() for counter in self.counters]

    def stop(self) -> float:
        """Joules since the start. A counter may have begun again once: at 200 W that takes 20 minutes."""
        now = [counter.read() for counter in self.counters]
        pairs = zip(self.counters, self._before, now, strict=True)
        return sum(b - a + (counter.wraps if b < a else 0.0) for counter, a, b in pairs)


def meter(
    *, gpu: bool, zones: Path = ZONES, load: Callable[[str], object] = ctypes.CDLL
) -> tuple[Meter | None, list[str]]:
    """What can be counted here, and why the rest cannot. gpu: whether work runs on an NVIDIA GPU."""
    if sys.platform == "darwin":
        return None, ["macOS tells energy to root alone (sudo powermetrics)"]
    counters, why = packages(zones)
    if gpu:
        try:
            counters.append(nvidia(load, os.environ))
        except (OSError, AttributeError, ValueError) as error:
            why.append(f"the GPU's driver does not tell energy: {error}")
    return (Meter(counters) if counters else None), why


def packages(zones: Path) -> tuple[list[Counter], list[str]]:
    """The counters of the machine's CPU packages; those below them are parts of the same energy, but for
    memory."""
    found: list[Counter] = []
    refused = ""
    for zone in sorted(zones.glob("intel-rapl:*")):  # AMD's, too
        try:
            name = (zone / "name").read_text(encoding="ascii").strip()
            if zone.name.count(":") > 1 and name != "dram":
                continue
            counter = Counter(
                name=f"{name} ({zone.name})",
                read=lambda path=zone / "energy_uj": int(path.read_text(encoding="ascii")) / 1e6,
                wraps=int((zone / "max_energy_range_uj").read_text(encoding="ascii")) / 1e6,
            )
            if name.startswith(("package", "dram")):  # "psys" counts the packages once more
                counter.read()
                found.append(counter)
        except PermissionError:
            refused = refused or f"{zone / 'energy_uj'} is for root alone: sudo chmod a+r it"
        except (OSError, ValueError):
            continue  # a zone that counts nothing
    if refused:
        return found, [refused]
    return found, ([] if found else [f"this system has no counters of its CPUs in {zones}"])


def nvidia(load: Callable[[str], object], environ: Mapping[str, str]) -> Counter:
    """The counter of the GPU that programs see first. OSError where there is no driver or none counts."""
    library: ctypes.CDLL = load(NVML)  # type: ignore[assignment]
    device, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()

    def call(name: str, *arguments: object) -> None:
        if code := getattr(library, name)(*arguments):
            raise OSError(f"{name} gives error {code}")

    first = environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip() or "0"
    call("nvmlInit_v2")
    if first.isdecimal():
        call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(int(first)), ctypes.byref(device))
    else:
        call("nvmlDeviceGetHandleByUUID", ctypes.c_char_p(first.encode()), ctypes.byref(device))

    def read() -> float:
        call("nvmlDeviceGetTotalEnergyConsumption", device, ctypes.byref(millijoules))
        return millijoules.value / 1e3

    read()
    return Counter(name=f"GPU {first}", read=read)
