"""Every block of the README that is marked `console` is run, in one folder, in its order.

A line `$ tinygpt ...` is a command; what stands under it is an example of its output and is not compared. A
block after the comment `<!-- slow -->` is run with TINYGPT_SLOW=1 only, and counted. Files that a reader
would bring (notes/, book.txt, my.jsonl ...) are made by `given`; specialists/ lies there as in a clone.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.shell import preferences, sentences, sums

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCK = re.compile(r"((?:^<!--.*?-->\s*\n)*)^```console[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A marked block: the line it begins on, the comments before it, its commands."""

    line: int
    comments: str
    commands: tuple[str, ...]

    @property
    def slow(self) -> bool:
        return "slow" in re.findall(r"<!--\s*(\w+)\s*-->", self.comments)


def blocks(text: str) -> list[Block]:
    found = []
    for match in BLOCK.finditer(text):
        joined = re.sub(r"\\\n\s*", " ", match.group(2))  # a command may go on after a backslash
        commands = tuple(line[2:].strip() for line in joined.splitlines() if line.startswith("$ "))
        found.append(Block(text[: match.start(2)].count("\n"), match.group(1), commands))
    return found


def given(folder: Path) -> None:
    """The files that a reader brings."""
    for name in ("notes", "src"):
        (folder / name).mkdir()
        for i in range(8):
            suffix = "py" if name == "src" else "txt"
            (folder / name / f"{i}.{suffix}").write_text(sentences(400, i), encoding="utf-8")
    for name in ("book.txt", "other.txt"):
        (folder / name).write_text(sentences(800, len(name)), encoding="utf-8")
    for name in ("my.jsonl", "your.jsonl", "rows.jsonl"):
        sums(folder / name)
    preferences(folder / "preferences.jsonl")
    (folder / "specialists").symlink_to(README.parent / "specialists")


def run(command: str, folder: Path) -> None:
    words = shlex.split(command, comments=True)
    assert words, "an empty command"
    # The console script of this interpreter, wherever its environment lies.
    if Path(words[0]).name == "tinygpt":
        command = f"{shlex.quote(sys.executable)} -m tinygpt {command.split(None, 1)[1]}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"$ {command}\nended with {done.returncode}:\n{done.stderr[-2000:]}"


def test_the_marked_blocks_run(tmp_path: Path) -> None:
    found = blocks(README.read_text(encoding="utf-8"))
    given(tmp_path)
    ran = skipped = 0
    for block in found:
        assert block.commands, f"README.md:{block.line}: a console block without a line `$ command`"
        if block.slow and os.environ.get("TINYGPT_SLOW") != "1":
            skipped += 1
            continue
        for command in block.commands:
            if shlex.split(command, comments=True)[0] in ("make", "pip", "git", "cd", "source"):
                pytest.fail(f"README.md:{block.line}: `{command}` cannot be tested: do not mark it console")
            run(command, tmp_path)
            ran += 1
    print(f"README: {ran} commands run, {skipped} of {len(found)} blocks are slow")


def test_how_a_page_is_read(tmp_path: Path) -> None:
    page = (
        "# T\n\n```\nnot this\n```\n\n<!-- slow -->\n```console\n$ tinygpt doctor \\\n    --json\nout\n"
        "$ true\n```\ntext\n```console\n$ tinygpt --version  # a comment\ntinygpt 9\n```\n"
    )
    slow, quick = blocks(page)
    assert slow.slow and slow.commands == ("tinygpt doctor  --json", "true") and slow.line == 8
    assert not quick.slow and quick.commands == ("tinygpt --version  # a comment",)
    run(quick.commands[0], tmp_path)
    with pytest.raises(AssertionError, match="ended with 2"):
        run("tinygpt nonsense", tmp_path)
