"""Give MLX on Linux a fast BLAS: point libmlx.so's own symbol slots at another library's functions.

MLX's CPU wheel for Linux is linked against reference BLAS (6 GFLOP/s in float32 on 2 cores where OpenBLAS
does 200). The calls go through the dynamic linker's table of function addresses (the "global offset table",
GOT), one eight-byte slot a symbol. `patch` finds that table in the loaded image and writes other addresses
into the slots: no file is changed, no environment variable is set, no other library is affected, and
`Patch.undo` puts the old addresses back. It works for any 64-bit ELF image with x86-64 or AArch64
relocations; anything else is refused.

Sources: System V ABI chapter 5 (dynamic linking), `man 3 dl_iterate_phdr`, `man 5 elf`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PT_DYNAMIC, _PT_GNU_RELRO = 2, 0x6474E552
_DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB, _DT_RELA, _DT_RELASZ, _DT_JMPREL = 2, 5, 6, 7, 8, 23
_SLOT_TYPES = {6, 7, 1025, 1026}  # R_X86_64_GLOB_DAT, _JUMP_SLOT, R_AARCH64_GLOB_DAT, _JUMP_SLOT
_PROT_READ, _PROT_WRITE = 1, 2

# Every BLAS and LAPACK routine libmlx.so 0.32 imports, with 32-bit integers as in the scipy-openblas32 wheel.
BLAS_SYMBOLS = [
    "cblas_sgemm",
    "cblas_dgemm",
    "cblas_cgemm",
    "sgeev_",
    "dgeev_",
    "cgeev_",
    "sgesdd_",
    "dgesdd_",
    "cgesdd_",
    "ssyevd_",
    "dsyevd_",
    "cheevd_",
    "sgeqrf_",
    "dgeqrf_",
    "sorgqr_",
    "dorgqr_",
    "sgetrf_",
    "dgetrf_",
    "sgetri_",
    "dgetri_",
    "spotrf_",
    "dpotrf_",
    "strtri_",
    "dtrtri_",
]


class SlotError(RuntimeError):
    """The image or library is not of the shape this module knows; the message says what was missing."""


class _Info(ctypes.Structure):
    _fields_ = [
        ("addr", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("phdr", ctypes.c_uint64),
        ("phnum", ctypes.c_uint16),
    ]


def _image(stem: str) -> tuple[int, list[tuple[int, int, int, int]], str]:
    """Load address, program headers (type, vaddr, memsz, flags) and path of the loaded library `stem`."""
    found: list[tuple[int, list[tuple[int, int, int, int]], str]] = []

    def visit(info: Any, _size: int, _data: object) -> int:
        name = os.fsdecode(info.contents.name or b"")
        if Path(name).name == stem:
            raw = ctypes.string_at(info.contents.phdr, 56 * info.contents.phnum)
            headers = [(p[0], p[3], p[6], p[1]) for p in struct.iter_unpack("=IIQQQQQQ", raw)]
            found.append((info.contents.addr, headers, name))
        return 0

    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Info), ctypes.c_size_t, ctypes.c_void_p)(visit)
    ctypes.CDLL(None).dl_iterate_phdr(callback, None)
    if len(found) != 1:
        raise SlotError(f"{len(found)} loaded images are called {stem}, expected one")
    return found[0]


@dataclass(frozen=True)
class Patch:
    """Slots that were changed, as (address of the slot, value before, value after, page is read-only)."""

    slots: tuple[tuple[int, int, int, bool], ...]
    symbols: frozenset[str]

    def undo(self) -> None:
        """Write the addresses from before back."""
        for address, before, _after, readonly in self.slots:
            _write(address, before, readonly)


def _write(address: int, value: int, readonly: bool) -> None:
    """Store one eight-byte address; RELRO pages are opened for it and closed again."""
    page = os.sysconf("SC_PAGE_SIZE")
    start = address & ~(page - 1)
    libc = ctypes.CDLL(None, use_errno=True)
    protect = [ctypes.c_void_p(start), ctypes.c_size_t(page)]
    if readonly and libc.mprotect(*protect, _PROT_READ | _PROT_WRITE) != 0:
        raise SlotError(f"mprotect refused to open the symbol table page (errno {ctypes.get_errno()})")
    ctypes.c_uint64.from_address(address).value = value
    if readonly:
        libc.mprotect(*protect, _PROT_READ)


def patch(stem: str, targets: Mapping[str, int]) -> Patch:
    """Point the slots of the loaded library `stem` at `targets` (symbol -> address of the new function).

    Symbols the library does not import are left out of the result; finding none raises SlotError.
    """
    base, headers, _path = _image(stem)
    dynamic = next((vaddr for kind, vaddr, _size, _flags in headers if kind == _PT_DYNAMIC), None)
    if dynamic is None:
        raise SlotError(f"{stem} has no dynamic section")
    relro = [(base + v, base + v + size) for kind, v, size, _ in headers if kind == _PT_GNU_RELRO]
    tags: dict[int, int] = {}
    at = base + dynamic
    while tag := ctypes.c_int64.from_address(at).value:
        tags[tag] = ctypes.c_uint64.from_address(at + 8).value
        at += 16

    def address(tag: int) -> int:  # glibc stores absolute addresses here, musl leaves them relative
        value = tags.get(tag, 0)
        return value + base if 0 < value < base else value

    strings, symbols = address(_DT_STRTAB), address(_DT_SYMTAB)
    if not strings or not symbols:
        raise SlotError(f"{stem} has no symbol table")
    wanted = {name.encode(): value for name, value in targets.items()}
    changed: list[tuple[int, int, int, bool]] = []
    names: set[str] = set()
    for table, size in ((_DT_JMPREL, _DT_PLTRELSZ), (_DT_RELA, _DT_RELASZ)):
        if not address(table):
            continue
        raw = ctypes.string_at(address(table), tags.get(size, 0))
        for offset, info, _addend in struct.iter_unpack("=QQq", raw):
            if info & 0xFFFFFFFF not in _SLOT_TYPES:
                continue
            entry = ctypes.c_uint32.from_address(symbols + 24 * (info >> 32)).value
            name = ctypes.string_at(strings + entry)
            if name in wanted:
                slot = base + offset
                before = ctypes.c_uint64.from_address(slot).value
                readonly = any(low <= slot < high for low, high in relro)
                changed.append((slot, before, wanted[name], readonly))
                names.add(name.decode())
    if not changed:
        raise SlotError(f"{stem} imports none of {', '.join(sorted(targets)[:3])} …")
    for slot, _before, after, readonly in changed:
        _write(slot, after, readonly)
    return Patch(tuple(changed), frozenset(names))


def address_of(function: object) -> int:
    """The address of a ctypes function or callback."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]


