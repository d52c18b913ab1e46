"""Manners: how long a run rests between steps, when it pauses, and that a stop ends every wait."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from tinygpt.core import power
from tinygpt.core.events import Events, MemorySink, Note
from tinygpt.train.pace import POLL, SLICE, Manners, Pace
from tinygpt.train.stop import Stop


class Time:
    """A clock that only moves when somebody works or sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, 0.0
        self.after: dict[float, Callable[[], None]] = {}

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= SLICE + 1e-9
        self.now += seconds
        self.slept += seconds
        for when in [w for w in self.after if w <= self.slept]:
            self.after.pop(when)()


def pace(time: Time, memory: MemorySink, manners: Manners) -> Pace:
    made = Pace(manners, Events(memory), clock=time, sleep=time.sleep)
    made.start()
    return made


def rested(
    made: Pace, time: Time, worked: float, stop: Stop | None = None, seconds: float = math.inf
) -> float:
    """Seconds of rest after so many of work."""
    time.now += worked
    before = time.slept
    made.wait(Stop() if stop is None else stop, seconds=seconds)
    return time.slept - before


def texts(memory: MemorySink) -> list[str]:
    return [e.text for e in memory.of(Note)]


def test_work_takes_its_share_of_the_time(memory: MemorySink) -> None:
    time = Time()
    made = pace(time, memory, Manners(throttle=0.25))
    total = [rested(made, time, worked) for worked in (1.0, 0.5, 2.0)]
    assert total == pytest.approx([3.0, 1.5, 6.0])
    assert 3.5 / (3.5 + time.slept) == pytest.approx(0.25)


def test_steps_have_a_highest_rate(memory: MemorySink) -> None:
    time = Time()
    made = pace(time, memory, Manners(max_step_rate=2.0))
    assert [rested(made, time, w) for w in (0.1, 0.5, 3.0)] == pytest.approx([0.4, 0.0, 0.0])
    both = pace(time, memory, Manners(max_step_rate=2.0, throttle=0.5))
    assert [rested(both, time, w) for w in (0.1, 0.4)] == pytest.approx([0.4, 0.4]), "the longer one counts"


def test_a_file_is_the_share_while_it_is_there(tmp_path: Path, memory: MemorySink) -> None:
    time, file = Time(), tmp_path / "throttle"
    made = pace(time, memory, Manners(throttle=0.5, file=file))
    assert rested(made, time, 1.0) == pytest.approx(1.0)
    file.write_text(" 0.2\n")
    assert rested(made, time, 1.0) == pytest.approx(4.0)
    for times in (1, 2):
        for bad in ("", "fast", "0", "nan", "7", ""):
            file.write_text(bad)
            assert rested(made, time, 1.0) == pytest.approx(4.0), "what is bad changes nothing"
        assert len([t for t in texts(memory) if "not a number from 0.01 to 1" in t]) == times
        file.write_text("0.2")
        assert rested(made, time, 1.0) == pytest.approx(4.0)
    file.unlink()
    assert rested(made, time, 1.0) == pytest.approx(1.0)
    assert [t for t in texts(memory) if t.startswith("throttle is now")] == [
        f"throttle is now 0.2 ({file})", f"throttle is now 0.5 ({file})",
    ]  # fmt: skip


def test_a_folder_for_a_throttle_file_is_told(tmp_path: Path, memory: MemorySink) -> None:
    time = Time()
    assert rested(pace(time, memory, Manners(file=tmp_path)), time, 1.0) == 0
    assert "not a number" in texts(memory)[0]


def test_a_stop_and_the_end_of_the_time_end_a_rest(memory: MemorySink) -> None:
    time, stop = Time(), Stop()
    made = pace(time, memory, Manners(throttle=0.01))
    time.after[1.0] = lambda: setattr(stop, "signal", 2)
    assert rested(made, time, 10.0, stop) <= 1.0 + SLICE
    assert rested(made, time, 10.0, Stop(), seconds=3.0) == pytest.approx(3.0)


def test_a_pause_saves_waits_and_goes_on(memory: MemorySink) -> None:
    time, saved = Time(), list[float]()
    why = "the machine runs on its battery"
    answers = iter(["", why, why, "", "", ""])
    made = pace(time, memory, Manners(reason=lambda: next(answers)))
    assert rested(made, time, 1.0) == 0, "nothing to wait for"
    assert rested(made, time, 1.0) == 0, "asked a second ago"
    time.now += POLL
    made.wait(Stop(), pausing=lambda: saved.append(time.now))
    assert saved and time.slept == pytest.approx(2 * POLL)
    assert texts(memory) == [f"paused: {why}", "going on"]


def test_a_pause_ends_with_a_stop_or_the_time(memory: MemorySink) -> None:
    time, stop = Time(), Stop()
    made = pace(time, memory, Manners(reason=lambda: "hot"))
    time.after[5.0] = lambda: setattr(stop, "signal", 2)
    assert rested(made, time, 0.0, stop) <= 5.0 + SLICE
    again = pace(time, memory, Manners(reason=lambda: "hot"))
    assert rested(again, time, 0.0, Stop(), seconds=90.0) == pytest.approx(90.0)
    assert texts(memory) == ["paused: hot", "paused: hot"]


# What the machine tells.

AC = "Now drawing from 'AC Power'\n -InternalBattery-0 (id=1)\t93%; charged; 0:00 remaining present: true\n"
BATTERY = "Now drawing from 'Battery Power'\n -InternalBattery-0 (id=1)\t93%; discharging; 5:01 remaining\n"
INTEL = "Note: No thermal warning level has been recorded\nCPU Power notify\n\t\tCPU_Speed_Limit \t= "


@pytest.mark.parametrize(("told", "on"), [(AC, False), (BATTERY, True), ("", None)])
def test_the_battery_on_macos(told: str, on: bool | None, tmp_path: Path) -> None:
    assert power.on_battery(lambda what: told if what == "batt" else "", tmp_path) is on


@pytest.mark.parametrize(
    ("told", "hot"),
    [
        ("Note: No thermal warning level has been recorded\nNote: No performance warning level", False),
        (INTEL + "100\n", False),
        (INTEL + "62\n", True),
        ("thermal warning level set to 2\n", True),
        ("something else", None),
        ("", None),
    ],
)
def test_heat_on_macos(told: str, hot: bool | None) -> None:
    assert power.too_hot(lambda what: told if what == "therm" else "") is hot


def supply(folder: Path, name: str, **files: str) -> None:
    (folder / name).mkdir()
    for file, text in files.items():
        (folder / name / file).write_text(text + "\n")


def test_the_battery_on_linux(tmp_path: Path) -> None:
    def ask(what: str) -> str:
        return ""

    assert power.on_battery(ask, tmp_path / "absent") is None
    supply(tmp_path, "hidpp_0", type="Battery", scope="Device", status="Discharging")
    assert power.on_battery(ask, tmp_path) is None, "a mouse's"
    supply(tmp_path, "BAT0", type="Battery", status="Discharging")
    assert power.on_battery(ask, tmp_path) is True
    supply(tmp_path, "AC", type="Mains", online="0")
    assert power.on_battery(ask, tmp_path) is True
    (tmp_path / "AC" / "online").write_text("1\n")
    assert power.on_battery(ask, tmp_path) is False


def test_no_pmset_elsewhere() -> None:
    if power.sys.platform != "darwin":
        assert power.pmset("batt") == ""
