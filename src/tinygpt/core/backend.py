"""The one place that knows which device MLX runs on, and that makes its CPU back end fast.

Every module imports MLX from here (`from tinygpt.core.backend import mx, nn`), so that the preparation in
`setup` has happened before the first array is made. Metal and CUDA need none of it. On Linux CPUs four
things cost most, and each has its cure, undone or skipped without harm when it fails (`Backend.notes` then
says so):

- products run on reference BLAS: an OpenBLAS wheel is put in its place (core/_blas.py), 6 -> 200 GFLOP/s;
- fused kernels are built for the oldest CPU of the family, with a scalar exp: the compiler call gets better
  flags and a vector-friendly exp and tanh (core/_jit.py, core/jit_math.h), 11 -> 0.5 ns an exp; model/ops.py
  builds on it;
- everything but products runs on one thread: `streams` gives one CPU stream a core for shards of a batch;
- freed buffers go back to the kernel and are faulted in again: the heap is kept, and in huge pages
  (`_keep_heap`).

Environment: TINYGPT_BLAS=reference|/path/to/libblas.so, TINYGPT_DEVICE=cpu, OPENBLAS_NUM_THREADS,
OMP_NUM_THREADS.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from tinygpt.core import _blas, _jit, resident

if TYPE_CHECKING:
    from mlx import nn as nn

_LIBRARY = "libmlx.so"
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Backend:
    """What MLX computes with here."""

    device: str
    """ "metal", "cuda" or "cpu"."""
    default_dtype: str
    """Name of the mx dtype to compute in: "bfloat16" on GPUs, "float32" on CPUs (bf16 is slow there)."""
    blas: str
    """Name of the BLAS in use, "reference", or "none needed" on GPUs and Apple's Accelerate."""
    threads: int
    """Threads a float32 product uses."""
    compiler: str | None
    """Path of the C++ compiler mx.compile uses on CPU; None when there is none or none is needed."""
    notes: tuple[str, ...]
    """What was tried and failed, one line each, with what to do."""
    stock: bool = False
    """TINYGPT_BLAS=reference was set: MLX exactly as installed, the base line of scripts/bench_step.py."""


_state: dict[str, Any] = {"backend": None, "compile_works": None, "set_threads": None}
_local = threading.local()


def __getattr__(name: str) -> Any:
    """`nn` on demand: importing mlx.nn costs 16 ms that --help does not need."""
    if name == "nn":
        import mlx.nn

        globals()["nn"] = mlx.nn
        return mlx.nn
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def setup() -> Backend:
    """Prepare MLX once and say what was found. Idempotent; importing this module calls it."""
    if _state["backend"] is None:
        _state["backend"] = _prepare()
    return _state["backend"]


def on_cpu() -> bool:
    """Whether MLX computes on a CPU. Outside of this file no one asks for a device by its name."""
    return setup().device == "cpu"


def has_cpu_forms() -> bool:
    """Whether float32 operators that MLX runs slowly on a CPU are put differently (model/ops.py)."""
    return on_cpu() and not setup().stock


def _prepare() -> Backend:
    notes: list[str] = []
    wanted = os.environ.get("TINYGPT_DEVICE", "")
    if wanted not in ("", "cpu", "gpu"):
        notes.append(f"TINYGPT_DEVICE={wanted} is not known: use cpu or leave it unset")
    if wanted == "cpu":
        mx.set_default_device(mx.cpu)
    device = "cpu"
    if mx.default_device().type == mx.DeviceType.gpu:
        device = "metal" if mx.metal.is_available() else "cuda"
        if device == "metal":
            _wire_memory(notes)
        return Backend(device, "bfloat16", "none needed", 0, None, tuple(notes))
    if sys.platform == "darwin":
        return Backend(device, "float32", "none needed", 0, shutil.which("g++"), tuple(notes))
    threads = _threads()
    if os.environ.get("TINYGPT_BLAS") == "reference":
        return Backend(device, "float32", "reference", threads, shutil.which("g++"), tuple(notes), stock=True)
    # MLX orders a graph breadth-first up to this width (default 20, read at the first eval), and shards of
    # a batch only overlap when their operators alternate in that order. Costs 7% memory.
    os.environ.setdefault("MLX_BFS_MAX_WIDTH", "1000")
    _keep_heap()
    blas = _fast_blas(threads, notes)
    compiler = shutil.which("g++")
    if compiler is None:
        notes.append("no C++ compiler (g++) found: operators run unfused, 2-4x slower; install g++")
    else:
        try:
            _jit.install(_LIBRARY, str(vars(mx)["__version__"]), compiler)
        except (_blas.SlotError, OSError) as error:
            notes.append(f"fused operators keep MLX's own compiler flags, 2-10x slower: {error}")
    return Backend(device, "float32", blas, threads, compiler, tuple(notes))


