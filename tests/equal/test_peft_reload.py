"""Every adapter, on a dense and on a 4-bit base: trained, saved, and opened in a new process, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick
from tinygpt.model import checkpoint
from tinygpt.model.lm import LM
from tinygpt.peft import _adapter
from tinygpt.peft._adapter import PEFT
from tinygpt.train.objective import next_token
from tinygpt.train.optim import adamw
from tinygpt.train.update import Gradient

# A base that has 4 bits already is made smaller by LoftQ.
KNOBS = {"loftq": {"bits": 2}}
CASES = [(name, bits) for name in PEFT.names() for bits in (0, 4)]
IDS = mx.array(nano.tokens(2, 20))
CHILD = """
import json, sys
from pathlib import Path
import numpy as np
from test_peft_reload import IDS, opened
from tinygpt.peft import _adapter
for path, base, bits in json.loads(sys.argv[1]):
    model = opened(Path(base), bits)
    _adapter.load_adapter(Path(path), model, base=Path(base))
    np.save(Path(path).with_suffix(".again.npy"), np.array(model(IDS)))
"""


def opened(base: Path, bits: int) -> LM:
    model = checkpoint.load(base).model
    if bits:
        nn.quantize(model, group_size=32, bits=bits, class_predicate=lambda _, m: isinstance(m, nn.Linear))
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All adapters, each trained for 20 steps, and what the models say here and in a new process."""
    folder = tmp_path_factory.mktemp("adapters")
    base = checkpoint.save(folder / "base", nano.model())
    for name, bits in CASES:
        model = opened(base, bits)
        pick = Pick(name, {**KNOBS.get(name, {}), "targets": ("all-linear",)})
        _adapter.attach(model, pick, seed=1)
        update = Gradient(next_token.build(model), adamw.build(adamw.Config()), lambda step: 1e-2)
        for step in range(1, 21):
            update.step(nano.batch(2, 12, seed=step), step)
        path = _adapter.save_adapter(folder / f"{name}-{bits}", model, pick, base=base)
        np.save(path.with_suffix(".npy"), np.array(model(IDS)))
    listed = json.dumps([(str(folder / f"{name}-{bits}"), str(base), bits) for name, bits in CASES])
    here = Path(__file__).resolve().parent
    path = os.pathsep.join([str(here), str(here.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, listed], env=os.environ | {"PYTHONPATH": path}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_a_new_process_gives_the_same_logits(name: str, bits: int, folder: Path) -> None:
    path = folder / f"{name}-{bits}"
    here, there = (np.load(path.with_suffix(f"{again}.npy")) for again in ("", ".again"))
    assert np.array_equal(here, there)
    untouched = np.array(opened(folder / "base", bits)(IDS))
    assert np.abs(here - untouched).max() > 0.01, "20 steps changed it"


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_fused_equals_unfused(name: str, bits: int, folder: Path) -> None:
    model = opened(folder / "base", bits)
    _adapter.load_adapter(folder / f"{name}-{bits}", model)
    beside = model(IDS)
    out = _adapter.fuse(model, dequantize=True)
    assert not _adapter.adapters(model)
    nano.close(model(IDS), beside, 1e-4)
    _adapter.unfuse(model, out)
    assert mx.array_equal(model(IDS), beside)
