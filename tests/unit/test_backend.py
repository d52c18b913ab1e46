"""The back end: BLAS, compiler flags, threads, streams, and what happens when a piece is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tinygpt.core import _blas, _jit, backend
from tinygpt.core.backend import mx

linux = pytest.mark.skipif(backend.setup().blas == "none needed", reason="only Linux CPUs are patched")


def child(code: str, **env: str) -> Any:
    """Run `code` in a fresh process; it leaves what is to be returned in `out`."""
    program = f"import json\n{code}\nprint(json.dumps(out))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_setup_is_idempotent_and_frozen() -> None:
    first = backend.setup()
    assert backend.setup() is first
    assert first.device in ("metal", "cuda", "cpu")
    assert getattr(mx, first.default_dtype) in (mx.bfloat16, mx.float32)
    with pytest.raises(AttributeError):
        first.device = "tpu"  # type: ignore[misc]


def test_describe_is_json_and_measures_only_when_asked() -> None:
    assert "gflops_float32" not in backend.describe()
    facts = json.loads(json.dumps(backend.describe(measure=True)))
    assert facts["gflops_float32"] > 0 and facts["memory_bytes"] > 0 and facts["mlx"]


@linux
def test_the_wheel_blas_is_in_use_and_right() -> None:
    assert backend.setup().notes == ()
    assert "OpenBLAS" in backend.setup().blas or "blas" in backend.setup().blas
    a, b = mx.random.normal((33, 65)), mx.random.normal((65, 17))
    want = (a[:, :, None] * b[None]).sum(axis=1)
    for left, right in ((a, b), (mx.contiguous(a.T).T, b), (a, mx.contiguous(b.T).T)):
        assert mx.allclose(left @ right, want, atol=1e-4).item()


@linux
def test_lapack_goes_through_the_patched_symbols() -> None:
    a = mx.random.normal((12, 12), key=mx.random.key(0))
    spd = a @ a.T + 12 * mx.eye(12)
    u, s, vt = mx.linalg.svd(a, stream=mx.cpu)
    assert mx.allclose((u * s) @ vt, a, atol=1e-4).item()
    q, r = mx.linalg.qr(a, stream=mx.cpu)
    assert mx.allclose(q @ r, a, atol=1e-4).item()
    assert mx.allclose(mx.linalg.inv(spd, stream=mx.cpu) @ spd, mx.eye(12), atol=1e-4).item()
    low = mx.linalg.cholesky(spd, stream=mx.cpu)
    assert mx.allclose(low @ low.T, spd, atol=1e-3).item()
    values, vectors = mx.linalg.eigh(spd, stream=mx.cpu)
    assert mx.allclose((vectors * values) @ vectors.T, spd, atol=1e-3).item()


@linux
def test_reference_leaves_stock_mlx_alone() -> None:
    code = """
import mlx.core as m
before = m.get_cache_memory()
from tinygpt.core import backend
out = [backend.setup().blas, list(backend.setup().notes), (m.ones((3, 4)) @ m.ones((4, 2))).tolist()]
"""
    blas, notes, product = child(code, TINYGPT_BLAS="reference")
    assert (blas, notes, product) == ("reference", [], [[4.0, 4.0]] * 3)


@linux
@pytest.mark.parametrize("name", ["bogus", "/nowhere/libblas.so", "libc.so.6"])
def test_a_blas_that_is_asked_for_and_cannot_be_used_is_told(name) -> None:
    """And the one that serves otherwise serves."""
    code = "from tinygpt.core.backend import setup\nout = [setup().blas, list(setup().notes)]"
    blas, notes = child(code, TINYGPT_BLAS=name)
    assert blas == backend.setup().blas and len(notes) == 1
    assert notes[0].startswith("TINYGPT_BLAS is left aside: ") and name in notes[0]
    assert "unset it" in notes[0] and "pip install" not in notes[0]


@linux
def test_without_any_fast_blas_stock_mlx_works() -> None:
    code = """
from pathlib import Path
from tinygpt.core import _blas
_blas.wheel_path = lambda: Path("/nowhere/libblas.so")
from tinygpt.core.backend import mx, setup
out = [setup().blas, list(setup().notes), (mx.ones((3, 4)) @ mx.ones((4, 2))).tolist()]
"""
    blas, notes, product = child(code)
    assert blas == "reference" and len(notes) == 1 and "scipy-openblas32" in notes[0]
    assert product == [[4.0, 4.0]] * 3


def test_the_nvidia_driver(tmp_path, monkeypatch) -> None:
    file = tmp_path / "version"
    monkeypatch.setattr(backend, "_DRIVER", file)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert backend.nvidia_driver() is None
    (tmp_path / "nvidia-smi").touch(mode=0o755)
    assert backend.nvidia_driver() == ""
    for line in ("NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024",
                 "NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build"):  # fmt: skip
        file.write_text(f"NVRM version: {line}\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n")
        assert backend.nvidia_driver() in ("550.54.15", "580.65.06")
        assert backend.nvidia_driver() in line


@linux
def test_a_wrong_blas_is_taken_out_again() -> None:
    code = """
