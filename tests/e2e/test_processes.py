"""What only a fresh process shows: a broken compiler, and data that must not follow the hash seed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinygpt.core import backend

linux = pytest.mark.skipif(backend.setup().blas == "none needed", reason="only Linux CPUs are patched")


def child(code: str, **env: str) -> dict:
    """Run `code` in a fresh process; it leaves what is to be returned in `out`."""
    program = f"import json\n{code}\nprint(json.dumps(out))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@linux
def test_a_broken_compiler_is_one_note(tmp_path: Path) -> None:
    broken = tmp_path / "g++"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho no headers\nexit 1\n')
    broken.chmod(0o755)
    code = """
from tinygpt.core import backend
from tinygpt.core.backend import mx
f = backend.compile(lambda x: mx.exp(x * 2.0) + 1)
out = [f(mx.zeros((2,))).tolist(), list(backend.setup().notes)]
"""
    path = f"{tmp_path}:{os.environ['PATH']}"
    value, notes = child(code, PATH=path, TMPDIR=str(tmp_path))
    assert value == [2.0, 2.0] and len(notes) == 1 and "no headers" in notes[0]


def test_generation_does_not_follow_the_hash_seed() -> None:
    """Sets of strings are ordered anew in every process; one in the generator would change the data."""
    code = """
from tinygpt.data.world.file_ops import make_task, to_messages
tasks = [make_task(0, "train", i) for i in range(50)]
out = [[t.id, to_messages(t), list(t.candidates), list(t.templates), list(t.tags)] for t in tasks]
"""
    assert child(code, PYTHONHASHSEED="1") == child(code, PYTHONHASHSEED="2")


TOKENISE = """
import sys
from pathlib import Path
from tinygpt.core.events import Events, Note
from tinygpt.data import encode
from tinygpt.data.source import text
from tinygpt.data.tokenizer import byte

folder = Path(sys.argv[1])
whole = encode.tokenise

def tokenise(*args, **more):
    print("tokenised", flush=True)
    while not (folder / "waits").exists():
        pass
    whole(*args, **more)

class Waits:
    def write(self, event):
        if isinstance(event, Note) and "waiting" in event.text:
            (folder / "waits").write_text("")

encode.tokenise = tokenise
config = text.Config(paths=(folder / "a.txt",), held_out=0)
source = text.build(config, byte.load(), length=64, batch_size=2, events=Events(Waits()))
print(source[0].tokens.sum())
"""


def test_of_two_that_start_at_once_one_tokenises(tmp_path: Path) -> None:
    """The second waits for the first and uses its tokens."""
    (tmp_path / "a.txt").write_text("to be or not to be, that is the question\n" * 30)
    command = [sys.executable, "-c", TOKENISE, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=120)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(map(len, told)) == [1, 2] and told[0][-1] == told[1][-1]
