"""Architectures that the native decoder does not know: mlx_lm's own models behind the calls of ours.

`model(tokens, cache=None, last=0, tap=None)`, `losses`, `config`, `layers`, `make_cache(left_padding)`: what
decoding, scoring and adapters use works as it does on `lm.LM`. A foreign model reads one document a row
(`packs` is False), knows resid_pre and resid_post alone of the points of `tap`, and has no noise and no
recomputing. Tensors keep mlx_lm's names, which are Hugging Face's but for few.

This is the one file that imports mlx_lm (pinned in the extra `hf`); tests/parity/test_foreign.py is the
contract on the calls. Nothing in a model's folder is executed: a config that names code of its own is opened
without it where mlx_lm has the architecture, and refused where not. Where mlx_lm would leave out a part of
the mathematics, this file puts it right (rope_parameters of transformers 5), keeps to what it does not change
(a sliding window bounds the context) or refuses it by name.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx.utils import tree_flatten, tree_unflatten

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import CheckpointError, ConfigError, DependencyError
from tinygpt.model import layout, ops, quantized, repack, weights
from tinygpt.model.frame import Tap
from tinygpt.model.terms import Terms

# Forms of packed weights that mlx_lm reads and our loader does not, whatever the architecture.
FORMS = ("mxfp4", "mxfp8", "fp8", "compressed-tensors", "modelopt", "bitnet")
# Architectures whose packed matrices mlx_lm lays out otherwise than the files that they came from.
MOVED = ("gpt2",)
REACH = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
)
UNSAID = 2048  # tokens, where a config names no limit
# Keys of the mathematics that many architectures share: refused where mlx_lm's model does not read them.
HEEDED = (
    "rope_scaling", "partial_rotary_factor", "rotary_pct", "attn_logit_softcapping",
    "final_logit_softcapping", "logit_scale", "logits_scaling", "attention_multiplier",
    "residual_multiplier", "embedding_multiplier", "norm_topk_prob",
    "clip_qkv", "attn_output_multiplier", "query_pre_attn_scalar", "scale_emb", "scale_depth", "alibi",
)  # fmt: skip
NEUTRAL = (None, False, 0, 1.0, {}, [])  # True, which equals 1.0, is not
# How the source of a model of mlx_lm shows an activation, whatever its exact form; and the names of forms.
ACTIVATIONS = {"silu": "silu|swiglu|SwiGLU|SwitchGLU", "gelu": "gelu|geglu|GeGLU", "relu": "relu"}
NAMED = {
    "silu": "silu", "swish": "silu", "relu": "relu", "relu2": "relu", "gelu": "gelu", "gelu_new": "gelu",
    "gelu_fast": "gelu", "gelu_pytorch_tanh": "gelu",
}  # fmt: skip
# Models of mlx_lm whose GELU may be another one than config.json names: whether theirs is the approximation
# by tanh, and the matrices of their MLP: into it, beside it, out of it.
GELUS = {
    "gemma": (False, "gate_proj", "up_proj", "down_proj"),
    "starcoder2": (False, "c_fc", "", "c_proj"),
    "gpt_neox": (True, "dense_h_to_4h", "", "dense_4h_to_h"),
}


@dataclass(frozen=True)
class ForeignConfig:
    """What our code asks of a model's config; anything else is answered by mlx_lm's own."""

    model_type: str
    vocab_size: int
    reach: int
    data: Mapping[str, Any]
    args: Any

    @property
    def max_position_embeddings(self) -> int:
        """Longest text in tokens."""
        return self.reach

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "args":
            raise AttributeError(name)
        return getattr(self.args, name)


class _Tapped:
    """A layer whose input and output pass through the model's tap."""

    _at: _Place

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tap, i = self._at.model._tap, self._at.index
        if tap is None:
            return super().__call__(*args, **kwargs)  # type: ignore[misc]
        x, rest = (args[0], args[1:]) if args else (kwargs.pop("x"), ())
        out = super().__call__(tap(f"blocks.{i}.hook_resid_pre", x), *rest, **kwargs)  # type: ignore[misc]
        name = f"blocks.{i}.hook_resid_post"
        return (tap(name, out[0]), *out[1:]) if isinstance(out, tuple) else tap(name, out)


@dataclass(frozen=True, eq=False)
class _Place:
    model: Any
    index: int


