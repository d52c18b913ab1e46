"""AWQ and GPTQ files as MLX's packed form: the same integers in another order, nothing is rounded.

Both hold integers q with a scale s and an integer zero point z a group, `w = s (q - z)`. MLX's affine form is
`w = scale q + bias`, so scale = s and bias = -s z; both are kept in float32, where the product of a half
precision scale and a small integer is exact. What differs is where a number lies:

    GPTQ  qweight (in b/32, out): numbers of a column follow one another downwards, b bits each
          qzeros (groups, out b/32): along the row; version 1 stores z - 1
    AWQ   qweight (in, out/8), qzeros (groups, out/8): 4 bits, along the row, and the eight numbers of a word
          are those of the columns 0, 2, 4, 6, 1, 3, 5, 7
    MLX   weight (out, in b/32): numbers of a row follow one another, b bits each

Paper: Frantar et al., ICLR 2023, arXiv:2210.17323 (GPTQ); Lin et al., MLSys 2024, arXiv:2306.00978 (AWQ).
Differs: groups that are a multiple of 32, 64 or 128 weights are cut into such groups with the same scale; act
order (g_idx out of sequence), where neighbours have scales of different groups, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tinygpt.core.backend import mx
from tinygpt.core.errors import CheckpointError
from tinygpt.model.quantized import KEYS, MODES, Packing, declared

AWQ_COLUMNS = (0, 2, 4, 6, 1, 3, 5, 7)
METHODS = ("awq", "gptq")
WORD = 32
DENSE = "give the dense model, and pack it with --qlora"
Tensors = dict[str, mx.array]


def method(data: Mapping[str, Any]) -> str:
    """The quant_method that a config.json names; empty for none and for MLX's own form."""
    table = data.get(KEYS[1])
    named = table.get("quant_method") if isinstance(table, Mapping) and not data.get(KEYS[0]) else None
    return str(named) if named else ""


def packed_as_ours(
    tensors: Mapping[str, mx.array], data: Mapping[str, Any], where: str
) -> tuple[Tensors, Packing | None, dict[str, Packing | None]]:
    """(tensors in MLX's form, their usual packing, that of single matrices), by what config.json says."""
    kind = method(data)
    if not kind:
        return dict(tensors), *declared(data, where)
    if kind not in METHODS:
        raise CheckpointError(f"{where}: quant_method '{kind}' is not one this build opens", hint=DENSE)
    table = data[KEYS[1]]
    bits = table.get("bits", 4)
    allowed = (4,) if kind == "awq" else (2, 3, 4, 8)
    if bits not in allowed:
        few = ", ".join(map(str, allowed))
        raise CheckpointError(f"{where}: {kind} with {bits!r} bits; {few} can be read", hint=DENSE)
    layout = str(table.get("version") or table.get("checkpoint_format") or "gemm").lower()
    if kind == "awq" and layout != "gemm":
        raise CheckpointError(f"{where}: AWQ's layout '{layout}' cannot be read, 'gemm' can", hint=DENSE)
    if kind == "gptq" and layout not in ("gemm", "gptq", "gptq_v2"):
        raise CheckpointError(f"{where}: GPTQ's layout '{layout}' cannot be read", hint=DENSE)
    # Version 1 stores the zero point minus 1, in as many bits: 0 lies there as all ones.
    less = 0 if kind == "awq" or layout == "gptq_v2" else 1
    read = _awq if kind == "awq" else _gptq
    return _repacked(tensors, read, bits, less, where)


