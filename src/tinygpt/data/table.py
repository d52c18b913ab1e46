"""Files of rows: JSON lines, a JSON array, Parquet, Arrow, CSV and TSV, each row as a dict with its number.

What is in a file is said by its name: .json holds an array (or lines after all), .parquet, .arrow (or
.feather), .csv and .tsv a table, everything else one JSON object a line. Text may be packed with gzip or
zstd, whatever its name. Cells of CSV are text; its first row names the columns.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
import json
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tinygpt.core.errors import DataError, DependencyError

PACKED = (".gz", ".zst")
TABLES = (".parquet", ".arrow", ".feather", ".csv", ".tsv")
BLOCK = 1 << 16  # bytes of a JSON array that are read at once
WIDEST = 1 << 30  # letters of a cell; the library's own bound is 131,072, less than a long document

Read = Callable[[], Any]
"""Gives a row, or raises DataError where it is none."""


def kind(file: Path) -> str:
    """The last suffix that says what is in a file: ".jsonl" for a.jsonl.gz."""
    names = [s.lower() for s in file.suffixes]
    return next((s for s in reversed(names) if s not in PACKED), "")


def unit(path: Path) -> str:
    """What the numbers of `records` count: "line" or "row"."""
    return "row" if kind(path) in (*TABLES, ".json") else "line"


def records(path: Path) -> Iterator[tuple[int, Read]]:
    """(number from 1, what gives the row) of every row of a file.

    DataError: the file is missing, damaged, not UTF-8, or no table; a row that is wrong raises when it is
    asked for, so that the others can be used."""
    what = kind(path)
    if what == ".parquet":
        yield from _parquet(path)
    elif what in (".arrow", ".feather"):
        yield from _arrow(path)
    elif what in (".csv", ".tsv"):
        yield from _csv(path, "\t" if what == ".tsv" else "")
    elif what == ".json":
        yield from _json(path)
    else:
        for number, line in lines(path):
            yield number, lambda line=line: parse(line)


def _json(path: Path) -> Iterator[tuple[int, Read]]:
    """The elements of an array, one by one; a file of JSON lines is often called .json too."""
    with opened(path) as file:
        text = _Text(path, file)
        text.more()
        while not text.over and not text.rest.strip():
            text.more()
        if text.rest.lstrip().startswith("["):
            text.skip(text.rest.index("[") + 1)
            for number, row in enumerate(_elements(text), 1):
                yield number, lambda row=row: row
            return
    for number, line in lines(path):
        yield number, lambda line=line: parse(line)


def _elements(text: _Text) -> Iterator[Any]:
    """What an array holds, from behind its bracket to the other one."""
    decoder, first = json.JSONDecoder(), True
    while True:
        text.blank()
        if text.rest[:1] == "]":
            text.skip(1)
            text.blank()
            if text.rest:
                raise text.broken("there is more after the array")
            return
        if not first:
            if text.rest[:1] != ",":
                raise text.broken("expecting ',' between two elements")
            text.skip(1)
            text.blank()
        while True:
            try:
                value, end = decoder.raw_decode(text.rest)
            except RecursionError as error:
                raise text.broken("it is nested too deeply") from error
            except ValueError as error:
                if text.over:
                    raise text.broken(getattr(error, "msg", str(error))) from error
            else:
                if text.over or end < len(text.rest):  # a number may go on
                    break
            text.more()
        yield value
        text.skip(end)
        first = False


class _Text:
    """The text of a file that is read as it is needed: `rest` is what nobody has taken yet."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._offset, self._lines = 0, 1
        self.rest, self.over, self._begun = "", False, False

    def more(self) -> None:
        """Read on: at least as much as is there already, so that a long element costs no more than twice."""
        raw = self._file.read(max(BLOCK, len(self.rest)))
        self.over = not raw
        try:
            found = self._decoder.decode(raw, final=self.over)
        except UnicodeDecodeError as error:
            held = len(error.object) - len(raw)  # bytes of a letter that had begun in the block before
            line = self._lines + error.object[: error.start].count(b"\n")
            raise not_utf8(self._path, self._offset - held + error.start, line) from error
        if found and not self._begun:
            found, self._begun = found.removeprefix("\ufeff"), True
        self._offset += len(raw)
        self._lines += raw.count(b"\n")
        self.rest += found

    def skip(self, n: int) -> None:
        """Take so many letters."""
        self.rest = self.rest[n:]

    def blank(self) -> None:
        """Take spaces and ends of lines; there is a letter left then, or nothing."""
        self.rest = self.rest.lstrip(" \t\r\n")
        while not self.rest and not self.over:
            self.more()
            self.rest = self.rest.lstrip(" \t\r\n")

    def broken(self, why: str) -> DataError:
        return DataError(f"{self._path} is no JSON array: not JSON: {why}", hint="repair the file")


def _csv(path: Path, delimiter: str) -> Iterator[tuple[int, Read]]:
    """The rows below the header. Where no delimiter is given, it is the comma, or what the header has."""
    csv.field_size_limit(max(csv.field_size_limit(), WIDEST))
    with opened(path) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        try:
            first = text.readline()
            delimiter = delimiter or next((d for d in ",;\t" if d in first), ",")
            reader = csv.reader(itertools.chain([first], text), delimiter=delimiter, strict=True)
            names = [name.strip() for name in next(reader, [])]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise DataError(f"{path}: two columns are called '{twice}'", hint="name the columns apart")
            for number, cells in enumerate(filter(None, reader), 1):
                yield number, lambda cells=cells: _row(names, cells)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path} is not UTF-8: {error.reason}", hint="convert it: iconv -f latin1 -t utf-8 IN > OUT"
            ) from error
        except csv.Error as error:
            raise DataError(f"{path} is no table of cells: {error}", hint="check its quotes") from error


