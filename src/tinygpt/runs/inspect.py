"""Look into a checkpoint: what it is, its tensors, its numbers; and check that it is whole and survives a rewrite."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from mlx.utils import tree_flatten

from tinygpt.core import events, files
from tinygpt.core.backend import mx
from tinygpt.core.errors import CheckpointError, DataError, GateFailed
from tinygpt.model import checkpoint, count, layout
from tinygpt.runs import _pieces


def inspect(path: Path) -> dict[str, Any]:
    """Facts of a model, adapter or run directory; tensors as (name, shape, dtype, bytes)."""
    model_dir = _pieces.model_path(path)
    manifest = checkpoint.validate(model_dir) if (model_dir / checkpoint.MANIFEST).exists() else {}
    adapter = manifest.get("kind") == "adapter"
    tensors = checkpoint.read_tensors(model_dir, "adapter_model" if adapter else "model")
    facts: dict[str, Any] = {"path": str(model_dir), "kind": manifest.get("kind", "Hugging Face directory")}
    facts |= {k: manifest[k] for k in ("format", "made_by", "base", "step") if k in manifest}
    if not adapter:
        config = layout.from_hf(checkpoint.read_json(model_dir / "config.json"), str(model_dir / "config.json"))
        facts["model_type"] = layout.model_type(config)
        facts["config"] = layout.to_hf(config)
        facts["flops_per_training_token"] = count.flops_per_token(config, config.max_position_embeddings)
        facts["cache_bytes_at_full_context"] = count.cache_bytes(config, config.max_position_embeddings)
    facts["parameters"] = sum(int(t.size) for t in tensors.values())
    facts["bytes"] = sum(p.stat().st_size for p in model_dir.iterdir() if p.is_file())
    facts["resumable"] = (model_dir / "state.json").exists()
    facts |= _last_losses(path)
    facts["tensors"] = [
        {"name": n, "shape": list(t.shape), "dtype": str(t.dtype).rsplit(".", 1)[-1], "bytes": t.nbytes}
        for n, t in sorted(tensors.items())
    ]
    return facts


def _last_losses(path: Path) -> dict[str, Any]:
    log = path / "events.jsonl"
    if not log.is_file():
        return {}
    rows = events.read(log)
    facts: dict[str, Any] = {}
    for kind, name in ((events.TrainStep.kind, "loss"), (events.Evaluated.kind, "held_out")):
        last = next((r for r in reversed(rows) if r["kind"] == kind), None)
        if last:
            facts[f"last_{name}"] = last.get("loss") or last.get("metrics")
    return facts


def validate(path: Path) -> dict[str, Any]:
    """Check manifest, sizes, hashes and tensors, then write the model again and compare. Exit 1 when it differs."""
    model_dir = _pieces.model_path(path)
    manifest = checkpoint.validate(model_dir)
    if manifest["kind"] != "model":
        return {"path": str(model_dir), "kind": manifest["kind"], "verdict": "OK", "files": len(manifest["files"])}
    loaded = checkpoint.load(model_dir, hashes=False)
    with tempfile.TemporaryDirectory() as scratch:
        again = checkpoint.save(Path(scratch) / "again", loaded.model, ids=token_ids(model_dir), dtype=loaded.dtype)
        same = [files.sha256(again / n) == files.sha256(model_dir / n) for n in _weights(again)]
        config_same = (again / "config.json").read_bytes() == (model_dir / "config.json").read_bytes()
        meaning_same = checkpoint.read_json(again / "config.json") == checkpoint.read_json(model_dir / "config.json")
    if not all(same) or not meaning_same:
        what = "its weights" if not all(same) else "its config.json"
        raise GateFailed(f"{model_dir} reads, but {what} would be written differently")
    verdict = "OK" if config_same else "OK (semantic: only the order of keys in config.json differs)"
    return {"path": str(model_dir), "kind": "model", "verdict": verdict, "files": len(manifest["files"])}


def _weights(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("model*.safetensors"))


def token_ids(model_dir: Path) -> dict[str, int | None]:
    """The eos, bos and pad ids that config.json names."""
    data = checkpoint.read_json(model_dir / "config.json")
    return {name: data.get(f"{name}_token_id") for name in ("eos", "bos", "pad")}


def names(path: Path) -> dict[str, Any]:
    """Tensor names that the config asks for, against those in the file."""
    model_dir = _pieces.model_path(path)
    config = layout.from_hf(checkpoint.read_json(model_dir / "config.json"), str(model_dir / "config.json"))
    from tinygpt.model.lm import LM

    wanted = set(count.tensors(LM(config)))
    found = set(layout.from_disk(checkpoint.read_tensors(model_dir, "model"), config))
    return {"common": len(wanted & found), "missing": sorted(wanted - found), "extra": sorted(found - wanted)}


def dtypes(path: Path) -> dict[str, Any]:
    """How many tensors and bytes of each dtype the file holds."""
    totals: dict[str, dict[str, int]] = {}
    for tensor in checkpoint.read_tensors(_pieces.model_path(path), "model").values():
        entry = totals.setdefault(str(tensor.dtype).rsplit(".", 1)[-1], {"tensors": 0, "values": 0, "bytes": 0})
        entry["tensors"] += 1
        entry["values"] += int(tensor.size)
        entry["bytes"] += tensor.nbytes
    return totals


def load(path: Path) -> list[dict[str, Any]]:
    """Each tensor as it sits in the loaded model: mean, deviation, extremes, and the difference from the file."""
    loaded = checkpoint.load(_pieces.model_path(path))
    disk = layout.from_disk(checkpoint.read_tensors(loaded.path, "model"), loaded.config)
    rows = []
    for name, value in tree_flatten(loaded.model.parameters()):
        x = value.astype(mx.float32)
        rows.append(
            {
                "name": name, "mean": x.mean().item(), "std": mx.std(x).item(), "min": x.min().item(),
                "max": x.max().item(), "difference": mx.abs(x - disk[name]).max().item(),
            }
        )  # fmt: skip
    return rows


def logits(path: Path, prompt: str, top: int) -> list[dict[str, Any]]:
    """The most likely next tokens after a prompt."""
    loaded, tokenizer = _pieces.open_model(path)
    ids = tokenizer.encode(prompt)
    if not ids:
        raise DataError("the prompt has no tokens", hint="give some text with --prompt")
    scores = loaded.model(mx.array([ids]))[0, -1].astype(mx.float32)
    probabilities = mx.softmax(scores)
    best = mx.argsort(-scores)[: max(1, top)].tolist()
    assert isinstance(best, list)
    return [
        {"id": i, "text": tokenizer.decode([i]), "logit": scores[i].item(), "probability": probabilities[i].item()}
        for i in best
    ]


# Sonnet 18, lines 1-8 (1609): a fixed text that every model can be measured on.
EXCERPT = """Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date:
Sometime too hot the eye of heaven shines,
And often is his gold complexion dimmed,
And every fair from fair sometime declines,
By chance, or nature's changing course, untrimmed."""


def loss(path: Path, text: str | None) -> dict[str, Any]:
    """Loss on a fixed excerpt or a given text, per token and in bits per byte."""
    loaded, tokenizer = _pieces.open_model(path)
    text = text or EXCERPT
    ids = tokenizer.encode(text)[: loaded.config.max_position_embeddings]
    if len(ids) < 2:
        raise CheckpointError("the text has fewer than two tokens", hint="give a longer one with --text")
    scored = loaded.model(mx.array([ids[:-1]]))[0].astype(mx.float32)
    nll = mx.logsumexp(scored, axis=-1) - mx.take_along_axis(scored, mx.array(ids[1:])[:, None], axis=-1)[:, 0]
    n_bytes = len(tokenizer.decode(ids[1:]).encode())
    nats = nll.sum().item()
    return {
        "tokens": len(ids) - 1, "bytes": n_bytes, "loss": nats / (len(ids) - 1),
        "bits_per_byte": nats / n_bytes / 0.6931471805599453,
    }  # fmt: skip
