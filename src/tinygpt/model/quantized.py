"""Packed matrices: a few bits a weight, in memory as on disk, with gradients through them to what lies below.

A row is cut into groups of `group_size` weights. `affine` holds integers q of `bits` bits with two numbers a
group, w = scale q + bias; mxfp4, mxfp8 and nvfp4 hold small floats with one scale a group. A packed matrix
learns nothing; the gradient of its input is dx = dy W, so an adapter beside it learns as beside a dense one.

A product has two ways. On GPUs it is MLX's kernel, which reads the packed form. On CPUs that kernel makes 2
GFLOP/s, so from a few rows on the matrix is unpacked for the product and dropped, in both passes: it costs
5 to 35 ms for 3 million weights where the kernel takes 740 for 256 rows. A large matrix, as an output matrix
is, goes in blocks of rows, so that no more than `BLOCK` weights are ever unpacked at once on a core. The
matrices of a mixture's experts are unpacked a stack at a time, on every device.

Paper: Dettmers et al., NeurIPS 2023, arXiv:2305.14314 (QLoRA: a frozen packed base under an adapter); the
layout is MLX's (`mx.quantize`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx.utils import tree_unflatten

from tinygpt.core.backend import has_cpu_forms, mx, nn
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.model.mlp.moe import Experts, Product

MODES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "affine": ((64, 32, 128), (2, 3, 4, 5, 6, 8)),
    "mxfp4": ((32,), (4,)),
    "mxfp8": ((32,), (8,)),
    "nvfp4": ((16,), (4,)),
}
"""Group sizes and bits that a mode can have, the usual group size first."""
BLOCK = 1 << 19  # weights unpacked at once: 2 MB of float32, and MLX may run some blocks ahead
FEW = {"affine": 4, "mxfp4": 16, "nvfp4": 16, "mxfp8": 4}  # rows from which on a CPU unpacks
KEYS = ("quantization", "quantization_config")  # of config.json; mlx_lm writes both
PARTS = ("weight", "scales", "biases")


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How a matrix is packed; 0: the mode's usual bits and group size."""

    bits: int = 0
    group_size: int = 0
    mode: str = "affine"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"no mode is called '{self.mode}'", hint=f"modes: {', '.join(MODES)}")
        sizes, bits = MODES[self.mode]
        if self.bits not in (0, *bits):
            few = ", ".join(map(str, bits))
            raise ConfigError(f"{self.mode} has {few} bits a weight, not {self.bits}", hint="change one")
        if self.group_size not in (0, *sizes):
            few = ", ".join(map(str, sorted(sizes)))
            raise ConfigError(f"{self.mode} has groups of {few} weights, not {self.group_size}")
        object.__setattr__(self, "bits", self.bits or (4 if 4 in bits else bits[0]))
        object.__setattr__(self, "group_size", self.group_size or sizes[0])

    @classmethod
    def of(cls, module: nn.Module) -> Packing:
        """How a packed module is packed."""
        return cls(bits=module.bits, group_size=module.group_size, mode=module.mode)

    def table(self) -> dict[str, Any]:
        """As config.json and manifests have it."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}

    def odd(self, shape: Sequence[int]) -> bool:
        """Whether the rows of a matrix do not divide into groups."""
        return shape[-1] % self.group_size != 0

    def bytes(self, n: int, width: int) -> int:
        """What n weights take: of a group two numbers of `width` bytes beside them, or a scale of one."""
        return n * self.bits // 8 + n // self.group_size * (2 * width if self.mode == "affine" else 1)

    def __str__(self) -> str:
        return f"{self.bits} bits, {self.mode}, groups of {self.group_size}"

    def pack(self, w: mx.array) -> tuple[mx.array, ...]:
        """(weight, scales) or (weight, scales, biases) of a matrix (out, in): computed in float32, and the
        numbers of groups kept in w's dtype."""
        words, *rest = mx.quantize(w.astype(mx.float32), **self.table())
        return words, *(x.astype(w.dtype) if mx.issubdtype(x.dtype, mx.floating) else x for x in rest)


def dense(module: nn.Module, dtype: mx.Dtype = mx.float32) -> mx.array:
    """The matrix (out, in) that a packed module stands for."""
    return _unpack(module.weight, module.scales, module.get("biases"), Packing.of(module), dtype)


def _unpack(w: mx.array, scales: mx.array, biases: mx.array | None, how: Packing, dtype: Any) -> mx.array:
    if biases is not None:  # the sum is made in the dtype of scales, which may be smaller than the result's
        scales, biases = scales.astype(dtype), biases.astype(dtype)
    return mx.dequantize(w, scales, biases, **how.table(), dtype=dtype)


