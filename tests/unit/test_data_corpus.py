"""What a corpus setting names, and reading files of every kind in blocks."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tinygpt.core.errors import ConfigError, DataError, DependencyError
from tinygpt.data import cache, corpus, rows
from tinygpt.data.source import text
from tinygpt.data.tokenizer import byte


def read(file: Path, field: str = "text") -> tuple[list[str], dict[str, Any]]:
    facts = corpus.new_facts()
    return list(corpus.documents(file, facts, field)), facts


def test_names_and_weights(tmp_path: Path) -> None:
    def one(given: str) -> tuple[str, str, float | None]:
        found = corpus.parse(Path(given))
        return found.name, str(found.path), found.weight

    assert one("code=src/a:0.25") == ("code", "src/a", 0.25)
    assert one("b.txt") == ("b", "b.txt", None) and one("dir/b.txt:3") == ("b", "dir/b.txt", 3.0)
    assert one("a:b.txt") == ("a:b", "a:b.txt", None), "no number: part of the path"
    odd = tmp_path / "x=y:1"
    odd.write_text("there")
    assert one(str(odd)) == ("x=y:1", str(odd), None), "a path that exists is itself"
    assert corpus.corpora([Path("a"), Path("b")]) == []
    for given, message in {
        ("a=x:1", "b=y"): "the corpus b has no weight",
        ("a=x", "a=y"): "two corpora are called a",
        ("a=x:0", "b=y:1"): "must be a finite number above 0, got 0",
        ("a=x:inf",): "must be a finite number above 0, got inf",
    }.items():
        with pytest.raises(ConfigError, match=message):
            corpus.corpora([Path(g) for g in given])
    with pytest.raises(ConfigError, match="the corpus a has a weight, but nothing is mixed here"):
        corpus.refuse_mixture([Path("a=x:1")])
    corpus.refuse_mixture([Path("a=x"), Path("b=y")])


def test_patterns(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md", "in/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)

    def found(pattern: str, **more: Any) -> list[str]:
        config = text.Config(paths=(Path(pattern.replace("@", f"{tmp_path}/")),), **more)
        assert not corpus.by_hand(config)
        return [p.relative_to(tmp_path).as_posix() for p in corpus.find(config)]

    assert found("@*.txt") == ["a.txt", "b.txt"] and found("@**/*.txt") == ["a.txt", "b.txt", "in/d.txt"]
    assert found("@[ab].*", exclude=("a*", "test_*")) == ["b.txt"] and found("all=@*.md:2") == ["c.md"]
    with pytest.raises(DataError, match="no file matches .*rst'"):
        found("@*.rst")


@pytest.mark.parametrize("block", [1, 3, 1 << 20])
def test_text_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Characters of several bytes meet every edge; a bad byte is named where it is, before a part is used."""
    monkeypatch.setattr(corpus, "BLOCK", block)
    written = "\ufeffaé\n漢字😀\r\n" * 5
    (tmp_path / "a.txt").write_text(written, newline="")
    (tmp_path / "b.txt").write_bytes("é\nok".encode() + b"\xe9\xe9\n" + b"more" * 9)
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(written.encode()))
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(written.encode() * 99)[:-9])
    (tmp_path / "e.txt").write_bytes("cut é".encode()[:-1])
    (tmp_path / "f.txt").write_text("")
    assert read(tmp_path / "a.txt")[0] == read(tmp_path / "c.txt.gz")[0] == [written[1:]]
    for name, why in {"b": "byte 5, on line 2", "d": "damaged gzip", "e": "byte 4, on line 1"}.items():
        file = next(tmp_path.glob(f"{name}.*"))
        found, facts = read(file)
        assert found == [] and facts["bad_files"] == 1 and why in facts["first_bad"][0], name
    assert read(tmp_path / "f.txt")[0] == [""]


def test_rows_have_a_field(tmp_path: Path) -> None:
    data = [{"body": "one", "text": "x"}, {"text": "y"}, {"body": "two"}, {"body": 3}]
    rows.write(tmp_path / "a.jsonl", data)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    for name in ("a.jsonl", "b.jsonl.gz"):
        found, facts = read(tmp_path / name, "body")
        assert found == ["one", "two"] and facts["bad_rows"] == 2
        assert "line 2: no 'body' in the row; its keys: text" in facts["first_bad"][0]
    found, facts = read(tmp_path / "a.jsonl", "title")
    assert not found and "none of the 4 rows" in facts["first_bad"][0]
    (tmp_path / "c.jsonl").write_bytes(b'{"text": "good"}\n{"text": "b\xe9"}\n')
    found, facts = read(tmp_path / "c.jsonl")
    assert not found and "line 2" in facts["first_bad"][0], "a bad file gives nothing"


def test_the_field_is_part_of_the_cache_key(tmp_path: Path) -> None:
    rows.write(tmp_path / "a.jsonl", [{"text": "abc" * 30, "body": "xyz" * 30}])
    for field, letter in (("text", "a"), ("body", "x")):
        config = text.Config(paths=(tmp_path / "a.jsonl",), field=field, held_out=0)
        source = text.build(config, byte.load(), length=64, batch_size=1)
        assert ord(letter) in source[0].tokens
    (tmp_path / "a.txt").write_text("plain " * 30)
    with pytest.raises(ConfigError, match="--field body means nothing"):
        config = text.Config(paths=(tmp_path / "a.txt",), field="body")
        text.build(config, byte.load(), length=64, batch_size=1)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        DependencyError, match=r"needs the package 'pyarrow' \(pip install 'tinygpt\[parquet\]"
    ):
        read(tmp_path / "a.parquet")


def test_hashes_of_large_files_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LARGE", 8)
    monkeypatch.setattr(cache, "SETTLED", 0.0)
    computed: list[Path] = []
    whole = cache.sha256
    monkeypatch.setattr(cache, "sha256", lambda p: (computed.append(p), whole(p))[1])
    file, small = tmp_path / "big", tmp_path / "small"
    file.write_bytes(b"0123456789")
    small.write_bytes(b"0123")
    wait_for_another_tick(file)
    right = hashlib.sha256(b"0123456789").hexdigest()
    assert [cache.content_hash(file) for _ in range(3)] == [right] * 3 and len(computed) == 1
    for _ in range(2):
        cache.content_hash(small)
    assert len(computed) == 3, "small files are hashed each time"
    # The same size and the old time of writing: the time of change tells.
    facts = file.stat()
    file.write_bytes(b"9876543210")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert cache.content_hash(file) == hashlib.sha256(b"9876543210").hexdigest()
    # One that was only just written is not remembered: it could change within the same tick of the clock.
    monkeypatch.setattr(cache, "SETTLED", 1e9)
    other = tmp_path / "other"
    other.write_bytes(b"0123456789")
    before = len(computed)
    for _ in range(2):
        cache.content_hash(other)
    assert len(computed) == before + 2
    remembered = [json.loads(p.read_text()) for p in (cache.cache_dir("hashes")).iterdir()]
    assert {Path(r["path"]).name for r in remembered} == {"big"}


def wait_for_another_tick(file: Path) -> None:
    """Until the clock of the file system has moved on."""
    probe = file.with_name("tick")
    while time.time() <= file.stat().st_mtime or probe_time(probe) <= file.stat().st_mtime_ns:
        pass


def probe_time(probe: Path) -> int:
    probe.write_text("")
    return probe.stat().st_mtime_ns
