"""The checkpoint directory: a superset of a Hugging Face model directory, whole or absent.

    run/final/
      tinygpt.json         manifest: format version, kind, size and SHA-256 of every file, base of add-ons.
      WRITTEN LAST
      config.json  model.safetensors  tokenizer.json ...      what transformers and mlx_lm read
      state.json  optimizer.safetensors                       only in resumable ones
      run.json                                                the resolved config that made it

Writing goes through a hidden sibling, fsync and rename. Reading checks the manifest, sizes and hashes before
any tensor is used; each way a directory can be wrong has its own sentence."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx.utils import tree_flatten

from tinygpt import __version__
from tinygpt.core import files
from tinygpt.core.backend import mx
from tinygpt.core.errors import CheckpointError, UnsupportedError
from tinygpt.model import foreign, layout, quantized, repack, weights
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM
from tinygpt.model.weights import UNPAIRED
from tinygpt.model.weights import fill as fill
from tinygpt.model.weights import refuse_nan as refuse_nan

FORMAT = 1
MANIFEST = files.MANIFEST
KINDS = ("model", "adapter", "tokenizer", "sae", "lens", "probe", "heads", "router", "classifier")
SHARD_BYTES = 5 * 2**30
MOST = 2**31 - 1  # the largest dimension of an MLX array
MOST_LAYERS = 10_000  # each takes time to build, before anything else can be found wrong
AGAIN = "it is damaged: copy it again, or use another checkpoint"
EXPECTED = "give the directory of a run, a model, an adapter or a specialist"


@dataclass(frozen=True)
class Loaded:
    """A model read from disk. `manifest` is empty for a directory that another tool wrote."""

    model: LM
    config: ModelConfig
    manifest: dict[str, Any]
    path: Path

    @property
    def dtype(self) -> str:
        """How the weights are stored, as config.json says."""
        data = read_json(self.path / "config.json")
        return data.get("dtype") or data.get("torch_dtype") or "float32"

    def tensors(self) -> dict[str, mx.array]:
        """The model's tensors by name."""
        return dict(tree_flatten(self.model.parameters()))

    def state(self) -> dict[str, Any]:
        """The run state of a resumable checkpoint: step, seed and what the updater said of itself."""
        return read_json(self.path / "state.json")


def save(
    path: Path,
    model: LM,
    *,
    write_tokenizer: Callable[[Path], None] | None = None,
    ids: Mapping[str, int | None] | None = None,
    stop_ids: Sequence[int] = (),
    dtype: str = "float32",
    **kept: Any,
) -> Path:
    """Write a model directory in one step.

    `ids` are the eos, bos and pad ids that config.json should name, `stop_ids` all that end an answer;
    `dtype` is how weights are stored; `kept` is what `written` takes.
    """
    packed = quantized.parts(list(quantized.packed(model)))
    odd = set(dict(tree_flatten(model.parameters()))) ^ set(dict(tree_flatten(LM(model.config).parameters())))
    if odd - packed or (packed and layout.model_type(model.config) == "gpt2"):
        raise UnsupportedError(
            f"the model is not its config's: {min(odd)} and {len(odd) - 1} more tensors differ",
            hint="save the adapter on its own, or fuse it into the model first",
        )
    with written(path, kind="model", **kept) as folder:
        config = layout.to_hf(model.config, **(ids or {})) | {"dtype": dtype} | quantized.described(model)
        files.write_json(folder / "config.json", config)
        named: dict[str, Any] = {
            key: config.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")
        }
        if len(stop_ids) > 1:  # other tools stop at what generation_config.json names; readers take a list
            named["eos_token_id"] = list(stop_ids)
        files.write_json(folder / "generation_config.json", {k: v for k, v in named.items() if v is not None})
        tensors = {
            name: w if name in packed else w.astype(getattr(mx, dtype))
            for name, w in tree_flatten(model.parameters())
        }
        write_tensors(folder, "model", layout.to_disk(tensors, model.config))
        if write_tokenizer is not None:
            write_tokenizer(folder)
    return Path(path)


@contextlib.contextmanager
def written(
    path: Path,
    *,
    kind: str,
    state: Mapping[str, Any] | None = None,
    optimizer: Mapping[str, mx.array] | None = None,
    run: Mapping[str, Any] | None = None,
    report: Mapping[str, Any] | None = None,
    replace: bool = False,
    **facts: Any,
) -> Generator[Path]:
    """A folder to fill, which becomes the checkpoint `path` in one step: what a run leaves beside its weights
    is added, and the manifest with these facts."""
    with files.atomic_directory(Path(path), replace=replace) as folder:
        yield folder
        if optimizer is not None:
            write_tensors(folder, "optimizer", optimizer)
        for name, value in (("state", state), ("run", run), ("report", report)):
            if value is not None:
                files.write_json(folder / f"{name}.json", value)
        seal(folder, kind=kind, **facts)


