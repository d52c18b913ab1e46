"""What doctor advises where there is an NVIDIA driver."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from house.tree import ROOT
from tinygpt.core import backend
from tinygpt.runs import doctor


def examined(
    monkeypatch: pytest.MonkeyPatch, driver: str | None, *installed: str, device: str = "cpu"
) -> dict[str, Any]:
    facts = {"mlx": "0.32.4", "device": device, "nvidia_driver": driver, "notes": ()}
    monkeypatch.setattr(backend, "describe", lambda measure: dict(facts))
    monkeypatch.setattr(doctor, "_installed", lambda package: package in installed)
    return doctor.examine()


@pytest.mark.parametrize(
    ("driver", "advice"),
    [
        ("580.65.06", "(580.65.06) is here, but MLX computes on the CPU: .*pip install 'tinygpt[cuda13]'"),
        ("550.54.15", "(550.54.15) is here, .*pip install 'tinygpt[cuda12]'"),
        ("", "(of unknown version) is here, .*pip install 'tinygpt[cuda12]'"),
        ("535.104.05", "(535.104.05) is here, .*needs a driver from 550.54.14 on"),
    ],
)
def test_a_driver_without_cuda_in_mlx(driver: str, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = examined(monkeypatch, driver)
    assert len(found["advice"]) == 1 and found["nvidia_driver"] == driver
    for part in advice.split(".*"):
        assert part in found["advice"][0]
    assert found["extras"].startswith("cuda12 no, cuda13 no, hub no")


def test_cuda_that_is_installed_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    found = examined(monkeypatch, "580.65.06", "mlx-cuda-13", "fastapi")
    assert "cuda12 no, cuda13 yes" in found["extras"] and "serve yes" in found["extras"]
    assert "--force-reinstall --no-deps mlx-cuda-13==0.32.4" in found["advice"][0]


def test_nothing_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert examined(monkeypatch, None)["advice"] == []
    assert examined(monkeypatch, "580.65.06", "mlx-cuda-13", device="cuda")["advice"] == []
    monkeypatch.setenv("TINYGPT_DEVICE", "cpu")
    assert examined(monkeypatch, "580.65.06")["advice"] == [], "it was asked for"


def test_every_extra_is_shown() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(doctor.EXTRAS) == set(project["optional-dependencies"]) - {"dev"}


def test_extras_are_looked_up_by_their_distributions() -> None:
    assert doctor._installed("mlx") and not doctor._installed("mlx-cuda-99")