def _threads() -> int:
    """Threads to use: what the user said, else the CPUs of this process, capped by the cgroup's quota."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "").split(",")[0]
        if value.isdigit() and int(value) > 0:
            return int(value)
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.exists():
        limit, _, period = quota.read_text().partition(" ")
        if limit.isdigit():
            count = min(count, max(1, round(int(limit) / int(period or 100000))))
    return count


def _keep_heap() -> None:
    """Make glibc keep freed memory, in huge pages where the kernel allows: 5-17% of a training step.

    Without this every array above 32 MiB is mapped, faulted in page by page, and unmapped again. The heap is
    grown once to half of the machine's memory, marked for huge pages and freed: only touched pages are ever
    resident. Skipped without harm where libc is not glibc or refuses the size.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return
    m_trim_threshold, m_mmap_max, m_arena_max, madv_hugepage = -1, -4, -8, 14
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, -1)
    libc.mallopt(m_arena_max, 1)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size, huge = _memory_bytes() // 2, 2 << 20
    if block := libc.malloc(size):
        start = (block + huge - 1) & ~(huge - 1)
        libc.madvise(start, (block + size - start) & ~(huge - 1), madv_hugepage)
        libc.free(block)


def _wire_memory(notes: list[str]) -> None:
    """Let MLX wire as much memory as Metal recommends, so that weights stay resident; macOS before 15
    cannot."""
    try:
        mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))
    except (KeyError, RuntimeError, ValueError) as error:
        notes.append(f"weights may leave memory under pressure, which is slower: {error}")


def memory() -> int:
    """Bytes that arrays can take: on CUDA they may lie in the GPU's memory and in the machine's."""
    found = _memory_bytes()
    if setup().device == "cuda":
        found += int(mx.device_info().get("total_memory", 1 << 62))  # not said: nothing is refused
    return found


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _fast_blas(threads: int, notes: list[str]) -> str:
    """Put a fast BLAS under libmlx.so and check it; returns its name, or "reference" with a note.

    One that TINYGPT_BLAS names and that cannot be used is told, and the usual one serves."""
    choice = os.environ.get("TINYGPT_BLAS", "")
    if choice:
        try:
            _blas.load(choice)
        except _blas.SlotError as error:
            notes.append(
                f"TINYGPT_BLAS is left aside: {error}; unset it, or give the path of a libopenblas.so, or "
                "'reference' for MLX's own"
            )
            choice = ""
    try:
        owner = _blas.owner_of(_LIBRARY, "cblas_sgemm")
        if not choice and any(name in owner.lower() for name in ("openblas", "mkl", "blis", "armpl")):
            return owner  # this MLX was built against a fast one
        path = choice or str(_blas.wheel_path() or "libopenblas.so.0")
        library = _blas.load(path)
        patched = _blas.patch(_LIBRARY, library.routines)
    except _blas.SlotError as error:
        notes.append(
            f"float32 products run 30x slower on reference BLAS: {error}; pip install scipy-openblas32"
        )
        return "reference"
    if library.set_threads is not None:
        library.set_threads(threads)
        _state["set_threads"] = library.set_threads
    if not _product_is_right():
        patched.undo()
        notes.append(
            f"{library.name} gave a wrong product and was taken out; set TINYGPT_BLAS=/path/to/libopenblas.so"
        )
        return "reference"
    return library.name


def _product_is_right() -> bool:
    """A product of small integers, exact in float32, against sums of elementwise products (no BLAS)."""
    a = (mx.arange(7 * 5).reshape(7, 5) % 11 - 3).astype(mx.float32)
    b = (mx.arange(5 * 9).reshape(9, 5) % 7 - 2).astype(mx.float32)
    return bool(mx.array_equal(a @ b.T, (a[:, None, :] * b[None, :, :]).sum(axis=-1)).item())


def streams(n_rows: int) -> tuple[mx.Stream, ...]:
    """Streams to spread a batch of `n_rows` rows over: on CPU one a core, elsewhere the default one.

    MLX runs the operators of one CPU stream on one thread; only products use more. Shards on several streams
    use the cores fully, 1.3-1.4x a training step on 2 cores. Rows go to streams in a fixed way, so results
    repeat exactly on machines with as many cores. Inside or outside of a compiled function:

        streams = backend.streams(len(rows))
        with backend.shards(streams):  # while it runs, each product keeps to its stream's core
            for i, stream in enumerate(streams):
                with mx.stream(stream):
                    sums.append(loss_and_grads(rows[i :: len(streams)]))
            mx.eval(sums)

    Streams belong to the thread that asks. They are made once and reused.
    """
    if setup().device != "cpu" or sys.platform == "darwin" or setup().stock:
        return (mx.default_stream(mx.default_device()),)
    own: list[mx.Stream] = _local.__dict__.setdefault("streams", [mx.default_stream(mx.cpu)])
    n = max(1, min(n_rows, setup().threads))
    while len(own) < n:
        own.append(mx.new_stream(mx.cpu))
    return tuple(own[:n])


