"""Each rule catches its breach: a copy of the house, one fault planted, the rule must name it."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from house import budgets, commands, families, hygiene, layers, ledger
from house.tree import ROOT

SRC = "src/tinygpt"
Rule = Callable[[Path], Iterable[str]]


def copy(to: Path) -> Path:
    """A copy of what the rules read."""
    for folder in ("src", "docs", "scripts", "tests/house", "tests/golden", "tests/contract"):
        shutil.copytree(ROOT / folder, to / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "PLAN.md", "tests/QUARANTINE.md"):
        shutil.copy(ROOT / file, to / file)
    return to


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One copy for all faults: each is taken out again."""
    return copy(tmp_path_factory.mktemp("house"))


@contextlib.contextmanager
def planted(root: Path, file: str, text: str) -> Iterator[None]:
    """Text at the end of a file, which may be new, for a while."""
    path = root / file
    made = [p for p in (path.parent, path.parent.parent) if not p.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.read_text(encoding="utf-8") if path.exists() else None
    path.write_text((old if old is not None else '"""A planted file."""\n') + text, encoding="utf-8")
    yield
    if old is not None:
        path.write_text(old, encoding="utf-8")
    elif made:
        shutil.rmtree(made[-1])
    else:
        path.unlink()


@functools.cache
def breaches(rule: Rule, root: Path) -> frozenset[str]:
    """What a rule says of the house before anything is planted."""
    return frozenset(rule(root))


FAULTS: dict[str, tuple[Rule, str, str, str]] = {
    # name: (rule, file, text planted in it, what the rule must say)
    "sibling import": (
        layers.check,
        f"{SRC}/train/stop.py",
        "\nimport tinygpt.infer\n",
        "imports its sibling",
    ),
    "sibling in a function": (
        layers.check,
        f"{SRC}/model/count.py",
        "\ndef f():\n    from tinygpt.data import rows\n    return rows\n",
        "imports its sibling tinygpt.data.rows",
    ),
    "upward import": (
        layers.check,
        f"{SRC}/core/files.py",
        "\nfrom tinygpt import runs\n",
        "imports upwards: tinygpt.runs",
    ),
    "upward family": (
        layers.check,
        f"{SRC}/model/lm.py",
        '\nX = Family("tinygpt.peft")\n',
        "imports upwards",
    ),
    "a run imports a run": (
        layers.check,
        f"{SRC}/runs/sft.py",
        "\nfrom tinygpt.runs import pretrain\n",
        "only runs/_*.py",
    ),
    "a command imports a command": (
        layers.check,
        f"{SRC}/cli/_root.py",
        "\nfrom tinygpt.cli.start import doctor\n",
        "only cli/_*.py",
    ),
    "heavy module": (
        layers.check,
        f"{SRC}/train/loop.py",
        "\nimport numpy as np\n",
        "inside the function that needs it",
    ),
    "mlx past the backend": (
        layers.check,
        f"{SRC}/train/loop.py",
        "\nimport mlx.core as mx\n",
        "prepares it first",
    ),
    "mlx in data": (layers.check, f"{SRC}/data/pack.py", "\nfrom mlx.utils import tree_map\n", "without MLX"),
    "core beyond the standard library": (
        layers.check,
        f"{SRC}/core/rows.py",
        "\nimport rich\n",
        "only the standard library",
    ),
    "a package without a layer": (layers.check, f"{SRC}/magic/__init__.py", "import os\n", "has no layer"),
    "over-long technique": (
        budgets.check,
        f"{SRC}/train/optim/adamw.py",
        "# x\n" * 300,
        "a technique has at most 300",
    ),
    "over-long command": (
        budgets.check,
        f"{SRC}/cli/start/doctor.py",
        "# x\n" * 80,
        "a command has at most 80",
    ),
    "over-long run": (budgets.check, f"{SRC}/runs/doctor.py", "# x\n" * 150, "a run has at most 150"),
    "over-long file": (budgets.check, "scripts/docs.py", "# x\n" * 400, "a file has at most 400"),
    "vague name": (budgets.check, f"{SRC}/data/utils.py", "", "a name that says nothing"),
    "technique without a paper": (
        families.check,
        f"{SRC}/train/optim/new.py",
        "def build(): ...\n",
        "no line `Paper:`",
    ),
    "technique without its verb": (families.check, f"{SRC}/peft/new.py", "def build(): ...\n", "verb `wrap`"),
    "knob without help": (
        families.check,
        f"{SRC}/train/schedule/new.py",
        "class Config:\n    x: int = 1\n",
        "`x` has no help",
    ),
    "unknown family": (families.check, f"{SRC}/train/magic/__init__.py", "", "not in KINDS"),
    "unlisted command": (
        commands.check,
        f"{SRC}/cli/look/new.py",
        "def main(): ...\n",
        "does not list the command new",
    ),
    "command without an example": (
        commands.check,
        f"{SRC}/cli/look/new.py",
        "def main(): ...\n",
        "new.py:1: no example",
    ),
    "unlisted heading": (commands.check, f"{SRC}/cli/magic/new.py", "", "not in HEADINGS"),
    "print in the library": (hygiene.prints, f"{SRC}/train/loop.py", "\nprint(1)\n", "prints nothing"),
    "bare except": (
        hygiene.caught,
        f"{SRC}/train/loop.py",
        "\ntry:\n    x = 1\nexcept:\n    x = 2\n",
        "bare except",
    ),
    "dropped error": (
        hygiene.caught,
        f"{SRC}/train/loop.py",
        "\ntry:\n    x = 1\nexcept OSError:\n    pass\n",
        "is dropped",
    ),
    "sleep": (hygiene.sleeps, f"{SRC}/train/loop.py", "\nimport time\ntime.sleep(1)\n", "time.sleep"),
    "device": (
        hygiene.devices,
        f"{SRC}/model/count.py",
        "\nif nn.device == 'cpu':\n    pass\n",
        "asks for a device by name",
    ),
    "promise": (hygiene.promises, f"{SRC}/train/loop.py", "\n# TO" + "DO: later\n", "put it into PLAN.md"),
    "path of one machine": (
        hygiene.machines,
        "docs/design.md",
        "\nsee /ro" + "ot/x\n",
        "path of one machine",
    ),
    "package index": (hygiene.machines, "Makefile", "\npip --index" + "-url=http://x\n", "package index"),
    "private host in the lock": (
        hygiene.machines,
        "uv.lock",
        '\n"https://pypi.example/x"\n',
        "https://pypi.example",
    ),
    "unexplained skip": (
        hygiene.skips,
        "tests/test_new.py",
        "\nimport pytest\npytest.mark.skip\n",
        "does not explain",
    ),
    "PLAN row without a proof": (ledger.check, "PLAN.md", "| x | shipped | - | - | - |\n", "without a proof"),
    "PLAN row with a dead file": (
        ledger.check,
        "PLAN.md",
        "| x | shipped | `src/none.py` | - | - |\n",
        "src/none.py does not exist",
    ),
    "PLAN row with a dead test": (
        ledger.check,
        "PLAN.md",
        "| x | shipped | `PLAN.md` | `tests/house/test_house.py::test_none` | - |\n",
        "test_none does not exist",
    ),
    "PLAN row skipped without a reason": (
        ledger.check,
        "PLAN.md",
        "| x | skipped | - | - | |\n",
        "without a reason",
    ),
    "PLAN row in an unknown state": (ledger.check, "PLAN.md", "| x | done | - | - | |\n", "is none of"),
    "PLAN with a name twice": (
        ledger.check,
        "PLAN.md",
        "| `train` | to do | - | - | |\n",
        "train has 2 rows",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_is_caught(name: str, house: Path) -> None:
    rule, file, text, said = FAULTS[name]
    before = breaches(rule, house)
    with planted(house, file, text):
        new = sorted(set(rule(house)) - before)
    assert any(said in line for line in new), f"expected {said!r} in {new}"


def test_a_shipped_row_with_living_proofs_passes(house: Path) -> None:
    proof = "tests/house/test_house.py::test_rule"
    with planted(house, "PLAN.md", f"| x | shipped | `src/tinygpt/core/rows.py` | `{proof}` | |\n"):
        assert breaches(ledger.check, house) == set(ledger.check(house))


def test_a_deleted_row_is_missed(house: Path) -> None:
    text = (house / "PLAN.md").read_text(encoding="utf-8")
    kept = "".join(x for x in text.splitlines(keepends=True) if not x.startswith("| `rome`"))
    (house / "PLAN.md").write_text(kept, encoding="utf-8")
    said = ledger.check(house)
    (house / "PLAN.md").write_text(text, encoding="utf-8")
    assert any("rome has 0 rows" in line for line in said)


def test_an_allowance_needs_a_reason_and_a_need(house: Path) -> None:
    file = f"{SRC}/core/errors.py"
    said = "\n".join(budgets.check(house, {file: (500, ""), "src/gone.py": (500, "it was long")}))
    assert f"{file}: fits into 400 lines again" in said
    assert f"{file}: is in ALLOWED without a reason" in said
    assert "src/gone.py: is in ALLOWED, but does not exist" in said


def test_a_stale_page_is_caught(tmp_path: Path) -> None:
    """The generator of the copy reads the copy: change a help text there, and its docs are old."""
    house = copy(tmp_path)

    def docs(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "scripts/docs.py", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(house / "src")}
        return subprocess.run(command, cwd=house, env=environment, capture_output=True, text=True)

    assert docs().returncode == 0
    assert docs("--check").returncode == 0
    command = house / SRC / "cli/start/doctor.py"
    command.write_text(
        command.read_text(encoding="utf-8").replace("Show what", "Tell what", 1), encoding="utf-8"
    )
    result = docs("--check")
    assert result.returncode == 1
    assert "docs/cli.md:" in result.stdout and "make docs" in result.stdout
