"""Units are found again where they were, and a file that changes meanwhile is an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinygpt.core.errors import DataError
from tinygpt.core.events import Events, MemorySink, Progress
from tinygpt.runs import _dedupe_units as units
from tinygpt.runs import dedupe


def test_documents_begin_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n\na\nb\r\n \nc\n\n", encoding="utf-8")
    assert [(n, read()) for n, read in units.items(tmp_path / "t.txt", "doc")] == [(3, "a\nb"), (6, "c")]
    assert [n for n, _ in units.items(tmp_path / "t.txt", "line")] == [3, 4, 6]


def test_what_is_picked_is_read_again(tmp_path: Path) -> None:
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    files[0].write_text("a\nb\nc\n", encoding="utf-8")
    files[1].write_text("d\n", encoding="utf-8")
    of, numbers = np.array([0, 0, 0, 1], np.int32), np.array([1, 2, 3, 1])
    mask = np.array([True, False, True, True])
    assert list(units.picked(files, "line", of, numbers, mask)) == [(0, "a"), (2, "c"), (3, "d")]
    files[0].write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.txt changed while it was read"):
        list(units.picked(files, "line", of, numbers, mask))


def test_a_file_that_changes_leaves_no_output(tmp_path: Path) -> None:
    data, out = tmp_path / "a.txt", tmp_path / "out.txt"
    data.write_text("a\nb\n", encoding="utf-8")

    class Change:
        def write(self, event: object) -> None:
            if isinstance(event, Progress) and event.task == "write":
                data.write_text("a\nb\nc\n", encoding="utf-8")

        def close(self) -> None:
            """Nothing to release."""

    with pytest.raises(DataError, match="a file changed while it was read"):
        dedupe.run(dedupe.Config(paths=(data,), out=out), Events(Change()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt"]


def test_progress_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a b\nb c\na  b\n", encoding="utf-8")
    sink = MemorySink()
    config = dedupe.Config(paths=(tmp_path / "a.txt",), out=tmp_path / "out.txt", near_dup=True)
    dedupe.run(config, Events(sink))
    told = {event.task: (event.done, event.total) for event in sink.of(Progress)}
    assert told == {"read": (3, 0), "compare": (9, 9), "write": (2, 2)}