@contextlib.contextmanager
def shards(streams: tuple[mx.Stream, ...]) -> Generator[None]:
    """Within, a product uses threads / len(streams) threads. Evaluate inside: it holds for what runs now."""
    limit_products(0 if len(streams) < 2 else max(1, setup().threads // len(streams)))
    try:
        yield
    finally:
        limit_products(0)


def limit_products(n: int) -> None:
    """From here on a product uses n threads at most; 0: as many as there are. It holds for what runs now."""
    switch, threads = _state["set_threads"], setup().threads
    if switch is not None:
        switch(min(n, threads) or threads)


def compile(fn: Callable[..., Any], *, max_traces: int | None = None, **options: Any) -> Callable[..., Any]:
    """`mx.compile` where it can work (GPU, or CPU with a C++ compiler that builds a trial kernel), else `fn`
    itself.

    The choice is made at the first call, so that decorating at import time costs nothing. MLX keeps a trace
    for every shape it has met, for ever; with `max_traces` all are dropped when arguments of one more shape
    than that arrive (arguments must then be arrays, passed by position).
    """
    chosen: list[Callable[..., Any]] = []
    seen: set[tuple[Any, ...]] = set()

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if max_traces is not None and chosen:
            seen.add(tuple((x.dtype, *x.shape) for x in args))
            if len(seen) > max_traces:
                seen.clear()
                chosen.clear()
        if not chosen:
            chosen.append(mx.compile(fn, **options) if compile_works() else fn)
        return chosen[0](*args, **kwargs)

    return call


def compile_works() -> bool:
    """Whether `mx.compile` can build kernels: on a GPU, or with a C++ compiler that builds a trial one."""
    if _state["compile_works"] is None:
        backend = setup()
        works = backend.device != "cpu" or sys.platform == "darwin" or backend.compiler is not None
        if works and backend.device == "cpu":
            try:
                mx.eval(mx.compile(lambda x: x * x + x)(mx.ones((3,))))
            except RuntimeError as error:  # MLX reports the compiler's own output
                works = False
                line = " ".join(str(error).split())[-200:]
                note = f"the C++ compiler {backend.compiler} does not work, operators run unfused: {line}"
                _state["backend"] = replace(backend, compiler=None, notes=(*backend.notes, note))
        _state["compile_works"] = works
    return _state["compile_works"]


def memory_peak() -> int:
    """Most bytes held so far: MLX's own count on a GPU, the resident set of the process on a CPU."""
    if setup().device != "cpu":
        return mx.get_peak_memory()
    return resident.peak()


def nvidia_driver() -> str | None:
    """Version of the NVIDIA driver here, "" when it does not say, None where there is none."""
    if _DRIVER.is_file():
        found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", _DRIVER.read_text(errors="replace"))
        return found.group() if found else ""
    return "" if shutil.which("nvidia-smi") else None


def compute_dtype(wanted: str) -> str:
    """Name of the dtype to compute in; "auto" is the device's best."""
    return setup().default_dtype if wanted == "auto" else wanted


def measure_gflops(n: int = 0, repeats: int = 5, dtype: str = "float32") -> float:
    """GFLOP/s of an n x n x n product, best of `repeats`; 0: 1024 on a CPU, 4096 on a GPU, which smaller ones
    do not fill. Its draws are keyed: it changes no one else's."""
    n = n or (1024 if setup().device == "cpu" else 4096)
    a, b = (mx.random.normal((n, n), key=mx.random.key(i)).astype(getattr(mx, dtype)) for i in (0, 1))
    mx.eval(a, b, a @ b)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        mx.eval(a @ b)
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best / 1e9


def describe(measure: bool = False) -> dict[str, Any]:
    """Facts for `tinygpt doctor`; `measure` adds a timed float32 product (`measure_gflops`; about 0.1 s)."""
    from importlib.metadata import version  # 20 ms, and only doctor asks

    backend = setup()
    huge = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    facts: dict[str, Any] = {
        "mlx": version("mlx"),
        "device": backend.device,
        "nvidia_driver": nvidia_driver(),
        "dtype": backend.default_dtype,
        "blas": backend.blas,
        "threads": backend.threads,
        "compiler": backend.compiler,
        "huge_pages": huge.read_text().partition("[")[2].partition("]")[0] if huge.exists() else None,
        "memory_bytes": _memory_bytes(),
        "notes": list(backend.notes),
    }
    if measure:
        facts["gflops_float32"] = round(measure_gflops(), 1)
    return facts


setup()
