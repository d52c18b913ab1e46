"""Facts of a model from its small files and the headers of its tensors: nothing is loaded or executed."""

from __future__ import annotations

import ast
import importlib.util
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tinygpt.core import files
from tinygpt.core.errors import CheckpointError, TinyGPTError
from tinygpt.model import checkpoint, foreign, quantized, repack, weights
from tinygpt.model.quantized import Packing
from tinygpt.model.shards import DTYPES, Entry

GROUPS = (
    ("embeddings", r"embed|wte\.|wpe\."),
    ("output", r"lm_head|embed_out|(^|\.)output\."),
    ("router", r"router|mlp\.gate\.|block_sparse_moe\.gate\."),
    ("experts", r"experts?\.|switch_mlp"),
    ("norms", r"norm|ln_\w+\.|layernorm"),
    ("attention", r"attn|attention"),
    ("mlp", r"mlp|feed_forward|ffn"),
)
# Files that can run code in whoever opens them carelessly. tinygpt opens none of them.
ODD = {
    "a pickle, which runs code when it is opened": (
        ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz",
    ),
    "code": (".py", ".pyc", ".sh", ".bat", ".ps1", ".js", ".ipynb"),
    "a program": (".so", ".dll", ".dylib", ".exe", ".jar", ".wasm"),
    "weights in a form that can hold code": (".h5", ".keras", ".pb", ".onnx", ".msgpack"),
}  # fmt: skip
PACKED_OVERHEAD = 0.5  # bits a weight for scales and biases, in groups of 64


def tensors(entries: Mapping[str, Entry], data: Mapping[str, Any]) -> dict[str, Any]:
    """Number of weights, bytes and dtypes: in all, and by group of tensors."""
    bits = _bits(data)
    groups: dict[str, dict[str, Any]] = {}
    for name, entry in sorted(entries.items()):
        group = next((g for g, pattern in GROUPS if re.search(pattern, name)), "other")
        into = groups.setdefault(group, {"group": group, "parameters": 0, "bytes": 0, "dtypes": {}})
        n = values(name, entry, entries, bits)
        into["parameters"] += n
        into["bytes"] += entry.end - entry.start
        into["dtypes"][entry.code] = into["dtypes"].get(entry.code, 0) + 1
    matrices = sum(values(n, e, entries, bits) for n, e in entries.items() if len(e.shape) > 1)
    count = sum(g["parameters"] for g in groups.values())
    rest = count - matrices
    return {
        "parameters": count,
        "groups": sorted(groups.values(), key=lambda g: -g["parameters"]),
        "dtypes": _sum(g["dtypes"] for g in groups.values()),
        "weights_bytes": sum(g["bytes"] for g in groups.values()),
        "memory": {
            "float32": 4 * count, "bfloat16": 2 * count,
            **{f"{b} bits": int(matrices * (b + PACKED_OVERHEAD) / 8) + 2 * rest for b in (8, 4)},
        },
    }  # fmt: skip


def values(name: str, entry: Entry, entries: Mapping[str, Entry], bits: int) -> int:
    """How many weights a tensor stands for: a packed one more than it has numbers, its scales none."""
    if (
        name.endswith((".scales", ".qzeros", ".g_idx"))
        or f"{name.rpartition('.')[0]}.scales" in entries
        and name.endswith(".biases")
    ):
        return 0
    width = 8 * DTYPES[entry.code][1]
    packed = name.endswith(".qweight") or (name.endswith(".weight") and f"{name[:-7]}.scales" in entries)
    return entry.size * width // bits if packed and entry.code in ("U32", "I32") else entry.size


def open_bytes(entries: Mapping[str, Entry], packing: Packing | None) -> int:
    """Memory of a model's weights once it is open, by the shapes of its tensors: cast as this machine does,
    and packed where `packing` asks for it and the files hold them dense."""
    cast, total = weights.wide("auto"), 0
    if any(name.endswith(".scales") for name in entries):
        packing = None  # they keep their form
    for name, entry in entries.items():
        module, _, part = name.rpartition(".")
        width = cast.size if cast is not None and entry.is_float else DTYPES[entry.code][1]
        matrix = entry.is_float and len(entry.shape) > 1 and (part == "weight" or len(entry.shape) > 2)
        if packing is None or not matrix or quantized.is_router(module) or packing.odd(entry.shape):
            total += entry.size * width
        else:
            total += packing.bytes(entry.size, width)
    return total


