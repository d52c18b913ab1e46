"""Energy: counters of the kernel and of a driver, as they lie in files and in a library."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import pytest

from tinygpt.core import energy


@pytest.fixture(autouse=True)
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read is made by the tests, on any system."""
    monkeypatch.setattr(sys, "platform", "linux")


def _zone(root: Path, folder: str, name: str, microjoules: int) -> Path:
    zone = root / folder
    zone.mkdir(parents=True)
    for file, text in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", 1_000_000_000)):
        (zone / file).write_text(f"{text}\n")
    return zone / "energy_uj"


def test_packages_and_memory_count_once(tmp_path: Path) -> None:
    first = _zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    core = _zone(tmp_path, "intel-rapl:0:0", "core", 1_000_000)
    memory = _zone(tmp_path, "intel-rapl:0:1", "dram", 2_000_000)
    board = _zone(tmp_path, "intel-rapl:1", "psys", 9_000_000)
    found, why = energy.meter(gpu=False, zones=tmp_path)
    assert found is not None and not why
    assert found.source == "package-0 (intel-rapl:0), dram (intel-rapl:0:1)"
    found.start()
    for path, now in ((first, 8_000_000), (core, 3_000_000), (memory, 2_500_000), (board, 20_000_000)):
        path.write_text(f"{now}\n")
    assert found.stop() == pytest.approx(3.5)
    found.start()
    first.write_text("1000000\n")  # it began again after 1000 J
    assert found.stop() == pytest.approx(993.0)


def test_what_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, why = energy.meter(gpu=False, zones=tmp_path / "none")
    assert found is None and "no counters" in why[0]
    _zone(tmp_path, "intel-rapl:0", "package-0", 1)
    plain = Path.read_text

    def locked(path: Path, **how: Any) -> str:  # what mode bits say does not bind root
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return plain(path, **how)

    monkeypatch.setattr(Path, "read_text", locked)
    found, why = energy.meter(gpu=False, zones=tmp_path)
    assert found is None and "for root alone" in why[0]
    monkeypatch.setattr(sys, "platform", "darwin")
    assert energy.meter(gpu=True)[0] is None and "powermetrics" in energy.meter(gpu=True)[1][0]


class Driver:
    """A library with NVIDIA's calls; each look counts 250 mJ more."""

    def __init__(self, works: bool = True) -> None:
        self.works, self.counted, self.asked = works, 1000, list[Any]()

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: ctypes.c_uint, device: Any) -> int:
        self.asked.append(index.value)
        return 0

    def nvmlDeviceGetHandleByUUID(self, name: ctypes.c_char_p, device: Any) -> int:
        self.asked.append(name.value)
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, device: Any, found: Any) -> int:
        self.counted += 250
        found._obj.value = self.counted
        return 0 if self.works else 3


def test_a_gpu_is_counted_by_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    driver = Driver()
    found, _ = energy.meter(gpu=True, zones=tmp_path, load=lambda name: driver)
    assert found is not None and found.source == "GPU 2" and driver.asked == [2]
    found.start()
    assert found.stop() == 0.25
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-abc")
    energy.meter(gpu=True, zones=tmp_path, load=lambda name: driver)
    assert driver.asked[1:] == [b"GPU-abc"]

    def missing(name: str) -> object:
        raise OSError(f"{name}: cannot open shared object file")

    for load in (missing, lambda name: Driver(works=False)):
        found, why = energy.meter(gpu=True, zones=tmp_path, load=load)
        assert found is None and "does not tell energy" in why[1]
