"""Open a Hugging Face model, from here or the hub, and write it as a checkpoint that computes the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from mlx.utils import tree_flatten

from tinygpt.core import files
from tinygpt.core.backend import mx
from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import GateFailed
from tinygpt.core.events import Events
from tinygpt.data.tokenizer import hf
from tinygpt.data.tokenizer._protocol import Tokenizer
from tinygpt.model import checkpoint, quantized, weights
from tinygpt.model.shards import Shards
from tinygpt.runs import _beside, _hub, _model_facts, _pieces

PROBE = "The capital of France is Paris, and 2 + 2 = 4."


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of `hf-load`."""

    model: Annotated[Path, "A Hugging Face model directory, or hf://org/name[@revision]."]
    out: Annotated[
        Path | None, "Directory to write it to, sealed as ours; without it the model is only opened."
    ] = None
    dtype: Annotated[
        Literal["preserve", "f32", "f16", "bf16"], "How weights are stored that are not packed."
    ] = "preserve"
    probe: Annotated[str, "Text whose next tokens must be the same before and after."] = PROBE
    force: Annotated[bool, "Replace an earlier model at --out."] = False

    def __post_init__(self) -> None:
        refuse_idle(self, {"dtype": "out", "force": "out"})


def run(config: Config, events: Events) -> dict[str, Any]:
    """Facts of the model, what it says of the probe, and how far the written one is from it."""
    if config.out is not None:
        _beside.claim(config.out, force=config.force)
    folder = _pieces.model_path(_hub.fetch(config.model, events))
    loaded, tokenizer = checkpoint.load(folder, dtype="stored"), hf.load(folder)
    model: Any = loaded.model
    ids = mx.array([_ids(tokenizer, config.probe, loaded.config.vocab_size, loaded.config.reach)])
    before = _last(model, ids)
    data = checkpoint.read_json(folder / "config.json")
    how = quantized.packing(model)
    opener, why = _model_facts.opens(folder, data)
    origin = _beside.origin(config.model, folder)
    facts: dict[str, Any] = {
        "path": str(folder), "from": origin["path"], "architecture": _model_facts.known_as(data),
        "opens": opener, "why": why,
        "parameters": _model_facts.tensors(Shards(folder).entries, data)["parameters"],
        "quantisation": str(how) if how else None, "tokenizer_hash": tokenizer.hash,
        "next": _next(tokenizer, before),
    }  # fmt: skip
    if config.out is None:
        return facts
    with files.atomic_directory(config.out, replace=config.force) as made:
        _beside.write_model(made, folder, model, _beside.DTYPES.get(config.dtype), imported=origin)
        computed = weights.stored(dict(tree_flatten(model.parameters())))
        del loaded, model  # never two of them in memory
        # Read back it computes in the dtype it had before: what differs then is the weights alone.
        again = "stored" if config.dtype == "preserve" else str(computed).rsplit(".", 1)[-1]
        after = _last(checkpoint.load(made, dtype=again, hashes=False).model, ids)
        same = bool(mx.array_equal(before, after).item())
        apart = (mx.abs(after - before).max() / mx.maximum(mx.abs(before).max(), 1e-12)).item()
        if config.dtype == "preserve" and not same:
            raise GateFailed(
                f"what was written computes something else: its logits differ by {apart:.1e} of the largest",
                hint="nothing was kept; please report the model's name",
            )
    return {
        **facts, "out": str(config.out), "dtype": config.dtype, "same_logits": same, "logits_apart": apart,
        "bytes": sum(p.stat().st_size for p in config.out.rglob("*") if p.is_file()),
        "next_after": _next(tokenizer, after),
    }  # fmt: skip


def _ids(tokenizer: Tokenizer, text: str, most: int, reach: int) -> list[int]:
    """The probe's ids, begun as a text begins."""
    start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    return [i for i in (start, *tokenizer.encode(text)) if i < most][:reach]


def _last(model: Any, ids: mx.array) -> mx.array:
    """The logits (V) after a text, in float32."""
    found = model(ids)[0, -1].astype(mx.float32)
    mx.eval(found)
    return found


def _next(tokenizer: Tokenizer, logits: mx.array, n: int = 5) -> list[dict[str, Any]]:
    """The likeliest next tokens."""
    p = mx.softmax(logits)
    best: list[int] = mx.argsort(-p)[:n].tolist()  # type: ignore[assignment]
    return [{"token": tokenizer.decode([i]), "id": i, "p": p[i].item()} for i in best]