def _bits(data: Mapping[str, Any]) -> int:
    table = data.get("quantization") or data.get("quantization_config") or {}
    found = table.get("bits", 4) if isinstance(table, Mapping) else 4
    return found if isinstance(found, int) and found > 0 else 4


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for key, n in one.items():
            total[key] = total.get(key, 0) + n
    return total


def quantisation(data: Mapping[str, Any]) -> dict[str, Any] | None:
    """How the weights are packed, as config.json says; None where they are not."""
    table = data.get("quantization") or data.get("quantization_config")
    if not isinstance(table, Mapping):
        return None
    found = {k: table[k] for k in ("quant_method", "bits", "group_size", "mode", "desc_act") if k in table}
    single = sum(isinstance(v, Mapping) for v in table.values())
    return found | ({"matrices_of_their_own": single} if single else {})


def opens(folder: Path, data: Mapping[str, Any]) -> tuple[str, str]:
    """("native" | "mlx-lm" | "no", why): what would open this config here."""
    kind = data.get("model_type")
    if not isinstance(kind, str):
        return "no", "config.json names no model_type"
    if not foreign.serves(folder, data):
        try:
            checkpoint.read_config(folder)
            repack.packed_as_ours({}, data, str(folder))  # whether it knows how they are packed
        except TinyGPTError as error:
            return "no", error.message
        return "native", "an architecture of tinygpt's own decoder"
    spec = importlib.util.find_spec("mlx_lm")
    if spec is None or not spec.submodule_search_locations:
        return "no", f"model_type '{kind}' needs the package mlx-lm: pip install 'tinygpt[hf]'"
    home = Path(next(iter(spec.submodule_search_locations)))
    if data.get("model_file"):
        return (
            "no",
            f"it names a program of its own, {data['model_file']}, and nothing in a model is executed",
        )
    named = _renamed(home).get(kind, kind)
    if named.isidentifier() and (home / "models" / f"{named}.py").is_file():
        return "mlx-lm", f"mlx_lm has the architecture '{named}'"
    return "no", f"neither tinygpt nor mlx_lm has the architecture '{kind}'"