class Foreign:
    """The calls of `lm.LM` on a model of mlx_lm, whose class is made a child of this one and of its own."""

    packs = False  # rows hold one document each
    _facts: ForeignConfig
    _tap: Tap | None = None
    _masks = True  # whether recurrent states are told which tokens are padding

    @property
    def config(self) -> Any:
        """Sizes, as callers of ours and the model itself ask for them."""
        return self._facts

    @config.setter
    def config(self, value: Any) -> None:  # a model that keeps its arguments under this name
        self._facts = value

    @property
    def noise(self) -> None:
        """A foreign model has none."""

    @noise.setter
    def noise(self, rates: Any) -> None:
        if rates:
            raise ConfigError(
                f"a {self._facts.model_type} is run by mlx_lm, which has no dropout, layer drop or NEFTune",
                hint="leave them out",
            )

    @property
    def recompute(self) -> bool:
        """Always False."""
        return False

    @recompute.setter
    def recompute(self, wanted: bool) -> None:
        if wanted:
            raise ConfigError(
                f"a {self._facts.model_type} is run by mlx_lm, and its blocks cannot be recomputed",
                hint="leave --grad-checkpoint out, or take fewer rows (--accumulate)",
            )

    def __call__(
        self,
        tokens_BL: mx.array,
        cache: Sequence[Any] | None = None,
        *,
        positions: mx.array | None = None,
        segments: mx.array | None = None,
        tap: Tap | None = None,
        last: int = 0,
        terms: Terms | None = None,
        keys: mx.array | None = None,
        **kwargs: Any,
    ) -> mx.array:
        """Logits (B, L, V), or those of the last tokens. Without a cache padding lies at the right."""
        object.__setattr__(self, "_tap", tap)
        try:
            z_BLV = super().__call__(tokens_BL, cache=cache, **kwargs)  # type: ignore[misc]
        finally:
            object.__setattr__(self, "_tap", None)
        z_BLV = z_BLV[:, -last:] if last else z_BLV
        return z_BLV if segments is None else _refuse_documents(z_BLV, segments)

    def losses(
        self,
        tokens_BL: mx.array,
        targets_BL: mx.array,
        *,
        positions: mx.array | None = None,
        segments: mx.array | None = None,
        terms: Terms | None = None,
        keys: mx.array | None = None,
    ) -> mx.array:
        """-log p(target) of every place (B, L), in nats. The logits of all tokens exist at once."""
        z_BLV = self(tokens_BL, segments=segments)
        losses_BL, log_z_BL = ops.cross_entropy_and_log_z(z_BLV, targets_BL)
        if terms is not None:
            terms.add_z(log_z_BL, terms.counts(targets_BL.shape))
        return losses_BL

    def make_cache(self, left_padding: Sequence[int] | None = None) -> list[Any]:
        """One empty cache a layer, mlx_lm's; `left_padding` gives the padding of each row of a batch."""
        from mlx_lm.models import cache as caches

        own = getattr(super(), "make_cache", None)
        made = own() if own is not None else [caches.KVCache() for _ in self.layers]  # type: ignore[attr-defined]
        how = list(left_padding or ()), self._masks
        return made if left_padding is None else [_batched(one, *how) for one in made]


def _refuse_documents(z_BLV: mx.array, segments: mx.array) -> mx.array:
    """Rows of several documents would read across their borders. Where a step is traced nothing can be looked
    at, so such a row is no number, which no step takes."""
    several_B = segments.max(axis=1) > 1
    return mx.where(several_B[:, None, None], mx.array(float("nan"), z_BLV.dtype), z_BLV)


def _batched(cache: Any, padding: list[int], masks: bool) -> Any:
    """The form of a cache for rows that are padded at the left."""
    from mlx_lm.models import cache as caches

    kind = type(cache)
    if kind is caches.CacheList:
        return caches.CacheList(*(_batched(one, padding, masks) for one in cache.caches))
    if kind is caches.ArraysCache and (masks or not any(padding)):
        cache.left_padding = mx.array(padding)
        return cache
    if kind is caches.KVCache:
        return caches.BatchKVCache(padding)
    if kind is caches.RotatingKVCache and not cache.keep:
        return caches.BatchRotatingKVCache(cache.max_size, padding)
    raise ConfigError(
        f"this model's cache ({kind.__name__}) takes no rows of unequal length", hint="decode them one by one"
    )


