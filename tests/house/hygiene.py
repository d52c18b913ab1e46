"""Small rules of every line: who prints, what is caught, who sleeps, what is promised, what is named."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from house.tree import statements, text_files, walk

QUARANTINE = "tests/QUARANTINE.md"
# Files that may wait by sleeping: file -> reason.
SLEEPS = {
    "src/tinygpt/core/files.py": "a reader gives a living writer time between its two renames",
    "src/tinygpt/infer/worker.py": "nothing tells that the system has ended a thread, up to Python 3.12",
    "src/tinygpt/runs/_transfer.py": "a server that fails is asked again after a while, longer each time",
}
# Gates of the parity tests: they skip only where a peer package is not installed, and never in CI.
GATES = ("tests/nano.py", "tests/conftest.py")
SKIPS = {f"pytest.{w}" for w in ("skip", "importorskip", "xfail", "mark.skip", "mark.skipif", "mark.xfail")}
PROMISES = re.compile(r"#.*\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b|raise NotImplemented" + "Error")
# In pieces, so that this file does not match itself.
MACHINE = re.compile(
    "|".join(("/wo" + "rk/", "/ro" + "ot/", "/tmp/ve" + "nv", "/opt/py" + "pi", "/ho" + r"me/\w+/"))
)
INDEX = re.compile("index" + "-url|INDEX" + "_URL|find" + "-links|FIND" + "_LINKS", re.IGNORECASE)
PUBLIC = {"https://pypi.org", "https://files.pythonhosted.org"}


def check(root: Path) -> list[str]:
    """One line for each breach."""
    rules = (prints, caught, sleeps, devices, promises, machines, skips)
    return [line for rule in rules for line in rule(root)]


def prints(root: Path) -> Iterator[str]:
    """Only cli/ and scripts/ print."""
    for word in ("print", "input"):
        for name, node in walk(root, "src/tinygpt", word=word):
            match node:
                case ast.Call(func=ast.Name(id=called)) if called == word:
                    if not name.startswith("src/tinygpt/cli/"):
                        yield f"{name}:{node.lineno}: the library prints nothing: emit an event or return it"


def caught(root: Path) -> Iterator[str]:
    """No bare except, and no error dropped without a word: the line of its `pass` says why."""
    for name, node in statements(root, "src", "tests", "scripts", word="except"):
        match node:
            case ast.ExceptHandler(type=None):
                yield f"{name}:{node.lineno}: a bare except also catches Ctrl-C: name the error"
            case ast.ExceptHandler(body=[ast.Pass(lineno=at) | ast.Expr(value=ast.Constant(), lineno=at)]):
                line = (root / name).read_text(encoding="utf-8").splitlines()[at - 1]
                if "#" not in line:
                    yield f"{name}:{at}: an error is dropped: handle it, or say why in a comment on this line"


def sleeps(root: Path) -> Iterator[str]:
    """Waiting is for an event or a deadline, not for a while."""
    for name, node in walk(root, "src", "tests", word="sleep"):
        match node:
            case ast.Call(func=func) if ast.unparse(func) in ("time.sleep", "sleep") and name not in SLEEPS:
                yield f"{name}:{node.lineno}: time.sleep: wait for the thing itself, or explain in SLEEPS"


def devices(root: Path) -> Iterator[str]:
    """What depends on the device is a question that core/backend.py answers."""
    for name, node in walk(root, "src/tinygpt", word=".device"):
        match node:
            case ast.Compare(left=left, comparators=others):
                compared = [left, *others]
            case ast.Match(subject=subject):
                compared = [subject]
            case _:
                continue
        asks = any(isinstance(n, ast.Attribute) and n.attr == "device" for n in compared)
        if asks and not name.startswith("src/tinygpt/core/"):
            yield f"{name}:{node.lineno}: asks for a device by name: give core/backend.py a question for it"


def promises(root: Path) -> Iterator[str]:
    """What is not there is in PLAN.md, not in a comment."""
    for path in sorted((root / "src").rglob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if PROMISES.search(line):
                yield f"{path.relative_to(root)}:{number}: put it into PLAN.md, or raise UnsupportedError"


def machines(root: Path) -> Iterator[str]:
    """No paths of one machine, no private package index."""
    for path in text_files(root):
        name = str(path.relative_to(root))
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # weights and pictures
        for number, line in enumerate(lines, 1):
            if MACHINE.search(line):
                yield f"{name}:{number}: names a path of one machine: {MACHINE.findall(line)[0]}"
            if INDEX.search(line) and name.startswith(("Makefile", "pyproject", ".ci", ".github", "scripts")):
                yield f"{name}:{number}: names a package index: that is the machine's business"
        if name == "uv.lock":
            hosts = set(re.findall(r"https?://[^/\"]+", "\n".join(lines)))
            yield from (f"uv.lock: names the host {host}" for host in sorted(hosts - PUBLIC))


def skips(root: Path) -> Iterator[str]:
    """A test that is skipped or expected to fail has a line in tests/QUARANTINE.md."""
    page = root / QUARANTINE
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    for word in SKIPS:
        for name, node in walk(root, "tests", word=word):
            if name in GATES or name in text or not isinstance(node, ast.Attribute):
                continue
            if word.endswith(f".{node.attr}") and ast.unparse(node) == word:
                yield f"{name}:{node.lineno}: a skip that {QUARANTINE} does not explain"