def _renamed(home: Path) -> dict[str, str]:
    """mlx_lm's table of architectures that are another's, read without importing it."""
    try:
        tree = ast.parse((home / "utils.py").read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODEL_REMAPPING":
            found = ast.literal_eval(node.value)
            return {str(k): str(v) for k, v in found.items()}
    return {}


def shape(data: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes, context, positions and windows, under one name each whatever config.json calls them."""
    inner = data.get("text_config")
    said = {**data, **(inner if isinstance(inner, Mapping) else {})}
    names = {
        "layers": ("num_hidden_layers", "n_layer"), "width": ("hidden_size", "n_embd"),
        "heads": ("num_attention_heads", "n_head"), "kv_heads": ("num_key_value_heads",),
        "head_width": ("head_dim",), "mlp_width": ("intermediate_size", "n_inner"),
        "experts": ("num_experts", "num_local_experts"), "vocabulary": ("vocab_size",),
        "context": ("max_position_embeddings", "n_positions", "n_ctx"), "dtype": ("dtype", "torch_dtype"),
        "tied_head": ("tie_word_embeddings",),
    }  # fmt: skip
    facts: dict[str, Any] = {}
    for fact, keys in names.items():
        value = next((said[k] for k in keys if said.get(k) is not None), None)
        if value is not None:
            facts[fact] = value
    rope = said.get("rope_parameters") or said.get("rope_scaling")
    rope = {k: v for k, v in rope.items() if v is not None} if isinstance(rope, Mapping) else {}
    if said.get("rope_theta") is not None:
        rope = {"rope_theta": said["rope_theta"], **rope}
    facts["rope"] = rope or None
    facts["window"] = _window(said)
    facts["cache_bytes_per_token"] = _cache(facts)
    return facts


def _window(said: Mapping[str, Any]) -> str | None:
    """Which layers read how far back."""
    window = said.get("sliding_window")
    if not isinstance(window, int) or said.get("use_sliding_window") is False:
        return None
    kinds = said.get("layer_types")
    if isinstance(kinds, list) and kinds:
        some = sum(k == "sliding_attention" for k in kinds)
        return f"{window} in {some} of {len(kinds)} layers" if some else None
    return f"{window}"


def _cache(facts: Mapping[str, Any]) -> int | None:
    """Bytes of keys and values of a token in half precision, every layer reading all."""
    try:
        heads = facts.get("kv_heads", facts["heads"])
        width = facts.get("head_width", facts["width"] // facts["heads"])
        return 2 * 2 * facts["layers"] * heads * width
    except (KeyError, TypeError, ZeroDivisionError):
        return None


def tokenizer(folder: Path) -> dict[str, Any]:
    """What the tokenizer's files say of themselves."""
    if not (folder / "tokenizer.json").is_file():
        other = [n for n in ("tokenizer.model", "vocab.json", "vocab.txt") if (folder / n).is_file()]
        return {"kind": None, "why": f"there is no tokenizer.json{f', only {other[0]}' if other else ''}"}
    data = files.peek_json(folder / "tokenizer.json")
    model = data.get("model") or {}
    vocab, added = model.get("vocab") or {}, data.get("added_tokens") or []
    names = {t.get("content") for t in added if isinstance(t, Mapping)}
    known = set(vocab) if isinstance(vocab, Mapping) else {v[0] for v in vocab if isinstance(v, list) and v}
    config = files.peek_json(folder / "tokenizer_config.json")

    def named(key: str) -> Any:
        token = config.get(key)
        return token.get("content") if isinstance(token, Mapping) else token

    return {
        "kind": model.get("type"), "tokens": len(known | names), "control_tokens": len(names),
        **{key.removesuffix("_token"): named(key) for key in ("bos_token", "eos_token", "pad_token")},
    }  # fmt: skip


def template(folder: Path) -> dict[str, Any] | None:
    """Where the chat template is and what it knows of; None where there is none."""
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        text, where = jinja.read_text(encoding="utf-8", errors="replace"), jinja.name
    else:
        for where in ("chat_template.json", "tokenizer_config.json"):
            text = files.peek_json(folder / where).get("chat_template")
            if isinstance(text, list):  # several by name
                by_name = {t.get("name"): t.get("template") for t in text if isinstance(t, Mapping)}
                text = by_name.get("default")
            if isinstance(text, str):
                break
        else:
            return None
    return {
        "file": where, "letters": len(text), "tools": bool(re.search(r"\btools\b", text)),
        "thinking": "think" in text, "generation_marks": bool(re.search(r"{%-?\s*generation", text)),
        "odd": bool(re.search(r"__\w+__", text)),
    }  # fmt: skip


def card(folder: Path) -> dict[str, Any]:
    """Licence and base model, as the model card's first lines name them."""
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    head = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    found: dict[str, Any] = {}
    for key in ("license", "license_name", "license_link", "base_model"):
        line = re.search(rf"^{key}:[ \t]*(.*(?:\n[ \t]*- .*)*)$", head[1], re.MULTILINE) if head else None
        said = " ".join(line[1].replace("\n", " ").split()).removeprefix("- ").strip("'\" ") if line else ""
        if said:
            found[key] = said
    own = sorted(p.name for p in folder.glob("LICENSE*"))
    return found | ({"license_file": own[0]} if own else {})


def suspicious(
    names: Iterable[str], data: Mapping[str, Any], chat: Mapping[str, Any] | None
) -> list[dict[str, str]]:
    """Files and keys that would run code somewhere else. Here none of them is opened."""
    found: list[dict[str, str]] = []
    for name in sorted(names):
        what = next((w for w, ends in ODD.items() if name.lower().endswith(ends)), None)
        if what:
            found.append({"file": name, "what": what})
    for key in ("auto_map", "custom_pipelines", "model_file"):
        if data.get(key):
            found.append({"file": "config.json", "what": f"{key} asks for code of the repository's own"})
    if chat and chat["odd"]:
        found.append({"file": chat["file"], "what": "the template reaches for Python's internals"})
    return found


def readable(folder: Path) -> dict[str, Any]:
    """config.json of a folder; empty where it holds an adapter alone."""
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            return {}
        raise CheckpointError(f"{folder} holds no config.json, so no model", hint=checkpoint.EXPECTED)
    return checkpoint.read_json(folder / "config.json")


def known_as(data: Mapping[str, Any]) -> str:
    """The architecture's name for people."""
    named = data.get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    kind = data.get("model_type")
    return f"{kind} ({first})" if first and kind else str(first or kind or "none")


def rounded(n: float) -> str:
    """A number of parameters for people: 1.2 B, 350 M."""
    for unit in ("", "K", "M", "B", "T"):
        if n < 1000 or unit == "T":
            return f"{n:.0f}{unit and ' ' + unit}" if n >= 100 or not unit else f"{n:.2g} {unit}"
        n /= 1000
    raise AssertionError(math.inf)