def serves(path: Path, data: Mapping[str, Any]) -> bool:
    """Whether this directory is opened here: an architecture, or a packed form, that only mlx_lm knows."""
    kind = data.get("model_type")
    if not isinstance(kind, str) or not kind.replace("-", "_").isidentifier():
        return False
    moved = kind in MOVED and bool(data.get(quantized.KEYS[0]))
    return moved or not layout.known(kind) or repack.method(data) in FORMS


def load(
    path: Path, data: Mapping[str, Any], *, dtype: mx.Dtype | None, packing: quantized.Packing | None
) -> Any:
    """The model of a directory that mlx_lm opens. See `checkpoint.load` for dtype and packing."""
    kind = data["model_type"]
    where = str(path / "config.json")
    if importlib.util.find_spec("mlx_lm") is None:
        raise DependencyError("mlx-lm", "hf", f"opening a model of type '{kind}'")
    from mlx_lm.utils import load_model

    if data.get("model_file"):
        raise CheckpointError(
            f"{where} names a program of its own, {data['model_file']}", hint="nothing in a model is executed"
        )
    changes, said = _rope(data), io.StringIO()
    try:
        with contextlib.redirect_stdout(said):  # a model may print what it lacks, and end the program
            model, config = load_model(path, lazy=True, model_config=changes, trust_remote_code=False)
    except SystemExit as error:
        asks = " ".join(said.getvalue().split())
        raise CheckpointError(
            f"{where}: mlx_lm cannot open this {kind}: {asks}",
            hint="no extra of tinygpt brings what it asks for",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise _refused(kind, where, error) from error
    args = getattr(model, "args", None) or getattr(model, "config", None)
    _refuse_unread(config, changes, args, where)
    _activate(model, kind, config, where)
    quantized.adopt(model, dtype or mx.float32)
    _settle(model, packing, dtype, str(path))
    return adopt(model, kind, config, args)


def _refused(kind: str, where: str, error: Exception) -> CheckpointError:
    if f"Model type {kind} not supported" in str(error):
        return CheckpointError(
            f"{where}: model_type '{kind}' is not one this build opens",
            hint=f"it opens {', '.join(layout.ARCH.names())}, tinygpt, and what mlx_lm does",
        )
    said = " ".join(str(error).split())[:300]
    hint = weights.UNPAIRED
    if lacking := re.search(r"missing \d+ required positional arguments?: (.*)", said):
        said, hint = f"config.json does not give {lacking[1]}", "add it as the model's makers have it"
    return CheckpointError(f"{where}: mlx_lm cannot open this {kind}: {said}", hint=hint)


def adopt(model: Any, kind: str, data: Mapping[str, Any], args: Any) -> Any:
    """Give a model of mlx_lm the calls of ours, its tensors keeping their names."""
    inner = data.get("text_config") or {}
    said = {**inner, **data}
    vocab = said.get("vocab_size") or getattr(args, "vocab_size", 0)
    reach = next((said[name] for name in REACH if isinstance(said.get(name), int)), UNSAID)
    window = said.get("sliding_window")
    unread = said.get("use_sliding_window", True) and not _reads(args, "sliding_window")
    if isinstance(window, int) and unread:
        reach = min(reach, window)  # within it a window changes nothing
    if not hasattr(model, "_no_grad"):  # recurrent_gemma's class forgets it
        nn.Module.__init__(model)
    masks = re.search("create_ssm_mask|make_mask", Path(inspect.getfile(type(model))).read_text("utf-8"))
    model.__class__ = type("Foreign", (Foreign, type(model)), {"_masks": masks is not None})
    object.__setattr__(model, "_facts", ForeignConfig(kind, vocab, reach, data, args))
    tapped: dict[type, type] = {}
    for i, layer in enumerate(model.layers):
        own = type(layer)
        layer.__class__ = tapped.setdefault(own, type(own.__name__, (_Tapped, own), {}))
        object.__setattr__(layer, "_at", _Place(model, i))
    return model


def _rope(data: Mapping[str, Any]) -> dict[str, Any]:
    """transformers 5 writes rope_parameters, which mlx_lm overlooks in many models: the keys it reads."""
    rope, kind = data.get("rope_parameters"), data.get("model_type")
    if isinstance(rope, Mapping) and _by_layer(rope):
        rope = {k: t for k, t in rope.items() if isinstance(t, Mapping)}
        tables: list[Any] = list(rope.values())
        stretched = [k for k, t in rope.items() if t.get("rope_type", "default") != "default"]
        # OLMo 3 stretches the layers that read all alone, and so does mlx_lm's.
        alone = not stretched or (kind == "olmo3" and stretched == ["full_attention"])
        alike = len({t.get("rope_theta") for t in tables}) == 1
        rope = rope.get("full_attention", tables[0]) if alone and alike else None
    if not isinstance(rope, Mapping):
        return {}
    found = {"rope_theta": rope.get("rope_theta"), "partial_rotary_factor": rope.get("partial_rotary_factor")}
    rest = {k: v for k, v in rope.items() if k not in found}
    if kind == "gpt_neox":  # which has them under names of its own
        found = {"rotary_emb_base": found["rope_theta"], "rotary_pct": found["partial_rotary_factor"]}
    if rest.get("rope_type", "default") != "default":
        found["rope_scaling"] = {**rest, "type": rest["rope_type"]}
    return {k: v for k, v in found.items() if v is not None and data.get(k) is None}


def _by_layer(rope: Mapping[str, Any]) -> bool:
    """Whether rope_parameters hold a table for each kind of layer."""
    return any(isinstance(v, Mapping) for v in rope.values())


def _reads(args: Any, name: str) -> bool:
    return name in getattr(type(args), "__dataclass_fields__", {})


def _refuse_unread(data: Mapping[str, Any], changes: Mapping[str, Any], args: Any, where: str) -> None:
    """Refuse what changes the mathematics and what mlx_lm's model has no argument for."""
    for name in ("rope_parameters", *HEEDED):
        value = data.get(name)
        if (value in NEUTRAL and value is not True) or _reads(args, name) or args is None:
            continue
        if name in changes and _reads(args, "rope_parameters"):  # where it finds the same
            continue
        if name == "rope_parameters" and not (
            isinstance(value, Mapping) and _by_layer(value) and not changes
        ):
            continue
        raise CheckpointError(
            f"{where} has {name} = {value!r}, which mlx_lm's {data.get('model_type')} does not heed",
            hint="it would compute something else, so it is not opened",
        )


class _Gelu:
    """An MLP of mlx_lm with the other form of its GELU."""

    _how: tuple[bool, str, str, str]

    def __call__(self, x: mx.array) -> mx.array:
        tanh, into, beside, out = self._how
        h = (nn.gelu_approx if tanh else nn.gelu)(self[into](x))  # type: ignore[index]
        return self[out](h * self[beside](x) if beside else h)  # type: ignore[index]


def _activate(model: Any, kind: str, data: Mapping[str, Any], where: str) -> None:
    """See that the MLP's activation is the one that config.json names: a GELU's form is put right, another
    function refused."""
    name = data.get("hidden_activation") or data.get("hidden_act")
    family = NAMED.get(name) if isinstance(name, str) else None
    if family is None:
        return
    source = Path(inspect.getfile(type(model))).read_text(encoding="utf-8")
    found = {f for f, pattern in ACTIVATIONS.items() if re.search(pattern, source)}
    if found and family not in found:
        raise CheckpointError(
            f"{where} has the activation '{name}', and mlx_lm's {kind} computes {' or '.join(sorted(found))}",
            hint="it would compute something else, so it is not opened",
        )
    tanh, *matrices = GELUS.get(kind, (None,))
    if tanh is not None and family == "gelu" and tanh != (name != "gelu"):
        for layer in model.layers:
            own = type(layer.mlp)
            layer.mlp.__class__ = type(own.__name__, (_Gelu, own), {"_how": (not tanh, *matrices)})


def _settle(model: nn.Module, packing: quantized.Packing | None, dtype: mx.Dtype | None, where: str) -> None:
    """Read, cast and pack the lazy tensors one after the other."""
    own = {name: quantized.Packing.of(module) for name, module in quantized.packed(model).items()}
    tensors = dict(tree_flatten(model.parameters()))
    empty = [(name, mx.zeros(value.shape, value.dtype)) for name, value in tensors.items()]
    model.update(tree_unflatten(empty))  # else the model would hold what is read beside what it becomes
    if packing is not None and own:
        weights.refuse_other(own, packing, where)
    elif packing is not None:
        weights.pack(model, tensors, packing, dtype or weights.stored(tensors), where)
    weights.fill(model, tensors, where, dtype)