def product(module: nn.Module, x: mx.array) -> mx.array:
    """x (..., in) times the matrix of a packed module: (..., out), in x's dtype."""
    rows = x.size // x.shape[-1]
    w, scales, biases, how = module["weight"], module["scales"], module.get("biases"), Packing.of(module)
    if not has_cpu_forms() or rows < FEW[how.mode]:
        y = mx.quantized_matmul(x, w, scales, biases, transpose=True, **how.table())
        return y.astype(x.dtype)
    return _unpacking(w, scales, biases, how)(x.astype(mx.float32)).astype(x.dtype)


def _unpacking(
    w: mx.array, scales: mx.array, biases: mx.array | None, how: Packing
) -> Callable[[mx.array], mx.array]:
    """x (..., in) -> x W^T, with W unpacked block by block in both passes and kept in neither."""
    n_out, n_in = w.shape[0], w.shape[1] * 32 // how.bits
    size = max(1, BLOCK // n_in)
    cuts = [slice(i, i + size) for i in range(0, n_out, size)]

    def block(at: slice, after: mx.array) -> mx.array:
        """Rows of W, not before `after` is there: without an order all might lie in memory together."""
        packed = mx.depends(w[at], after)
        return _unpack(packed, scales[at], None if biases is None else biases[at], how, mx.float32)

    @mx.custom_function
    def times(x: mx.array) -> mx.array:
        parts: list[mx.array] = []
        for at in cuts:
            parts.append(x @ block(at, parts[-1] if parts else x).T)
        return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=-1)

    @times.vjp
    def _(primals: Any, d: Any, out: Any) -> Any:
        total = d[..., cuts[0]] @ block(cuts[0], d)
        for at in cuts[1:]:
            total = total + d[..., at] @ block(at, total)
        return total

    return times


class PackedLinear(nn.QuantizedLinear):
    """x (..., in) -> x W^T + b, W packed."""

    def __call__(self, x: mx.array) -> mx.array:
        y = product(self, x)
        return y + self["bias"] if "bias" in self else y


class PackedEmbedding(nn.QuantizedEmbedding):
    """Token ids -> rows of W, packed; `as_linear` is its use as an output matrix."""

    dtype: mx.Dtype = mx.float32
    """What rows come in: modes without biases do not say."""

    def __call__(self, x: mx.array) -> mx.array:
        biases = self.get("biases")
        rows = None if biases is None else biases[x]
        return _unpack(self["weight"][x], self["scales"][x], rows, Packing.of(self), self.dtype)

    def as_linear(self, x: mx.array) -> mx.array:
        return product(self, x)


class PackedStack(nn.Module):
    """The matrices (E, out, in) of one projection of a mixture's experts, packed."""

    def __init__(self, n: int, n_out: int, n_in: int, how: Packing) -> None:
        super().__init__()
        self.bits, self.group_size, self.mode = how.bits, how.group_size, how.mode
        for part, value in zip(PARTS, how.pack(mx.zeros((n, n_out, n_in)))):
            self[part] = value
        self.freeze()

    def through(self, x: mx.array, product: Product) -> mx.array:
        """Each row of x by its own expert's matrix; `product` knows which that is."""

        def unpacked(after: mx.array, dtype: mx.Dtype) -> mx.array:
            packed = mx.depends(self["weight"], after)
            return _unpack(packed, self["scales"], self.get("biases"), Packing.of(self), dtype)

        @mx.custom_function
        def times(x: mx.array) -> mx.array:
            return product(x, unpacked(x, x.dtype))

        @times.vjp
        def _(primals: Any, d: Any, out: Any) -> Any:
            x = primals[0] if isinstance(primals, tuple | list) else primals
            w = unpacked(d, x.dtype)
            return mx.vjp(lambda x: product(x, w), [x], [d])[1][0]

        return times(x)


def packable(module: nn.Module) -> bool:
    """Whether a module is a dense matrix that has a packed form."""
    return type(module) in (nn.Linear, nn.Embedding)


def stacks(model: nn.Module) -> dict[str, mx.array]:
    """Every dense stack (E, out, in) of experts' matrices by its dotted name."""
    found = {n: m for n, m in sorted(model.named_modules()) if isinstance(m, Experts)}
    return {f"{n}.{key}": v for n, m in found.items() for key, v in m.items() if isinstance(v, mx.array)}


def packed(model: nn.Module) -> dict[str, nn.Module]:
    """Every packed matrix, or stack of them, by its dotted name."""
    kinds = nn.QuantizedLinear | nn.QuantizedEmbedding | PackedStack
    return {name: m for name, m in sorted(model.named_modules()) if isinstance(m, kinds)}


def packing(model: nn.Module) -> Packing | None:
    """How most of a model's matrices are packed; None where none is."""
    found = [Packing.of(module) for module in packed(model).values()]
    return max(found, key=found.count) if found else None