def seal(folder: Path, *, kind: str, **facts: Any) -> None:
    """Write the manifest of a finished directory: every file with its size and hash."""
    assert kind in KINDS, kind
    listed = {
        str(p.relative_to(folder)): {"bytes": p.stat().st_size, "sha256": files.sha256(p)}
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != MANIFEST
    }
    manifest = {"format": FORMAT, "kind": kind, "made_by": f"tinygpt {__version__}", **facts, "files": listed}
    files.write_json(folder / MANIFEST, manifest)


def write_tensors(folder: Path, stem: str, tensors: Mapping[str, mx.array]) -> None:
    """Save tensors as safetensors, in shards with an index when they pass SHARD_BYTES."""
    shards: list[dict[str, mx.array]] = [{}]
    size = 0
    for name in sorted(tensors):
        if size and size + tensors[name].nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensors[name]
        size += tensors[name].nbytes
    if len(shards) == 1:
        _write_file(folder / f"{stem}.safetensors", shards[0])
        return
    where = {}
    for i, shard in enumerate(shards, 1):
        file = f"{stem}-{i:05d}-of-{len(shards):05d}.safetensors"
        _write_file(folder / file, shard)
        where |= dict.fromkeys(shard, file)
    total = sum(t.nbytes for t in tensors.values())
    files.write_json(
        folder / f"{stem}.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where}
    )


def _write_file(path: Path, tensors: dict[str, mx.array]) -> None:
    try:
        mx.save_safetensors(str(path), tensors, metadata={"format": "pt"})
    except RuntimeError as error:
        # MLX does not say why a write failed; a full disk is the reason worth a hint.
        full = shutil.disk_usage(path.parent).free < sum(t.nbytes for t in tensors.values())
        raise OSError(errno.ENOSPC if full else errno.EIO, "no space left" if full else str(error)) from error


def read_tensors(folder: Path, stem: str) -> dict[str, mx.array]:
    """The tensors of a stem, one file or shards; lazy, so nothing is copied until it is used."""
    tensors: dict[str, mx.array] = {}
    for path in tensor_files(folder, stem):
        try:
            path.open("rb").close()  # MLX does not say why it cannot open a file
            loaded = mx.load(str(path))
        except OSError as error:
            raise unreadable(path, error) from error
        except (RuntimeError, ValueError) as error:
            if unknown := re.search(r"unsupported dtype (\w+)", str(error)):
                raise UnsupportedError(
                    f"{path} holds numbers of the type {unknown[1]}, which MLX does not read",
                    hint="save the weights in float32, float16 or bfloat16",
                ) from error
            raise CheckpointError(f"{path} is not a whole safetensors file: {error}", hint=AGAIN) from error
        assert isinstance(loaded, dict)
        tensors |= loaded
    return tensors


def tensor_files(folder: Path, stem: str) -> list[Path]:
    """The files that hold the tensors of a stem, each of which is there."""
    index = folder / f"{stem}.safetensors.index.json"
    names = [f"{stem}.safetensors"]
    if index.exists():
        placed = read_json(index).get("weight_map")
        if not isinstance(placed, dict) or not all(_inside(name) for name in placed.values()):
            raise CheckpointError(f"{index} does not say which file of {folder} holds a tensor", hint=AGAIN)
        names = sorted(set(placed.values()))
    for name in names:
        if not (folder / name).is_file():
            pickled = next((p.name for p in sorted(folder.glob("pytorch_model*.bin"))), None)
            if pickled and not index.exists():
                raise UnsupportedError(
                    f"{folder} holds only pickled weights ({pickled}), which could run code",
                    hint="save it as safetensors: save_pretrained of transformers does",
                )
            raise CheckpointError(
                f"{folder} lacks {name}", hint="the directory is not whole: copy or save it again"
            )
    return [folder / name for name in names]


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """The one-line error for a file that is there but cannot be read."""
    return CheckpointError(
        f"{path} cannot be read: {error.strerror or error}", hint="check who may read it, and the disk"
    )


def _inside(name: Any) -> bool:
    """Whether a name in a list leads to a file of the directory that the list is in."""
    return isinstance(name, str) and not Path(name).is_absolute() and ".." not in Path(name).parts


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a checkpoint, or a CheckpointError naming it."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", hint=AGAIN) from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} must hold a JSON object", hint=AGAIN)
    return data


def read_config(folder: Path) -> ModelConfig:
    """The config of a model directory, refused when its sizes could not be built in any memory."""
    path = folder / "config.json"
    data = {key: value for key, value in read_json(path).items() if key not in quantized.KEYS}
    config = layout.from_hf(data, str(path))
    sizes = {name: getattr(config, name) for name in layout.SIZES if not name.endswith(("bias", "range"))}
    sizes["num_attention_heads x head_dim"] = config.num_attention_heads * config.head_dim
    for name, size in sizes.items():
        most = MOST_LAYERS if name == "num_hidden_layers" else MOST
        if size > most:
            raise CheckpointError(f"{path}: {name} is {size}, at most {most} can be", hint=UNPAIRED)
    return config