def owner_of(stem: str, symbol: str) -> str:
    """File name of the library whose `symbol` the loaded library `stem` would call ("" when unknown)."""

    class DlInfo(ctypes.Structure):
        _fields_ = [
            ("path", ctypes.c_char_p),
            ("base", ctypes.c_void_p),
            ("name", ctypes.c_char_p),
            ("address", ctypes.c_void_p),
        ]

    info = DlInfo()
    function = getattr(ctypes.CDLL(_image(stem)[2]), symbol, None)
    if function is None or not ctypes.CDLL(None).dladdr(
        ctypes.cast(function, ctypes.c_void_p), ctypes.byref(info)
    ):
        return ""
    return Path(os.fsdecode(info.path or b"")).name


@dataclass(frozen=True)
class Blas:
    """A loaded BLAS: its path, its name, the addresses of its routines, and a switch for its threads."""

    path: str
    name: str
    routines: dict[str, int]
    set_threads: Callable[[int], None] | None


def wheel_path() -> Path | None:
    """The OpenBLAS in the scipy-openblas32 wheel, found without importing the package."""
    spec = importlib.util.find_spec("scipy_openblas32")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted((Path(folder) / "lib").glob("libscipy_openblas*.so*")):
            return file
    return None


def load(path: str) -> Blas:
    """Open the BLAS at `path`; its symbols may carry scipy's prefix. Without cblas_sgemm: SlotError."""
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise SlotError(f"cannot load BLAS {path}: {error}") from error
    prefix = "scipy_" if hasattr(library, "scipy_cblas_sgemm") else ""
    routines = {
        symbol: address_of(getattr(library, prefix + symbol))
        for symbol in BLAS_SYMBOLS
        if hasattr(library, prefix + symbol)
    }
    if "cblas_sgemm" not in routines:
        raise SlotError(f"{path} has no cblas_sgemm (a 64-bit-integer build is not usable here)")
    name = Path(path).name
    if hasattr(library, prefix + "openblas_get_config"):
        config = getattr(library, prefix + "openblas_get_config")
        config.restype = ctypes.c_char_p
        name = " ".join((config() or b"OpenBLAS").decode().split()[:2])
    setter = next(
        (
            getattr(library, s)
            for s in (prefix + "openblas_set_num_threads", "MKL_Set_Num_Threads")
            if hasattr(library, s)
        ),
        None,
    )
    return Blas(path, name, routines, setter)