def choose(model: nn.Module, how: Packing) -> tuple[dict[str, Packing], list[str]]:
    """(the matrices to pack, names of those that stay as they are because rows do not divide into groups).

    Routers stay too: what they choose between turns on small differences."""
    modules = {n: m.weight for n, m in model.named_modules() if packable(m) and not is_router(n)}
    found = dict(sorted({**modules, **stacks(model)}.items()))
    odd = [name for name, matrix in found.items() if how.odd(matrix.shape)]
    return {name: how for name in found if name not in odd}, odd


def is_router(name: str) -> bool:
    """Whether a matrix of this name chooses between others."""
    return name.rsplit(".", 1)[-1] in ("router", "gate", "predictor") or ".predictor." in name


def place(model: nn.Module, how: Mapping[str, Packing], dtype: mx.Dtype) -> None:
    """Put packed modules, with nothing in them yet, where dense ones are. `dtype` is of what is computed."""
    modules, piled, new = dict(model.named_modules()), stacks(model), {}
    for name, one in how.items():
        if name in piled:
            parent, _, key = name.rpartition(".")
            setattr(modules[parent], key, PackedStack(*piled[name].shape, one))
            continue
        module = modules[name]
        shape = (module.weight.shape[0], module.weight.shape[1])
        if isinstance(module, nn.Embedding):
            new[name] = PackedEmbedding(*shape, **one.table())
            new[name].dtype = dtype
        else:
            new[name] = PackedLinear(shape[1], shape[0], "bias" in module, **one.table())
    model.update_modules(tree_unflatten(list(new.items())))


def adopt(model: nn.Module, dtype: mx.Dtype) -> None:
    """Give the packed matrices of a model that another library built this file's products."""
    new: dict[str, nn.Module] = {}
    module: Any
    for name, module in packed(model).items():
        linear = isinstance(module, nn.QuantizedLinear)
        if type(module) not in (nn.QuantizedLinear, nn.QuantizedEmbedding) or "global_scale" in module:
            continue
        cls: Any = PackedLinear if linear else PackedEmbedding
        new[name] = ours = cls.__new__(cls)  # without drawing weights to pack
        nn.Module.__init__(ours)
        ours.group_size, ours.bits, ours.mode = module.group_size, module.bits, module.mode
        if not linear:
            ours.dtype, ours.num_embeddings, ours.dims = dtype, module.num_embeddings, module.dims
        for part, value in module.parameters().items():
            ours[part] = value
        ours.freeze()
    model.update_modules(tree_unflatten(list(new.items())))


def declared(data: Mapping[str, Any], where: str) -> tuple[Packing | None, dict[str, Packing | None]]:
    """(the usual packing, that of single matrices; None: dense) of a config.json that MLX's tools wrote."""
    table = data.get(KEYS[0]) or data.get(KEYS[1])
    if table is None:
        return None, {}
    if not isinstance(table, Mapping):
        raise CheckpointError(f"{where}: {KEYS[0]} is not a table", hint="copy it again")
    own = {k: v for k, v in table.items() if isinstance(v, Mapping | bool)}
    usual = _read(table, where)
    return usual, {k: None if v is False else usual if v is True else _read(v, where) for k, v in own.items()}


def _read(table: Mapping[str, Any], where: str) -> Packing:
    try:
        given = {k: table[k] for k in ("bits", "group_size", "mode") if table.get(k) is not None}
        return Packing(**given)
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error.message}", hint=error.hint) from error


def as_lies(tensors: Mapping[str, mx.array], name: str, n_in: int) -> Packing | None:
    """How a matrix of rows of `n_in` weights is packed, by the shapes of its parts; None: they do not say."""
    words, scales = tensors.get(f"{name}.weight"), tensors[f"{name}.scales"]
    if words is None:
        return None
    found = {"bits": words.shape[-1] * 32 // n_in, "group_size": n_in // scales.shape[-1]}
    floats = (mode for mode, (sizes, bits) in MODES.items() if tuple(found.values()) == (*bits, *sizes))
    try:
        return Packing(**found, mode="affine" if scales.dtype != mx.uint8 else next(floats, ""))
    except ConfigError:
        return None


def described(model: nn.Module) -> dict[str, Any]:
    """The keys of config.json that say how a model's matrices are packed; none where none is."""
    usual = packing(model)
    if usual is None:
        return {}
    found = packed(model)
    other = {n: Packing.of(m).table() for n, m in found.items() if Packing.of(m) != usual}
    left = {n: False for n, m in sorted(model.named_modules()) if packable(m)}
    table = {**usual.table(), **other, **left}
    return dict.fromkeys(KEYS, table)


def parts(names: Sequence[str]) -> set[str]:
    """Names of all tensors that the packed matrices of these names, or the dense ones, can have."""
    return {f"{name}.{part}" for name in names for part in PARTS} | set(names)
