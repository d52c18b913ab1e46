"""Files are whole or absent, whatever kills the writer."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinygpt.core import files
from tinygpt.core.errors import ConfigError, DataError

# A writer that dies at the n-th call of one of the steps of a replacement.
WRITER = """
import os, sys
from pathlib import Path
from tinygpt.core import files
step, path = sys.argv[1], Path(sys.argv[2])
calls = []
def dying(name, real):
    def call(*args, **kwargs):
        calls.append(name)
        if f"{name}{calls.count(name)}" == step:
            os._exit(9)
        return real(*args, **kwargs)
    return call
os.replace = dying("replace", os.replace)
files.fsync_tree = dying("flush", files.fsync_tree)
files.shutil.rmtree = dying("remove", files.shutil.rmtree)
with files.atomic_directory(path, replace=True) as folder:
    (folder / "a").write_text("new")
    if step == "middle":
        os._exit(9)
    (folder / "b").write_text("new")
print("finished")
"""


def content(path: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in path.iterdir()}


def old(path: Path) -> Path:
    path.mkdir(parents=True)
    for name in "ab":
        (path / name).write_text("old")
    return path


@pytest.mark.parametrize(
    ("step", "survivor"),
    [
        ("middle", "old"),
        ("flush1", "old"),
        ("replace1", "old"),
        ("replace2", "old"),
        ("remove1", "new"),
        ("none", "new"),
    ],
)
def test_a_killed_replacement_leaves_the_old_or_the_new(tmp_path: Path, step: str, survivor: str) -> None:
    path = old(tmp_path / "model")
    run = subprocess.run(
        [sys.executable, "-c", WRITER, step, str(path)], capture_output=True, text=True, timeout=60
    )
    if step == "remove1" and "finished" in run.stdout:
        pytest.fail("the replacement has fewer steps than this test thinks: the kill never fell")
    assert run.returncode == (0 if step == "none" else 9), run.stderr
    left = sum(1 for _ in tmp_path.rglob("*"))
    files.recover(path)
    assert content(path) == {"a": survivor, "b": survivor}
    assert sum(1 for _ in tmp_path.rglob("*")) == left, "a reader moves, and removes nothing"
    # The next writer is not disturbed by what it finds, and removes what the dead one left.
    with files.atomic_directory(path, replace=True) as folder:
        (folder / "a").write_text("next")
    assert content(path) == {"a": "next"} and len(list(tmp_path.iterdir())) == 1


DEAD = 2**22 + 1  # no process has it: Linux and macOS stop at 2^22


def test_only_what_is_ours_is_cleaned_up(tmp_path: Path) -> None:
    """Names like ours, and folders of our names that hold something else, are a person's."""
    theirs = [".model.old", ".model.tmp-99999", f".model.tinygpt.tmp-{DEAD}", f".x.tinygpt.tmp-{DEAD}"]
    for name in theirs:
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").write_text("years of work")
    (tmp_path / f".y.tinygpt.tmp-{DEAD}").symlink_to(tmp_path / ".model.old")
    before = sorted(tmp_path.rglob("*"))
    files.recover(tmp_path / "model")
    files.sweep(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    for value in ("one", "two"):
        with files.atomic_directory(tmp_path / "model", replace=True) as folder:
            (folder / "a").write_text(value)
    assert content(tmp_path / "model") == {"a": "two"}
    assert all((tmp_path / name / "precious").read_text() == "years of work" for name in theirs)


def test_a_replacement_that_was_finished_is_not_undone(tmp_path: Path) -> None:
    """The kill fell after the second rename, and somebody removed the new one since."""
    work = tmp_path / f".model.tinygpt.tmp-{DEAD}"
    work.mkdir()
    old(work / "old")
    files.recover(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    (work / "new").mkdir()
    files.sweep(tmp_path)
    assert content(tmp_path / "model") == {"a": "old", "b": "old"} and not work.exists()


def test_the_current_directory_and_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "." has no name, and what is replaced is where a link leads to."""
    real, link = old(tmp_path / "disk" / "real"), tmp_path / "link"
    link.symlink_to(real)
    with files.atomic_directory(link, replace=True) as folder:
        assert folder.is_relative_to(real.parent)
        (folder / "a").write_text("new")
    assert link.is_symlink() and content(real) == {"a": "new"}
    assert [p.name for p in real.parent.iterdir()] == ["real"]
    monkeypatch.chdir(real)
    for path in (Path("."), Path(), Path("/"), Path("..")):
        files.recover(path)
    assert files.beside(Path(".")).parent == real.parent.resolve()
    files.remove_directory(link)
    assert content(real) == {"a": "new"} and not link.exists()


def test_a_failing_body_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model"
    with pytest.raises(ZeroDivisionError), files.atomic_directory(path) as folder:
        (folder / "a").write_text("x")
        _ = 1 / 0
    assert list(path.parent.iterdir()) == []


def test_an_existing_directory_is_replaced_only_on_request(tmp_path: Path) -> None:
    path = old(tmp_path / "model")
    with pytest.raises(ConfigError, match="exists.*--force"), files.atomic_directory(path):
        pass
    assert content(path)["a"] == "old" and len(list(tmp_path.iterdir())) == 1


def test_an_existing_output_is_refused(tmp_path: Path) -> None:
    files.refuse_existing(tmp_path / "nothing", force=False)
    (tmp_path / "empty").mkdir()
    files.refuse_existing(tmp_path / "empty", force=False)
    path = old(tmp_path / "full")
    with pytest.raises(ConfigError, match=r"the output .* exists"):
        files.refuse_existing(path, force=False)
    files.refuse_existing(path, force=True)
    for text in ("old", "[]", '{"command": "train"}', '{"made_by": "hand"}'):
        (path / "run.json").write_text(text)
        with pytest.raises(ConfigError, match=r"is no output \(it has no run\.json of tinygpt's\)"):
            files.refuse_existing(path, force=True, mark="run.json")
    files.write_json(path / "run.json", {"tinygpt": "1.0"})
    files.refuse_existing(path, force=True, mark="run.json")
    ours = {"": ("a", "b", "run.json")}
    files.refuse_existing(path, force=True, mark="run.json", replaced=ours)
    listed = {"made_by": "tinygpt 1.0", "files": {"c": {}, "deep/d": {}}}
    for name in ("sealed/c", "sealed/deep/d"):
        files.write_text(path / name, "x")
    with pytest.raises(ConfigError, match=r"sealed/c was not written by tinygpt, so --force does not"):
        files.refuse_existing(path, force=True, mark="run.json", replaced=ours)
    files.write_json(path / "sealed" / files.MANIFEST, listed)
    files.refuse_existing(path, force=True, mark="run.json", replaced=ours)
    for name in ("mine", "steps/mine", "sealed/mine", "sealed/deep/mine"):
        files.write_text(path / name, "x")
        with pytest.raises(ConfigError, match=f"{name} was not written by tinygpt") as caught:
            files.refuse_existing(path, force=True, mark="run.json", replaced=ours)
        assert "move it elsewhere" in caught.value.hint
        files.refuse_existing(path, force=True, mark="run.json", replaced={"other": ()})
        (path / name).unlink()
    for force in (False, True):
        with pytest.raises(ConfigError, match="is a file, the output must be a directory"):
            files.refuse_existing(path / "a", force=force)


def test_a_second_rename_that_fails_puts_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real, calls = old(tmp_path / "model"), os.replace, []

    def replace(a: Path, b: Path) -> None:
        calls.append(a)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        real(a, b)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(DataError, match="cannot write"), files.atomic_directory(path, replace=True) as folder:
        (folder / "a").write_text("new")
    assert content(path) == {"a": "old", "b": "old"} and len(list(tmp_path.iterdir())) == 1


def full_disk(tmp_path: Path) -> Path | None:
    """A file system of 64 KiB, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() == 0 and sys.platform == "linux":
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True
        )
        return disk if done.returncode == 0 else None
    return None


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nano
    from tinygpt.core.events import FileSink, Note
    from tinygpt.model import checkpoint

    disk = full_disk(tmp_path)
    if disk is None:
        disk = tmp_path / "disk"

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", refuse)
        monkeypatch.setattr(checkpoint.mx, "save_safetensors", refuse)
    try:
        with pytest.raises(DataError, match=r"cannot write .*out\.tinygpt.*disk is full") as caught:
            checkpoint.save(disk / "out.tinygpt", nano.model())
        assert "\n" not in str(caught.value) and caught.value.exit_code == 2
        assert list(disk.iterdir()) == []
        with pytest.raises(DataError, match=r"cannot write .*rows\.json.*disk is full"):
            files.write_text(disk / "rows.json", "x" * 100_000)
        assert list(disk.iterdir()) == []
        if os.path.ismount(disk):
            sink = FileSink(disk / "events.jsonl")
            with pytest.raises(DataError, match=r"cannot write .*events\.jsonl.*disk is full"):
                sink.write(Note(text="x" * 100_000))
            sink.close()
    finally:
        if os.path.ismount(disk):
            subprocess.run(["umount", "-l", str(disk)], check=True)


def test_text_files_are_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    files.write_json(path, {"é": 1})
    assert path.read_text(encoding="utf-8") == '{\n  "é": 1\n}\n' and len(list(path.parent.iterdir())) == 1
    with pytest.raises(DataError, match="cannot write"):
        files.write_text(path / "below-a-file", "x")


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYGPT_CACHE", str(tmp_path / "c"))
    assert files.cache_dir("a", "b") == tmp_path / "c" / "a" / "b" and (tmp_path / "c" / "a" / "b").is_dir()
    monkeypatch.delenv("TINYGPT_CACHE")
    assert files.cache_dir() == Path.home() / ".cache" / "tinygpt"
    (tmp_path / "f").write_bytes(b"abc")
    assert files.sha256(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_pipe_is_written_to_and_a_link_stays_a_link(tmp_path: Path) -> None:
    """--out /dev/null, run by root, must not put a file in the place of the device."""
    pipe, link, real = tmp_path / "pipe", tmp_path / "link", tmp_path / "real"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True)
    files.write_text(pipe, "row\n")
    assert reader.communicate(timeout=20)[0] == "row\n" and pipe.is_fifo()
    real.write_text("old")
    link.symlink_to(real)
    files.write_text(link, "new")
    assert link.is_symlink() and real.read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "pipe", "real"]


def test_what_is_written_piece_by_piece_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with files.writing(path) as file:
        file.write("old\n")
    with pytest.raises(ConnectionError, match="gone"), files.writing(path) as file:
        file.write("new\n")
        raise ConnectionError("the server is gone")  # not the disk's
    assert path.read_text() == "old\n" and [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]
    with pytest.raises(DataError, match="rows.jsonl"), files.writing(path) as file:
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old\n" and [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]
    with files.writing(Path("/dev/null")) as file:
        file.write("nothing")