import ctypes
from tinygpt.core import _blas
real = _blas.load
def idle(path):  # a product that does nothing
    blas = real(path)
    blas.routines["cblas_sgemm"] = _blas.address_of(ctypes.CDLL(None).getpid)
    return blas
_blas.load = idle
from tinygpt.core.backend import mx, setup
out = [setup().blas, list(setup().notes), (mx.ones((3, 4)) @ mx.ones((4, 2))).tolist()]
"""
    blas, notes, product = child(code)
    assert blas == "reference" and "wrong product" in notes[0]
    assert product == [[4.0, 4.0]] * 3


@linux
def test_without_a_compiler_functions_run_as_they_are(tmp_path) -> None:
    code = """
from tinygpt.core import backend
from tinygpt.core.backend import mx
f = backend.compile(lambda x: mx.exp(x * 2.0) + 1)
out = [backend.setup().compiler, list(backend.setup().notes), f(mx.zeros((2,))).tolist()]
"""
    compiler, notes, value = child(code, PATH=str(tmp_path))
    assert compiler is None and "g++" in notes[0] and value == [2.0, 2.0]


def test_compile_drops_traces_beyond_the_limit() -> None:
    calls = []

    def double(x):
        calls.append(x.shape)
        return x * 2 + 1

    f = backend.compile(double, max_traces=2)
    for n in (1, 2, 1, 2, 3, 1):
        assert f(mx.ones((n,))).tolist() == [3.0] * n
    if backend.setup().device != "cpu" or backend.setup().compiler:
        assert calls == [(1,), (2,), (3,), (1,)]


def test_only_the_jit_command_of_mlx_is_changed() -> None:
    ours = _jit.command('g++ -std=c++17 -O3 -Wall -fPIC -shared  "/t m/p/a.cpp" -o "/t m/p/liba.so" 2>&1')
    assert (
        "-march=native" in ours
        and str(_jit.HEADER) in ours
        and "'/t m/p/liba.so'" in ours
        and " mv -f " in ours
    )
    for other in ("ls -l", "g++ --version", 'clang -c "a.c" -o "a.o" 2>&1'):
        assert _jit.command(other) == other


@linux
def test_patch_refuses_what_it_does_not_know() -> None:
    with pytest.raises(_blas.SlotError, match="loaded images"):
        _blas.patch("libnothere.so", {"cblas_sgemm": 1})
    with pytest.raises(_blas.SlotError, match="imports none"):
        _blas.patch("libmlx.so", {"no_such_symbol": 1})


@linux
@pytest.mark.parametrize("name", ["OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"])
def test_thread_count_from_the_environment(name, monkeypatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv(name, "1")
    assert backend._threads() == 1
    monkeypatch.setenv(name, "many")
    assert backend._threads() >= 1


def test_streams_give_the_same_sums_as_one() -> None:
    x, w = (
        mx.random.normal((4, 50, 16), key=mx.random.key(0)),
        mx.random.normal((16, 16), key=mx.random.key(1)),
    )

    def grad(rows, w):
        return mx.grad(lambda w: mx.tanh(rows @ w * 0.3).sum())(w)

    def sharded(x, w):
        parts = []
        for i, stream in enumerate(streams):
            with mx.stream(stream):
                parts.append(grad(x[i :: len(streams)], w))
        return sum(parts[1:], parts[0])

    streams = backend.streams(len(x))
    assert 1 <= len(streams) <= 4 and backend.streams(1) == streams[:1] and backend.streams(4) == streams
    with backend.shards(streams):
        first, again, compiled = sharded(x, w), sharded(x, w), backend.compile(sharded)(x, w)
        mx.eval(first, again, compiled)
    assert mx.array_equal(first, again).item()
    assert mx.allclose(first, grad(x, w), atol=1e-4).item() and mx.allclose(first, compiled, atol=1e-4).item()


def test_the_peak_of_memory_is_in_bytes() -> None:
    x = mx.ones((1 << 24,), mx.float32)
    mx.eval(x)
    assert x.nbytes <= backend.memory_peak() < 1 << 36, "neither kilobytes nor bytes taken for them"


def test_metal_wires_what_it_recommends(monkeypatch) -> None:
    wired: list[int] = []
    gpu = mx.DeviceType.gpu
    metal = SimpleNamespace(
        default_device=lambda: SimpleNamespace(type=gpu), DeviceType=mx.DeviceType,
        metal=SimpleNamespace(is_available=lambda: True), set_wired_limit=wired.append,
        device_info=lambda: {"max_recommended_working_set_size": 12.0},
    )  # fmt: skip
    monkeypatch.delenv("TINYGPT_DEVICE", raising=False)
    monkeypatch.setattr(backend, "mx", metal)
    found = backend._prepare()
    assert (found.device, found.default_dtype, found.notes, wired) == ("metal", "bfloat16", (), [12])
    metal.device_info = dict
    assert "weights may leave memory" in backend._prepare().notes[0]
