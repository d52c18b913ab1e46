"""Better flags for the C++ kernels that `mx.compile` builds on CPU.

MLX calls `g++ -std=c++17 -O3` for the oldest CPU of the family, so the kernels use a quarter of the vector
width and leave exp scalar. The call goes through libc's `popen` slot of libmlx.so; that slot is pointed at
one of ours, which adds flags and the header core/jit_math.h to the command, writes to a temporary name and
renames it (two processes may build the same kernel), and passes everything else through. MLX keys its kernel
cache ($TMPDIR/mlx/VERSION/cpu) by the formula alone, so the version it sees is extended by a hash of CPU,
compiler, flags and header: kernels built for another machine or with other flags are never picked up.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import platform
import re
import shlex
from pathlib import Path

from tinygpt.core import _blas

# -ffast-math is left out on purpose: it breaks inf and NaN. These two only drop errno and trap bookkeeping.
FLAGS = "-march=native -fno-math-errno -fno-trapping-math --param vect-max-version-for-alias-checks=200"
HEADER = Path(__file__).with_name("jit_math.h")
_COMMAND = re.compile(r'^g\+\+ (.*) -o "([^"]*\.so)" 2>&1$', re.DOTALL)
_keep: list[object] = []  # ctypes callbacks must outlive the slots that point at them


def command(original: str) -> str:
    """MLX's compile command with our flags, atomic about its output; any other command unchanged."""
    match = _COMMAND.match(original)
    if match is None:
        return original
    arguments, output = match.groups()
    part = shlex.quote(f"{output}.{os.getpid()}.part")
    build = f"g++ {FLAGS} {arguments} -include {shlex.quote(str(HEADER))} -o {part} 2>&1"
    # Once more after a second: another process may just be rewriting the same source file.
    return f"{{ {build} || {{ sleep 1; {build}; }}; }} && mv -f {part} {shlex.quote(output)}"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.machine()
    return "".join(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))


def install(library: str, mlx_version: str, compiler: str) -> None:
    """Hook the JIT of the loaded `library`. Raises _blas.SlotError when its slots are not found."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.popen.restype = ctypes.c_void_p
    libc.popen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    stat = os.stat(compiler)
    key = f"{_cpu()}|{compiler}|{stat.st_size}|{stat.st_mtime_ns}|{FLAGS}|{HEADER.read_text()}"
    name = ctypes.create_string_buffer(
        f"{mlx_version}-{hashlib.sha256(key.encode()).hexdigest()[:12]}".encode()
    )

    @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p)
    def popen(line: bytes, mode: bytes) -> int | None:
        return libc.popen(os.fsencode(command(os.fsdecode(line))), mode)

    @ctypes.CFUNCTYPE(ctypes.c_void_p)
    def version() -> int:
        return ctypes.addressof(name)

    _keep.extend([popen, version, name])
    targets = {"popen": _blas.address_of(popen), "_ZN3mlx4core7versionEv": _blas.address_of(version)}
    patched = _blas.patch(library, targets)
    if len(patched.symbols) < 2:
        patched.undo()
        raise _blas.SlotError(f"{library} does not import {set(targets) - patched.symbols}")
    atexit.register(patched.undo)