def _row(names: list[str], cells: list[str]) -> dict[str, str]:
    if len(cells) != len(names):
        raise DataError(f"it has {len(cells)} cells, the header {len(names)}")
    return dict(zip(names, cells, strict=True))


def _parquet(path: Path) -> Iterator[tuple[int, Read]]:
    """The rows of a table, some at a time."""
    arrow = pyarrow("reading .parquet files")
    from pyarrow import parquet  # pyright: ignore[reportMissingImports]

    number = 0
    try:
        with parquet.ParquetFile(path) as columns:
            for batch in columns.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, lambda row=row: {name: _present(cell) for name, cell in row.items()}
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}", hint="check the path") from error
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"cannot read {path}: {error}", hint="copy or download it again") from error


def _arrow(path: Path) -> Iterator[tuple[int, Read]]:
    """The rows of Arrow's IPC format, as a file that knows its parts, or as a stream."""
    arrow = pyarrow("reading .arrow files")
    from pyarrow import ipc  # pyright: ignore[reportMissingImports]

    number = 0
    try:
        with arrow.OSFile(str(path)) as source:
            known = source.read(6) == b"ARROW1"
            source.seek(0)
            opened = ipc.open_file(source) if known else ipc.open_stream(source)
            batches = (opened.get_batch(i) for i in range(opened.num_record_batches)) if known else opened
            for batch in batches:
                for at in range(0, batch.num_rows, 1024):
                    for row in batch.slice(at, 1024).to_pylist():
                        number += 1
                        yield number, lambda row=row: {name: _present(cell) for name, cell in row.items()}
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}", hint="check the path") from error
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"cannot read {path}: {error}", hint="copy or download it again") from error


def _present(cell: Any) -> Any:
    """A cell without the keys that are null: a table gives every object all keys that any of them has."""
    if isinstance(cell, dict):
        return {key: _present(value) for key, value in cell.items() if value is not None}
    return [_present(value) for value in cell] if isinstance(cell, list) else cell


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of every line that is not blank. A byte order mark at the start is dropped."""
    offset = 0
    with opened(path) as file:
        for number, raw in enumerate(file, 1):
            start = 3 if number == 1 and raw.startswith(b"\xef\xbb\xbf") else 0
            try:
                text = raw[start:].decode("utf-8")
            except UnicodeDecodeError as error:
                raise not_utf8(path, offset + start + error.start, number) from error
            offset += len(raw)
            if text.strip():
                yield number, text


@contextlib.contextmanager
def opened(path: Path) -> Generator[BinaryIO]:
    """A file's bytes; gzip and zstd are known by their first bytes and unpacked on the way."""
    import gzip
    import zlib

    zipped = ""
    try:
        with path.open("rb") as probe:
            first = probe.read(4)
        zipped = "gzip" if first[:2] == b"\x1f\x8b" else "zstd" if first == b"\x28\xb5\x2f\xfd" else ""
        with (
            gzip.open(path, "rb") if zipped == "gzip" else _zstd(path) if zipped else path.open("rb")
        ) as file:
            yield file  # type: ignore[misc]
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}", hint="check the path") from error
    except (EOFError, zlib.error, gzip.BadGzipFile, *_zstd_errors()) as error:
        raise DataError(
            f"{path} is a damaged {zipped} file: {error}", hint="copy or download it again"
        ) from error
    except OSError as error:
        if zipped and not error.errno:  # the library that unpacks zstd knows no other error
            raise DataError(f"{path} is a damaged {zipped} file: {error}", hint="copy it again") from error
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _zstd(path: Path) -> BinaryIO:
    """Python unpacks zstd itself from 3.14 on; before that pyarrow does."""
    try:
        from compression import zstd  # pyright: ignore[reportMissingImports]
    except ImportError:
        return io.BufferedReader(pyarrow("reading zstd files").input_stream(str(path), compression="zstd"))
    return zstd.open(path, "rb")


def _zstd_errors() -> tuple[type[Exception], ...]:
    """What Python's own zstd raises, on reading: opening looks at nothing."""
    try:
        from compression import zstd  # pyright: ignore[reportMissingImports]
    except ImportError:
        return ()
    return (zstd.ZstdError,)


def pyarrow(purpose: str) -> Any:
    """The package pyarrow; DependencyError where it is not installed."""
    try:
        import pyarrow  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DependencyError("pyarrow", "parquet", purpose) from error
    return pyarrow


def not_utf8(path: Path, offset: int, line: int) -> DataError:
    """The error for text in another encoding; `offset` counts bytes from 0, `line` from 1."""
    return DataError(
        f"{path} is not UTF-8: byte {offset}, on line {line}",
        hint="convert it: iconv -f latin1 -t utf-8 IN > OUT",
    )


def parse(text: str) -> Any:
    """JSON text as what it says; DataError where it is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise DataError("not JSON that can be read: it is nested too deeply") from error
    except ValueError as error:  # a number of more digits than Python reads
        raise DataError(f"not JSON that can be read: {error}") from error
