"""Train-extractor: a router, which tells from a request which tool serves it, or that none does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.core.config import from_dict, to_dict
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.data import bpe, requests
from tinygpt.data.tokenizer import hf
from tinygpt.model.config import ModelConfig
from tinygpt.router import calibrate, encoder, linear, pairs, router, source
from tinygpt.router.neighbours import Neighbours
from tinygpt.router.objective import ToolLoss
from tinygpt.router.pairs import Pair
from tinygpt.router.router import Router
from tinygpt.runs import _bench_plot, _directory, _pieces, _router_report, _train
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._memory import refuse_too_large
from tinygpt.runs._router_pairs import plan as plan
from tinygpt.runs._router_pairs import read
from tinygpt.runs._router_settings import BYTES, Config
from tinygpt.train.loop import Result
from tinygpt.train.world import world

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer

FRESH = {"hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size"}


def run(config: Config, events: Events) -> Result:
    """Train and leave `out/final`: a router with its report and the picture of its calibration."""
    if config.dry_run:
        raise ConfigError("dry_run counts and trains nothing", hint="call plan, or leave it out")
    _bench_plot.plotter()  # a missing picture is told before anything is learned
    directory = RunDirectory("train-extractor", config, world())
    seed = directory.seed
    parts = read(config, seed, events)
    labels = pairs.labels(parts.learn)
    tokenizer = _tokenizer(config, directory.latest, parts.learn, events)
    shape = _shape(config, tokenizer.vocab_size)
    refuse_too_large(shape, config.amounts.batch // config.accumulate, config.context, config.dtype)
    ids = {label: i for i, label in enumerate(labels)}
    weights = pairs.weights([ids[tool] for _, tool in parts.learn], len(labels), config.balance)

    def rows(part: list[Pair]) -> source.Requests:
        read = source.encoded(tokenizer, said(part, config.lower), config.context)
        return source.Requests(read, [ids[tool] for _, tool in part], weights)

    files = [*config.data, *config.out_of_scope, *config.test, *([config.tools] if config.tools else [])]
    taught, watched = rows(parts.learn), rows(parts.watch)
    events.note(f"the linear reader learns {len(labels)} classes from {len(parts.learn):,} requests")
    by_runs = linear.learned(
        said(parts.learn, config.lower),
        taught.classes,
        weights.tolist(),
        grams=config.grams,
        most=config.vectors,
    )
    near = Neighbours(parts.learn, labels)
    facts = encoder.Facts(labels=labels, model=to_dict(shape), lower=config.lower)
    module = encoder.build(shape, facts, seed)
    batch = config.amounts.batch
    held_out = source.build(watched, tokenizer, batch_size=batch, seed=None)
    learned = source.build(
        taught, tokenizer, batch_size=batch, seed=seed, files=files, held_out=held_out,
        facts={"classes": len(labels), "requests": len(parts.learn), "reported_on": len(parts.test)},
    )  # fmt: skip
    tools = requests.tools(config.tools) if config.tools else []
    descriptions = {tool["name"]: str(tool.get("description") or "") for tool in tools}

    def write(path: Path, **more: Any) -> Path:
        made = Router(module, by_runs, near, tokenizer)
        heard = made.said([query for query, _ in parts.watch])
        made.calibration = calibrate.fitted(heard, watched.classes, weights.tolist())
        if "optimizer" in more:  # a checkpoint to go on from is not what is reported on
            return router.save(path, made, **more)
        found = _router_report.report(
            made, parts.test, parts.learn, descriptions, baselines=config.baselines, seed=seed
        )
        told = {"learned_from": len(parts.learn), "calibration": to_dict(made.calibration), **found}
        return router.save(
            path, made, report=told, draw=lambda at: _router_report.draw(at, found["bins"]), **more
        )

    def resume(path: Path) -> None:
        router.fill(module, router.tensors(path)[0], str(path))

    told = {"learned_parameters": _pieces.n_parameters(module), **learned.describe()}
    return _train.train(
        directory, source=learned, held_out=held_out, objective=ToolLoss(module),
        inputs=_directory.inputs(learned, tokenizer, None), write=write, resume=resume, events=events,
        facts=told | {"epochs": learned.epochs(config.amounts.steps)}, tokenizer=tokenizer,
    )  # fmt: skip


def said(part: list[Pair], lower: bool) -> list[str]:
    """The requests as they are read."""
    return [query.lower() if lower else query for query, _ in part]


def _tokenizer(config: Config, latest: Path | None, learn: list[Pair], events: Events) -> Tokenizer:
    """The one that is named, or one trained here; a resumed run goes on with its own."""
    if config.tokenizer is not None or config.vocab_size == BYTES:
        return _pieces.open_tokenizer(config.tokenizer or "byte")
    if latest is not None:
        return hf.load(latest)
    made = bpe.train_bpe(said(learn, config.lower), bpe.Config(vocab_size=config.vocab_size))
    events.note(f"a tokenizer of {made.vocab_size} ids was trained on the requests to learn from")
    return made


def _shape(config: Config, vocab_size: int) -> ModelConfig:
    """The blocks' config: the preset, with the single fields of `model` on top."""
    base = to_dict(encoder.size(config.preset, vocab_size=vocab_size, context=config.context))
    if told := {"vocab_size", "max_position_embeddings", "qat_bits", "qat_group_size"} & config.model.keys():
        raise ConfigError(f"model.{min(told)} of a router follows from other settings", hint="leave it out")
    if config.model.keys() & (FRESH | {"mlp"}):  # derived sizes follow what is given
        base |= dict.fromkeys(("num_key_value_heads", "head_dim", "intermediate_size"), 0)
    return from_dict(ModelConfig, base | config.model, "model")
