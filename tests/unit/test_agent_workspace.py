"""The workspace and the built-in tools: what they do, what they say, and what they leave as it was."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tinygpt.agent import workspace as module
from tinygpt.agent.builtin import list_files, read_file, run_tests, search_files, write_file
from tinygpt.agent.builtin._job import Job
from tinygpt.agent.tool import Outcome, Refusal
from tinygpt.agent.tools.builtin import BUILTIN
from tinygpt.agent.workspace import Item, Workspace
from tinygpt.core.errors import ConfigError

Call = Callable[..., Outcome]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def call(work: Path) -> Call:
    def made(name: str, seconds: float = 20, cancel: Any = None, **arguments: Any) -> Outcome:
        job = Job(workspace=Workspace(work), seconds=seconds, cancel=cancel or threading.Event())
        return BUILTIN.load(name).call(arguments, job)

    return made


def test_a_workspace_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "missing"):
        with pytest.raises(ConfigError, match="cannot be opened"):
            Workspace(tmp_path / name)


def test_a_workspace_stays_where_it_was_opened(work: Path) -> None:
    held = Workspace(work)
    work.rename(work.parent / "moved")
    (work.parent / "work").mkdir()
    held.write("a.txt", b"x")
    assert (work.parent / "moved/a.txt").read_text() == "x" and not list(work.iterdir())


def test_a_file_is_replaced_whole_and_keeps_its_mode(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Workspace(work)
    (work / "run.sh").write_text("old")
    (work / "run.sh").chmod(0o4750)
    before = (work / "run.sh").stat().st_ino
    assert held.write("run.sh", b"new") is False and held.write("x/y.txt", b"1") is True
    status = (work / "run.sh").stat()
    assert status.st_ino != before and stat.S_IMODE(status.st_mode) == 0o750

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left.*run.sh"):
        held.write("run.sh", b"newer")
    assert (work / "run.sh").read_text() == "new" and sorted(os.listdir(work)) == ["run.sh", "x"]


def test_what_is_listed_is_what_lies_there(work: Path) -> None:
    (work / "b/c").mkdir(parents=True)
    (work / "b/c/d.txt").write_text("12345")
    (work / "b/.ssh").mkdir()
    (work / "a.txt").touch()
    (work / "l").symlink_to("/")
    os.mkfifo(work / "p")
    found = list(Workspace(work).walk(".", deep=True))
    assert [(item.path, item.kind) for item in found] == [
        ("a.txt", "file"), ("b", "folder"), ("b/c", "folder"), ("b/c/d.txt", "file"), ("l", "link"),
        ("p", "other"),
    ]  # fmt: skip
    assert Item("b/c/d.txt", "file", 5) in found


@pytest.mark.parametrize(
    ("name", "is_hidden"),
    [
        (".env", True), (".ENV.local", True), (".env.example", False), ("id_rsa.pub", True), ("x.Pem", True),
        (".git", True), (".gitignore", False), (".g\u200dit", True), ("\uff0egit", True),
        ("environment", False),
        ("key.txt", False),
    ],
)  # fmt: skip
def test_names_that_nobody_sees(name: str, is_hidden: bool) -> None:
    assert module.hidden(name) == is_hidden


def test_a_protected_file_is_read_and_not_written(work: Path) -> None:
    (work / "sub").mkdir()
    (work / "sub/tools.json").write_text("[]")
    held = Workspace(work)
    held.protect(work / "sub/tools.json")
    held.protect(work.parent / "elsewhere.json")
    assert held.read("sub//tools.json", 10) == b"[]"
    for change in (lambda: held.write("sub/./TOOLS.json", b""), lambda: held.remove("sub/tools.json")):
        with pytest.raises(Refusal) as caught:
            change()
        assert caught.value.rule == "path-kept"


@pytest.mark.parametrize("text", ["a b", "HEAD~1", "src/a.txt", "x=1,y=2", "a..b", "...", "é", "new/file"])
def test_arguments_of_programs_that_are_fine(work: Path, text: str) -> None:
    (work / "src").mkdir()
    Workspace(work).guard(text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("/" + "./" * 70 + "etc/passwd", "path-outside"),
        ("/" * 70 + "etc/passwd", "path-outside"),
        ("./" * 600 + "../x", "path-outside"),
        ("if=" + "./" * 70 + "../x", "path-outside"),
        ("\x01/../../x", "path-outside"),
        ("./" * 70 + "d/.env", "path-hidden"),
        ("./" * 70 + "out/x", "path-link"),
    ],
)
def test_a_program_is_given_no_path_that_leads_out_however_it_is_written(
    work: Path, text: str, rule: str
) -> None:
    (work / "out").symlink_to("/etc")
    with pytest.raises(Refusal) as caught:
        Workspace(work).guard(text)
    assert caught.value.rule == rule


def test_what_a_protected_folder_holds_is_not_written_and_a_key_is_not_read(work: Path) -> None:
    (work / "traces").mkdir()
    (work / "key.txt").write_text("secret")
    held = Workspace(work)
    held.protect(work / "traces")
    held.protect(work)  # the workspace itself stays one to work in
    held.hide(work / "key.txt")
    assert held.write("traces.txt", b"x")
    for call, rule in (
        (lambda: held.write("traces/1.atraj", b""), "path-kept"),
        (lambda: held.read("./KEY.txt", 9), "path-hidden"),
        (lambda: held.guard("--file=key.txt"), "path-hidden"),
    ):
        with pytest.raises(Refusal) as caught:
            call()
        assert caught.value.rule == rule


# Built-in tools


def test_lines_of_a_file(work: Path, call: Call) -> None:
    (work / "a.txt").write_bytes(b"1\n2\r\n3\n4")
    assert call("read_file", path="a.txt").stdout == "1\n2\r\n3\n4"
    assert call("read_file", path="a.txt", first=2, last=3).stdout == "2\r\n3\n"
    assert call("read_file", path="a.txt", first=4, last=9).stdout == "4"
    for wrong, said in (({"first": 9}, "line 9 is none"), ({"first": 3, "last": 2}, "comes before 'first'")):
        outcome = call("read_file", path="a.txt", **wrong)
        assert outcome.exit_code == 1 and said in outcome.stderr
    (work / "b.bin").write_bytes(b"\0")
    assert "is no text" in call("read_file", path="b.bin").stderr
    assert call("read_file", path="c.txt").stderr == "c.txt: No such file or directory"
    assert call("read_file", path=".").stderr == ".: Is a directory"
    assert call("read_file", path="a.txt/b").stderr == "a.txt/b: Not a directory"


def test_a_huge_file_is_read_in_part(work: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_file, "SHOWN", 1000)
    monkeypatch.setattr(read_file, "SCANNED", 100_000)
    (work / "a.txt").write_text("0123456\n" * 50_000)
    outcome = call("read_file", path="a.txt")
    assert len(outcome.stdout) < 1100 and "a.txt goes on after line 126" in outcome.stdout
    far = call("read_file", path="a.txt", first=40_000)
    assert "goes on after line" in far.stdout and "0123456" not in far.stdout
    (work / "b.txt").write_text("x" * 500_000)
    assert "goes on after line 0" in call("read_file", path="b.txt").stdout


def test_text_is_added_or_takes_the_place(work: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("write_file", path="a.txt", content="é\n", append=True).stdout == "created a.txt, 3 bytes\n"
    assert call("write_file", path="a.txt", content="b", append=True).stdout == "wrote a.txt, 4 bytes\n"
    assert (work / "a.txt").read_text() == "é\nb"
    call("write_file", path="a.txt", content="c")
    assert (work / "a.txt").read_text() == "c"
    monkeypatch.setattr(write_file, "LARGEST", 5)
    assert "more than 5 bytes" in call("write_file", path="a.txt", content="123456", append=True).stderr
    assert (work / "a.txt").read_text() == "c"


def test_one_exact_text_is_replaced(work: Path, call: Call) -> None:
    (work / "a.txt").write_bytes(b"one\r\ntwo\r\ntwo\r\n")
    assert call("edit_file", path="a.txt", old="one\r\n", new="").stdout == "changed a.txt at line 1\n"
    assert (work / "a.txt").read_bytes() == b"two\r\ntwo\r\n"
    assert "is there 2 times" in call("edit_file", path="a.txt", old="two", new="x").stderr
    assert "is not there" in call("edit_file", path="a.txt", old="three", new="x").stderr
    (work / "b.txt").write_bytes(b"\xff")
    assert "not UTF-8 text (byte 0)" in call("edit_file", path="b.txt", old="a", new="b").stderr
    assert (work / "a.txt").read_bytes() == b"two\r\ntwo\r\n" and (work / "b.txt").read_bytes() == b"\xff"


def test_a_file_is_deleted_a_folder_is_not(work: Path, call: Call) -> None:
    (work / "d").mkdir()
    (work / "d/a.txt").touch()
    assert call("delete_file", path="d/a.txt").exit_code == 0 and not (work / "d/a.txt").exists()
    assert call("delete_file", path="d").stderr == "d: Is a directory" and (work / "d").is_dir()
    assert call("delete_file", path="d/a.txt").exit_code == 1


def test_a_long_list_says_that_there_is_more(work: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(5):
        (work / f"{n}.txt").touch()
    (work / "d").mkdir()
    (work / "l").symlink_to("d")
    assert call("list_files").stdout.splitlines()[-2:] == ["d/", "l (link, not followed)"]
    monkeypatch.setattr(list_files, "MOST", 3)
    assert (
        call("list_files").stdout
        == "0.txt\n1.txt\n2.txt\n[... more than 3 lines: list a folder inside ...]\n"
    )
    assert call("list_files", path="0.txt").stderr == "0.txt: Not a directory"
    assert "no name has" in call("list_files", pattern="[" * 50_000).stderr


def test_lines_are_found_by_text_and_by_expression(
    work: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    (work / "d").mkdir()
    (work / "d/a.py").write_text("x = 1\ny = [x]\n")
    (work / "b.txt").write_text("x = 2\n")
    (work / "c.bin").write_bytes(b"\0x")
    assert (
        call("search_files", text="[x]").stdout
        == "d/a.py:2:y = [x]\n[1 files were passed over: too large or no text]\n"
    )
    assert call("search_files", text=r"^x = \d$", regex=True, pattern="*.py").stdout == "d/a.py:1:x = 1\n"
    assert "not a regular expression" in call("search_files", text="(", regex=True).stderr
    monkeypatch.setattr(search_files, "MOST", 1)
    for regex in (False, True):
        found = call("search_files", text="x", regex=regex, pattern="*.[pt]*").stdout
        assert found.startswith("b.txt:1:x = 2\n[... there may be more")
    monkeypatch.setattr(search_files, "FILES", 1)
    assert "name a folder" in call("search_files", text="nowhere").stderr


@pytest.mark.wide
def test_an_expression_that_takes_for_ever_is_ended(work: Path, call: Call) -> None:
    (work / "a.txt").write_text("a" * 60 + "!")
    assert "took longer than 0.5 seconds" in call("search_files", 0.5, text="(a+)+$", regex=True).stderr


def test_what_a_person_wants_no_more_is_left(work: Path, call: Call) -> None:
    stop = threading.Event()
    stop.set()
    (work / "a.txt").write_text("x")
    assert call("search_files", cancel=stop, text="x").stderr == "cancelled"
    assert "more than 0 lines" in call("list_files", cancel=stop).stdout


def test_the_tests_are_the_persons_command(work: Path) -> None:
    job = Job(
        workspace=Workspace(work),
        seconds=20,
        cancel=threading.Event(),
        test_command=("sh", "-c", "pwd; exit 3"),
    )
    outcome = run_tests.call({}, job)
    assert (outcome.stdout, outcome.exit_code) == (f"{work.resolve()}\n", 3)
