"""Look into a checkpoint, and check that it is whole and survives a rewrite."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tinygpt.core import events
from tinygpt.core.errors import CheckpointError, GateFailed
from tinygpt.model import checkpoint, count, foreign, layout
from tinygpt.model.lm import LM
from tinygpt.model.shards import Shards
from tinygpt.peft import _mlx_lm, _tgla
from tinygpt.runs import _beside, _package, _pieces


def inspect(path: Path) -> dict[str, Any]:
    """Facts of a model, adapter or run directory; tensors as (name, shape, dtype, bytes)."""
    model_dir = _pieces.model_path(path)
    if _tgla.is_one(model_dir):
        hint = f"tinygpt adapter-convert {model_dir} --base MODEL --out FOLDER makes one to look into"
        raise CheckpointError(f"{model_dir} is an adapter file of the original", hint=hint)
    manifest = checkpoint.validate(model_dir) if (model_dir / checkpoint.MANIFEST).exists() else {}
    kind = manifest.get("kind", "model")
    if kind not in ("model", "adapter"):
        raise CheckpointError(
            f"{model_dir} is of kind {kind}, not a model", hint="give a model or an adapter"
        )
    if not manifest and (theirs := _adapter_of_others(model_dir)):
        return theirs
    adapter = kind == "adapter"
    tensors = checkpoint.read_tensors(model_dir, "adapter_model" if adapter else "model")
    facts: dict[str, Any] = {"path": str(model_dir), "kind": manifest.get("kind", "Hugging Face directory")}
    facts |= {
        k: manifest[k] for k in ("format", "made_by", "base", "peft", "packed", "step") if k in manifest
    }
    data = {} if adapter else checkpoint.read_json(model_dir / "config.json")
    if foreign.serves(model_dir, data):
        facts |= {"model_type": data["model_type"], "config": data}
    elif not adapter:
        config = checkpoint.read_config(model_dir)
        facts["model_type"] = layout.model_type(config)
        facts["config"] = layout.to_hf(config)
        facts["flops_per_training_token"] = count.flops_per_token(config, config.max_position_embeddings)
        facts["cache_bytes_at_full_context"] = count.cache_bytes(config, config.max_position_embeddings)
    facts["parameters"] = sum(int(t.size) for t in tensors.values())
    facts["bytes"] = sum(p.stat().st_size for p in model_dir.iterdir() if p.is_file())
    facts["resumable"] = (model_dir / "state.json").exists()
    facts |= _last_losses(path)
    facts["tensors"] = _listed(tensors)
    return facts


def _listed(tensors: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": n, "shape": list(t.shape), "dtype": str(t.dtype).rsplit(".", 1)[-1], "bytes": t.nbytes}
        for n, t in sorted(tensors.items())
    ]


def _adapter_of_others(path: Path) -> dict[str, Any]:
    """Facts of an adapter that peft or mlx-lm wrote; none where it is no adapter of theirs."""
    config = path / "adapter_config.json"
    if not config.is_file() or (path / "config.json").is_file():
        return {}
    writer, stem = ("mlx-lm", "adapters") if _mlx_lm.is_one(path) else ("peft", "adapter_model")
    tensors, data = checkpoint.read_tensors(path, stem), checkpoint.read_json(config)
    said = {k: v for k, v in data.items() if v not in (None, False, "", [], {})}
    return {
        "path": str(path), "kind": f"adapter of {writer}", "adapter": said,
        "parameters": sum(int(t.size) for t in tensors.values()),
        "bytes": sum(p.stat().st_size for p in path.iterdir() if p.is_file()), "tensors": _listed(tensors),
    }  # fmt: skip


def _last_losses(path: Path) -> dict[str, Any]:
    log = path / "events.jsonl"
    if not log.is_file():
        return {}
    rows = events.read(log)
    facts: dict[str, Any] = {}
    for row in reversed(rows):
        if row.get("kind") == events.TrainStep.kind and "loss" in row:
            facts.setdefault("last_loss", row["loss"])
        if row.get("kind") == events.Evaluated.kind and row.get("name") == "held_out":
            facts.setdefault("last_held_out", row.get("metrics"))
    return facts


def validate(path: Path) -> dict[str, Any]:
    """Check manifest, sizes, hashes and tensors, then write the model again and compare. Exit 1 when it
    differs.

    A packaged specialist must also hold exactly the files of its lock, unchanged.
    """
    model_dir = _pieces.model_path(path)
    if (path / _package.LOCK).exists() or model_dir == path / "model":
        _package.verify(path)
    manifest = checkpoint.validate(model_dir)
    if manifest["kind"] == "adapter":
        checkpoint.refuse_nan(checkpoint.read_tensors(model_dir, "adapter_model"), str(model_dir))
    if manifest["kind"] != "model":
        return {
            "path": str(model_dir),
            "kind": manifest["kind"],
            "verdict": "OK",
            "files": len(manifest["files"]),
        }
    loaded = checkpoint.load(model_dir, hashes=False)
    model: Any = loaded.model  # mlx_lm's, where it opened the directory
    if not isinstance(model, LM):
        return _validate_foreign(model_dir, manifest)
    with tempfile.TemporaryDirectory() as scratch:
        again = checkpoint.save(
            Path(scratch) / "again", loaded.model, ids=token_ids(model_dir), dtype=loaded.dtype
        )
        same = _same_tensors(again, model_dir)
        config_same = (again / "config.json").read_bytes() == (model_dir / "config.json").read_bytes()
        # Written by an older tinygpt it lacks knobs that are at their defaults: what it says counts.
        meaning_same = checkpoint.read_config(again) == loaded.config
    if not same or not meaning_same:
        what = "its weights" if not same else "its config.json"
        raise GateFailed(f"{model_dir} reads, but {what} would be written differently")
    verdict = "OK" if config_same else "OK (semantic: config.json says the same in other words)"
    return {"path": str(model_dir), "kind": "model", "verdict": verdict, "files": len(manifest["files"])}


def _validate_foreign(model_dir: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """A model that mlx_lm opens has no config of ours to be written from: its tensors are compared."""
    model = checkpoint.load(model_dir, hashes=False, dtype="stored").model
    with tempfile.TemporaryDirectory() as scratch:
        _beside.write_model(Path(scratch), model_dir, model, None)
        if not _same_tensors(Path(scratch), model_dir):
            raise GateFailed(f"{model_dir} reads, but its weights would be written differently")
    return {"path": str(model_dir), "kind": "model", "verdict": "OK", "files": len(manifest["files"])}


def _same_tensors(a: Path, b: Path) -> bool:
    """Whether two models hold the same bits under the same names; how they lie in files does not count."""
    one, two = Shards(a), Shards(b)
    kinds = ({n: (e.code, e.shape) for n, e in s.entries.items()} for s in (one, two))
    return next(kinds) == next(kinds) and all(one.bits(n) == two.bits(n) for n in one)


def token_ids(model_dir: Path) -> dict[str, int | None]:
    """The eos, bos and pad ids that config.json names."""
    data = checkpoint.read_json(model_dir / "config.json")
    return {name: data.get(f"{name}_token_id") for name in ("eos", "bos", "pad")}
