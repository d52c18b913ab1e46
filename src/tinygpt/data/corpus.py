"""The files of a corpus: what a setting names, and the documents in each, read in blocks of bounded size.

A corpus is given as `path`, or as `name=path:weight` where several are mixed. The path is a file, a folder
(whose files a glob chooses, at any depth) or a pattern such as 'data/*.txt'. A document is a text file, a
row of a .jsonl file or a row of a .parquet file; text and JSONL may be packed with gzip or zstd.
"""

from __future__ import annotations

import codecs
import fnmatch
import glob
import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Protocol

from tinygpt.core.errors import ConfigError, DataError, nearest
from tinygpt.data import rows, table

BLOCK = 1 << 24  # bytes read at once: a file may be larger than memory
SPEC = re.compile(r"(?:(?P<name>[\w.-]+)=)?(?P<path>.+?)(?::(?P<weight>[-+\w.]+))?", re.DOTALL)


class Where(Protocol):
    """The settings that say which files are read."""

    @property
    def paths(self) -> tuple[Path, ...]: ...
    @property
    def glob(self) -> str: ...
    @property
    def exclude(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """One of several corpora: its name and, where given, its share of the rows that a run reads."""

    name: str
    path: Path
    weight: float | None = None
    named: bool = False


def parse(given: Path, flag: str = "--corpus") -> Corpus:
    """`name=path:weight` in its parts; name and weight may be missing. A path that exists is itself."""
    if os.path.exists(given):
        return Corpus(name=given.stem, path=given)
    found = SPEC.fullmatch(str(given))
    assert found is not None, given
    name, path, weight = found["name"], Path(found["path"]), found["weight"]
    share = None
    if weight is not None:
        try:
            share = float(weight)
        except ValueError:
            path = Path(f"{path}:{weight}")
        if share is not None and not (share > 0 and math.isfinite(share)):
            raise ConfigError(f"{flag} {given}: the weight must be a finite number above 0, got {weight}")
    return Corpus(name=name or path.stem, path=path, weight=share, named=bool(name))


def corpora(paths: Sequence[Path], flag: str = "--corpus") -> list[Corpus]:
    """The corpora to mix; none when no path has a name or weight: then all files are one corpus."""
    found = [parse(path, flag) for path in paths]
    if not any(c.named or c.weight is not None for c in found):
        return []
    if len({c.weight is None for c in found}) > 1:
        bare = next(c.name for c in found if c.weight is None)
        raise ConfigError(
            f"the corpus {bare} has no weight, others have", hint="give each one, as name=path:weight"
        )
    names = [c.name for c in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"two corpora are called {twice}", hint=f"name them apart: {flag} NAME=PATH")
    return found


def refuse_weights(paths: Sequence[Path], flag: str) -> None:
    """ConfigError for names or weights of files that are read once."""
    if mixed := corpora(paths, flag):
        raise ConfigError(f"{flag} mixes nothing", hint=f"give {mixed[0].path} alone")


def refuse_mixture(paths: Sequence[Path], *, weights_only: bool = True) -> None:
    """ConfigError for names or weights of corpora where nothing is mixed."""
    for c in corpora(paths):
        if c.weight is not None or not weights_only:
            what = "weight" if c.weight is not None else "name"
            raise ConfigError(
                f"the corpus {c.name} has a {what}, but nothing is mixed here", hint=f"give {c.path} alone"
            )


def find(where: Where) -> list[Path]:
    """The files that settings name, in sorted order within each folder."""
    found: dict[Path, None] = {}
    for path in where.paths:
        try:
            found |= dict.fromkeys(_named(parse(path).path, where))
        except OSError as error:  # a folder on the way that may not be entered, a name that is too long
            raise DataError(f"cannot read {error.filename}: {error.strerror}", hint="check it") from error
        except ValueError as error:
            raise ConfigError(f"'{where.glob}' is no glob: {error}", hint="such as '*.py'") from error
    return list(found)


def refuse_field(field: str, files: Sequence[Path]) -> None:
    """ConfigError for a field that is asked for where no file has any."""
    if field != "text" and not any(map(has_rows, files)):
        raise ConfigError(
            f"--field {field} means nothing: no file of the corpus is .jsonl or .parquet", hint="leave it out"
        )


def by_hand(where: Where) -> list[Path]:
    """The files that were named by themselves, not found in a folder or by a pattern."""
    return [path for path in (parse(given).path for given in where.paths) if path.is_file()]


def refuse_glob_outside(pattern: str) -> None:
    """ConfigError for a glob that leads out of its folder."""
    if PurePath(pattern).is_absolute() or ".." in PurePath(pattern).parts:
        raise ConfigError(f"the glob '{pattern}' leads out of the folder", hint="name that folder itself")


def _named(path: Path, where: Where) -> list[Path]:
    """The files of one path."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        if not path.exists() and glob.has_magic(str(path)):
            return _matching(path, where)
        what = " that can be read at" if path.exists() else ""
        raise DataError(f"there is no file or folder{what} {path}", hint="check the path")
    inside = {p.relative_to(path): p for p in path.rglob(where.glob) if p.is_file()}
    found = [inside[p] for p in sorted(inside, key=Path.as_posix) if not _excluded(p, where)]
    if not found:
        raise DataError(f"no file in {path} matches '{where.glob}'", hint="give another --glob, as '*.py'")
    return found


def _matching(pattern: Path, where: Where) -> list[Path]:
    """The files that a pattern names; `**` is any number of folders."""
    found = sorted(p for p in map(Path, glob.iglob(str(pattern), recursive=True)) if p.is_file())
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    if not (kept := [p for p in found if not _excluded(p.relative_to(fixed), where)]):
        raise DataError(f"no file matches '{pattern}'", hint="check the pattern, and quote it in a shell")
    return kept


def _excluded(path: Path, where: Where) -> bool:
    return any(fnmatch.fnmatch(part, pattern) for part in path.parts for pattern in where.exclude)


# Reading.


def has_rows(file: Path) -> bool:
    """Whether the documents of a file are rows with fields."""
    return table.kind(file) in (".jsonl", ".parquet")


def new_facts() -> dict[str, Any]:
    """What `blocks` counts: files and rows that could not be read, and the reasons of the first."""
    return {"bad_files": 0, "bad_rows": 0, "first_bad": []}


def documents(file: Path, facts: dict[str, Any], field: str = "text") -> Iterator[str]:
    """The texts of a file, each whole; see `blocks`."""
    parts: list[str] = []
    for begins, text in blocks(file, facts, field):
        if begins and parts:
            yield "".join(parts)
            parts = []
        parts.append(text)
    if parts:
        yield "".join(parts)


def blocks(file: Path, facts: dict[str, Any], field: str = "text") -> Iterator[tuple[bool, str]]:
    """(whether a document begins here, text) of a file, without a byte order mark; `field` holds the text of
    a row. A file that cannot be read or is not UTF-8, and rows that do not fit, are left out and counted in
    `facts`; a table that turns out damaged halfway counts too, and gives what came before."""
    bad: list[tuple[int, str]] = []
    try:
        if table.kind(file) == ".parquet":
            yield from ((True, text) for text in _parquet(file, field, bad))
        elif table.kind(file) == ".jsonl":
            _check(table.lines(file), file)
            yield from ((True, text) for text in rows.each(file, lambda row: rows.to_text(row, field), bad))
        else:
            _check(_text(file), file)
            first = True
            for text in _text(file):
                yield first, text
                first = False
            if first:
                yield True, ""
    except DataError as error:
        facts["bad_files"] += 1
        facts["first_bad"].append(error.message)
        return
    facts["bad_rows"] += len(bad)
    facts["first_bad"] += [f"{file.name} line {line}: {reason}" for line, reason in bad[:3]]


def _check(content: Iterable[Any], file: Path) -> None:
    """Go through a file once, so that a bad one is refused before a part of it is used. One that is read as
    one block is not used before it is whole, and needs no check."""
    packed = file.suffix.lower() in table.PACKED
    if table.kind(file) == ".jsonl" or packed or _size(file) > BLOCK:
        for _ in content:
            pass


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0  # opening it says what is wrong


def _text(file: Path) -> Iterator[str]:
    """A text file, block by block; a character never falls apart."""
    offset, line, rest = 0, 1, b""
    with table.opened(file) as opened:
        block = opened.read(BLOCK)
        while block:
            following = opened.read(BLOCK)
            data = rest + block
            try:
                text, used = codecs.utf_8_decode(data, "strict", not following)
            except UnicodeDecodeError as error:
                where = line + data.count(b"\n", 0, error.start)
                raise table.not_utf8(file, offset + error.start, where) from error
            if offset == 0:
                text = text.removeprefix("\ufeff")
            line += data.count(b"\n", 0, used)
            offset, rest, block = offset + used, data[used:], following
            if text:
                yield text


def _parquet(file: Path, field: str, bad: list[tuple[int, str]]) -> Iterator[str]:
    """The texts of a column, some rows at a time."""
    arrow = table.pyarrow("reading .parquet files")
    from pyarrow import parquet  # pyright: ignore[reportMissingImports]

    n_used = 0
    try:
        with parquet.ParquetFile(file) as opened:
            columns: list[str] = opened.schema_arrow.names
            if field not in columns:
                close = nearest(field, columns)
                raise DataError(f"{file} has no column '{field}'.{close} It has: {', '.join(columns)}")
            for batch in opened.iter_batches(batch_size=1024, columns=[field]):
                for number, value in enumerate(batch.column(0).to_pylist(), n_used + len(bad) + 1):
                    try:
                        text = rows.to_text({field: value}, field)
                    except DataError as error:
                        bad.append((number, error.message))
                        continue
                    n_used += 1
                    yield text
    except (OSError, arrow.ArrowException) as error:
        raise DataError(f"cannot read {file}: {error}", hint="copy or download it again") from error
    if not n_used:
        reason = f": row {bad[0][0]}: {bad[0][1]}" if bad else ""
        raise DataError(f"{file} has no usable row{reason}")