def _repacked(
    tensors: Mapping[str, mx.array], read: Callable[..., Any], bits: int, less: int, where: str
) -> tuple[Tensors, Packing | None, dict[str, Packing | None]]:
    left, done, found = dict(tensors), Tensors(), dict[str, Packing | None]()
    del tensors
    for whole in [name for name in left if name.endswith(".qweight")]:
        name = whole.removesuffix(".qweight")
        try:
            words, scales = left.pop(whole), left.pop(f"{name}.scales").astype(mx.float32)
            zeros = left.pop(f"{name}.qzeros", None)
        except KeyError as error:
            raise CheckpointError(f"{where} lacks the tensor {error.args[0]}", hint=DENSE) from error
        order = left.pop(f"{name}.g_idx", None)
        groups, n_out = scales.shape
        q_OI = read(words, bits)
        n_in = q_OI.shape[1]
        if q_OI.shape[0] != n_out or n_in % groups:
            raise CheckpointError(f"{where}: the parts of {name} have sizes that do not fit", hint=DENSE)
        size = n_in // groups
        _refuse_order(order, size, f"{where}: {name}")
        inner = next((s for s in (128, 64, 32) if size % s == 0), None)
        if inner is None:
            some = ", ".join(map(str, sorted(MODES["affine"][0])))
            raise CheckpointError(f"{where}: {name} has groups of {size}; {some} can be read", hint=DENSE)
        middle = mx.full(scales.shape, 1 << (bits - 1), mx.uint32)
        z_GO = middle if zeros is None else (_rows(zeros, bits, read) + less) & ((1 << bits) - 1)
        biases = -scales * z_GO.astype(mx.float32)
        made = {
            f"{name}.weight": pack(q_OI, bits),
            f"{name}.scales": mx.repeat(scales.T, size // inner, axis=1),
            f"{name}.biases": mx.repeat(biases.T, size // inner, axis=1),
        }
        mx.eval(made)  # one matrix after the other: its integers take 32 bits each on the way
        done |= {n: mx.contiguous(t) for n, t in made.items()}
        found[name] = Packing(bits=bits, group_size=inner)
    usual = next(iter(found.values()), None)
    return left | done, usual, found


def _refuse_order(order: mx.array | None, size: int, where: str) -> None:
    if order is not None and not mx.array_equal(order, mx.arange(order.size) // size).item():
        raise CheckpointError(
            f"{where} was quantized in act order (desc_act): its groups are scattered over the row",
            hint=f"{DENSE}, or use a version of it without act order",
        )


def _gptq(words: mx.array, bits: int) -> mx.array:
    """(out, in) integers of GPTQ's qweight (in b/32, out)."""
    return unpack(words.T, bits)


def _awq(words: mx.array, bits: int) -> mx.array:
    """(out, in) integers of AWQ's qweight (in, out/8)."""
    return _awq_rows(words, bits).T


def _awq_rows(words: mx.array, bits: int) -> mx.array:
    found = unpack(words, bits).reshape(words.shape[0], -1, len(AWQ_COLUMNS))
    back = sorted(range(len(AWQ_COLUMNS)), key=AWQ_COLUMNS.__getitem__)
    return found[:, :, mx.array(back)].reshape(words.shape[0], -1)


def _rows(zeros: mx.array, bits: int, read: Callable[..., Any]) -> mx.array:
    """(groups, out) integers of qzeros."""
    return _awq_rows(zeros, bits) if read is _awq else unpack(zeros, bits)


def unpack(words: mx.array, bits: int) -> mx.array:
    """(R, n) integers of `bits` bits that follow one another in words (R, n bits/32), lowest bits first."""
    words = words.astype(mx.uint32).reshape(words.shape[0], -1, bits)  # 32 numbers in `bits` words
    mask, found = (1 << bits) - 1, []
    for i in range(WORD):
        at, shift = divmod(i * bits, WORD)
        value = words[..., at] >> shift
        if shift + bits > WORD:
            value = value | (words[..., at + 1] << (WORD - shift))
        found.append(value & mask)
    return mx.stack(found, axis=-1).reshape(words.shape[0], -1)


def pack(values: mx.array, bits: int) -> mx.array:
    """The inverse of `unpack`: (R, n) integers as words (R, n bits/32)."""
    values = values.astype(mx.uint32).reshape(values.shape[0], -1, WORD)
    words = [mx.zeros(values.shape[:2], mx.uint32) for _ in range(bits)]
    for i in range(WORD):
        at, shift = divmod(i * bits, WORD)
        words[at] = words[at] | (values[..., i] << shift)
        if shift + bits > WORD:
            words[at + 1] = words[at + 1] | (values[..., i] >> (WORD - shift))
    return mx.stack(words, axis=-1).reshape(values.shape[0], -1)
