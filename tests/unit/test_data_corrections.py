"""Corrections in a folder: whole lines from many writers, bounded, and after a break."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from pathlib import Path

import pytest

from tinygpt.core.errors import BusyError, DataError
from tinygpt.data import table
from tinygpt.data.corrections import FILE, Corrections, WrongField

ROW = {"intent": "turn on the light", "original": "off", "corrected": "on\nnow \u00e9"}


def _rows(folder: Path) -> list[dict[str, str]]:
    return [read() for _, read in table.records(folder / FILE)]


def test_a_line_has_what_was_told(tmp_path: Path) -> None:
    more = ROW | {"input": "", "source": "app", "model": "tiny"}
    ids = [Corrections(tmp_path / "new").add(row) for row in (ROW, more)]
    first, second = _rows(tmp_path / "new")
    assert [first.pop("id"), second.pop("id")] == ids and ids[0] != ids[1]
    assert first.pop("timestamp") <= second.pop("timestamp")
    assert (first, second) == (ROW, more)


def test_many_write_at_once_and_every_line_is_whole(tmp_path: Path) -> None:
    long = "x" * 100_000  # more than a write is known to keep together
    together = threading.Barrier(8)

    def work(i: int) -> None:
        mine = Corrections(tmp_path)  # as another process has it: its own open file, so its own lock
        together.wait()
        for j in range(10):
            mine.add(ROW | {"input": f"{i} {j} {long}"})

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [row["input"].removesuffix(long) for row in _rows(tmp_path)]
    assert sorted(found) == sorted(f"{i} {j} " for i in range(8) for j in range(10))


def test_who_writes_holds_the_lock(tmp_path: Path) -> None:
    kept = Corrections(tmp_path)
    writer = threading.Thread(target=kept.add, args=(ROW,))
    with kept.path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writer.start()
        writer.join(0.1)
        assert writer.is_alive() and not kept.path.stat().st_size, "it does not wait for the other writer"
    writer.join()
    assert len(_rows(tmp_path)) == 1


def test_what_is_full_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    small = Corrections(tmp_path, most_bytes=400)
    with pytest.raises(BusyError, match="at most 400 are kept"):
        for _ in range(10):
            small.add(ROW)
    assert 1 <= len(_rows(tmp_path)) <= 3 and (tmp_path / FILE).stat().st_size <= 400


def test_what_the_disk_does_not_take_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Corrections(tmp_path)
    kept.add(ROW)
    before = kept.path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(BusyError, match="No space left"):
            kept.add(ROW)
    assert kept.path.read_bytes() == before


def test_a_half_line_of_a_broken_process_spoils_no_other(tmp_path: Path) -> None:
    kept = Corrections(tmp_path)
    with kept.path.open("a", encoding="utf-8") as file:
        file.write('{"intent": "ha')
    kept.add(ROW)
    half, whole = (tmp_path / FILE).read_text(encoding="utf-8").splitlines()
    assert half == '{"intent": "ha' and json.loads(whole)["corrected"] == ROW["corrected"]


def test_fields_that_are_none_and_a_folder_that_is_a_file(tmp_path: Path) -> None:
    kept = Corrections(tmp_path)
    for bad, name in (({"corect": "x"}, "corect"), ({"intent": " "}, "intent")):
        with pytest.raises(WrongField) as error:
            kept.add(ROW | bad)
        assert error.value.param == name
    with pytest.raises(WrongField, match="'corrected'"):
        kept.add(ROW | {"corect": "x"})
    assert not _rows(tmp_path)
    with pytest.raises(DataError, match="cannot write"):
        Corrections(tmp_path / FILE)