def validate(path: Path, *, hashes: bool = True) -> dict[str, Any]:
    """Check a directory against its manifest and return the manifest; every defect is a CheckpointError
    naming it."""
    path = Path(path)
    files.recover(path)
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a directory", hint=EXPECTED)
    if not (path / MANIFEST).is_file():
        other = (path / "config.json").is_file() or (path / "adapter_config.json").is_file()
        hint = "another tool wrote it, so there is no list to check its files against" if other else EXPECTED
        raise CheckpointError(f"{path} has no {MANIFEST}", hint=hint)
    manifest = read_json(path / MANIFEST)
    version = manifest.get("format")
    if not isinstance(version, int) or version > FORMAT:
        raise CheckpointError(
            f"{path} has format version {version}, this tinygpt reads up to {FORMAT}", hint="upgrade tinygpt"
        )
    if manifest.get("kind") not in KINDS:
        raise CheckpointError(f"{path} has the unknown kind '{manifest.get('kind')}'", hint="upgrade tinygpt")
    listed = manifest.get("files")
    if not isinstance(listed, dict):
        raise CheckpointError(f"{path / MANIFEST} lists no files", hint=AGAIN)
    for name, facts in listed.items():
        file = path / name
        if not _inside(name):
            raise CheckpointError(f"{path / MANIFEST} lists {name}, which lies outside {path}", hint=AGAIN)
        if not isinstance(facts, dict) or not {"bytes", "sha256"} <= set(facts):
            raise CheckpointError(f"{path / MANIFEST} gives no size and SHA-256 for {name}", hint=AGAIN)
        if not file.is_file():
            raise CheckpointError(f"{path} lacks {name}, which its manifest lists", hint=AGAIN)
        size = file.stat().st_size
        if size != facts["bytes"]:
            raise CheckpointError(
                f"{file} has {size} bytes, the manifest says {facts['bytes']}",
                hint="it is cut off: copy it again, or use another checkpoint",
            )
        try:
            changed = hashes and files.sha256(file) != facts["sha256"]
        except OSError as error:
            raise unreadable(file, error) from error
        if changed:
            raise CheckpointError(
                f"{file} was changed after it was saved: its SHA-256 differs from the manifest's", hint=AGAIN
            )
    return manifest


def identity(path: Path) -> str:
    """One hash of a model's weights, the same for every copy: SHA-256 over its tensor files' names and
    hashes."""
    path = Path(path)
    found = sorted(path.glob("model*.safetensors"))
    if not found:
        raise CheckpointError(
            f"{path} holds no model*.safetensors", hint="give the path of a model directory"
        )
    listed = validate(path, hashes=False)["files"] if (path / MANIFEST).is_file() else {}
    lines = [f"{p.name} {listed[p.name]['sha256'] if p.name in listed else files.sha256(p)}\n" for p in found]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def load(
    path: Path, *, hashes: bool = True, dtype: str = "auto", packing: quantized.Packing | None = None
) -> Loaded:
    """Open a model directory: ours (checked against its manifest), a plain Hugging Face one of a known type,
    or through mlx_lm one of another type (model/foreign.py).

    dtype: what half-precision weights become: "auto" keeps them on GPUs and widens them on CPUs, where their
    products are slow; "stored" keeps them everywhere; else the name of a dtype. What is packed in the files
    stays packed; with `packing` all matrices are packed as they are read, one after the other, so that the
    dense ones are never all in memory."""
    path = Path(path)
    files.recover(path)
    if not path.exists():
        raise CheckpointError(
            f"there is no model at {path}", hint="check the path; `tinygpt train --out` makes one"
        )
    manifest: dict[str, Any] = {}
    if (path / MANIFEST).exists() or not (path / "config.json").exists():
        manifest = validate(path, hashes=hashes)
        if manifest["kind"] != "model":
            what = "its base model" if manifest["kind"] == "adapter" else "a model"
            raise CheckpointError(
                f"{path} is of kind {manifest['kind']}, not a model", hint=f"pass {what} instead"
            )
    data = read_json(path / "config.json")
    wide = weights.wide(dtype)
    if foreign.serves(path, data):
        model = foreign.load(path, data, dtype=wide, packing=packing)
        return Loaded(model=model, config=model.config, manifest=manifest, path=path)
    config = read_config(path)
    model, where = LM(config), str(path)
    tensors, usual, single = repack.packed_as_ours(read_tensors(path, "model"), data, where)
    tensors = layout.from_disk(tensors, config)
    weights.place(model, tensors, usual, single, packing, dtype=wide, where=where)
    fill(model, tensors, where, wide)
    return Loaded(model=model, config=config, manifest=manifest, path=path)
