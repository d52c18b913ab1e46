"""The command line under test: in this process for speed, or in one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygpt.cli import _exit, _root

# Sizes at which a step takes milliseconds; nothing is compiled, since each process would build kernels first.
NANO = (
    "--set", "model.hidden_size=32", "--set", "model.num_hidden_layers=2", "--batch", "4", "--context", "32",
    "--no-compile",
)  # fmt: skip


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class _Stdin(io.StringIO):
    def isatty(self) -> bool:
        return False


def tinygpt(*words: object, stdin: str = "") -> Done:
    """Run a command line in this process, as the console script would."""
    out, err, before = io.StringIO(), io.StringIO(), sys.stdin
    sys.stdin = _Stdin(stdin)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = _exit.run(lambda: _root.dispatch([str(w) for w in words]))
    finally:
        sys.stdin = before
    return Done(code, out.getvalue(), err.getvalue())


def process(*words: object, stdin: str = "", **env: str) -> Done:
    """Run it in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tinygpt", *(str(w) for w in words)],
        input=stdin, capture_output=True, text=True, env={**os.environ, **env},
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def good(*words: object, stdin: str = "") -> Done:
    """A command that must succeed."""
    done = tinygpt(*words, stdin=stdin)
    assert done.code == 0, f"tinygpt {' '.join(map(str, words))} ended with {done.code}:\n{done.err}"
    return done


def refused(done: Done, *patterns: str, hint: str = "") -> None:
    """One line that says what is wrong, at most a hint after it, exit code 2, nothing on stdout."""
    assert done.code == 2, f"exit code {done.code}:\n{done.err}"
    first, *rest = done.err.splitlines()
    assert first.startswith("error: ") and len(rest) <= 1, done.err
    assert not rest or rest[0].startswith("  hint: "), done.err
    assert not done.out
    for pattern in patterns:
        assert re.search(pattern, first), f"{pattern!r} is not in: {first}"
    assert hint in "".join(rest), f"{hint!r} is not in: {rest}"


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


WORDS = "the cat sat on a mat and saw one dog run over hills while rain fell slowly"


def sentences(n: int, seed: int = 0) -> str:
    """Text in which something can be learned."""
    draw, words = random.Random(seed), WORDS.split()
    return "".join(" ".join(draw.choices(words, k=9)).capitalize() + ".\n" for _ in range(n))


def sums(path: Path, n: int = 60) -> Path:
    """Rows of single-digit additions."""
    rows = [{"prompt": f"{i % 10}+{i // 10}", "completion": str(i % 10 + i // 10)} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def preferences(path: Path, n: int = 60) -> Path:
    """Pairs whose better answers say yes, and whose worse ones say no."""
    rows = [
        {"prompt": f"{i}?", "chosen": "yes" + "!" * (i % 4), "rejected": "no" + "." * (i % 3)}
        for i in range(n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
