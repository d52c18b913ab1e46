"""Automix: find the mixture of corpora whose small model reads a target text best."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core import files
from tinygpt.core.config import refuse_idle, to_dict
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events
from tinygpt.core.lock import gpu_lock
from tinygpt.data import corpus
from tinygpt.data.source import text
from tinygpt.eval.suites import heldout_loss
from tinygpt.runs import _pieces
from tinygpt.runs._proxy import Proxy
from tinygpt.runs._search import Plan, Report, Search
from tinygpt.runs._settings import FreshModel
from tinygpt.train.stop import on_signals


@dataclass(frozen=True, kw_only=True)
class Config(Plan):
    """Settings of a search for a mixture."""

    corpus: Annotated[tuple[str, ...], "name=path of a file or folder to mix; give two or more."]
    target: Annotated[tuple[Path, ...], "Text that the mixture is to serve; no proxy run reads it."]
    glob: Annotated[str, "Which files of a folder are read, at any depth."] = "*.txt"
    target_bytes: Annotated[int, "Measure on the documents of the target up to so many bytes; 0: all."] = (
        262144
    )
    out: Annotated[Path, "Report to write: a JSON line a proxy run; the recommendation lies beside it."] = (
        Path("automix-report.jsonl")
    )
    force: Annotated[bool, "Replace an existing report; otherwise its proxy runs are used again."] = False
    proxy_steps: Annotated[int, "Training steps of a proxy run."] = 2000
    preset: Annotated[str, "Size of a proxy's model."] = "tiny"
    model: Annotated[dict[str, Any], "Single fields of it, e.g. --set model.hidden_size=64."] = field(
        default_factory=dict[str, Any]
    )
    tokenizer: Annotated[str, "Tokenizer: 'byte', or a directory or tokenizer.json."] = "byte"
    batch: Annotated[int, "Rows of a step."] = 16
    context: Annotated[int, "Tokens of a row; 0: the preset's context."] = 0
    lr: Annotated[float, "Peak learning rate."] = 1e-3
    compile: Annotated[bool, "Compile the training step."] = True
    dry_run: Annotated[bool, "Show what would be drawn and what it costs; train and write nothing."] = False
    wait: Annotated[bool, "Wait for another run to free the machine."] = False
    lock: Annotated[bool, "Take the machine's lock (one heavy run at a time)."] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_idle(self, {"wait": "lock"})
        if self.proxy_steps < 1 or self.target_bytes < 0:
            name, least = ("proxy-steps", 1) if self.proxy_steps < 1 else ("target-bytes", 0)
            raise ConfigError(f"--{name} must be at least {least}")
        self.proxy()

    def named(self) -> dict[str, Path]:
        """The corpora by name, two or more."""
        found: dict[str, Path] = {}
        for item in self.corpus:
            name, equals, path = item.partition("=")
            if not (name and equals and path):
                raise ConfigError(f"--corpus {item} is not name=path", hint="as --corpus code=src")
            if name in found:
                raise ConfigError(f"two corpora are called {name}", hint="give each its own name")
            found[name] = Path(path)
        if len(found) < 2:
            raise ConfigError("there is nothing to mix", hint="give --corpus name=path at least twice")
        return found

    def proxy(self) -> FreshModel:
        """The training settings of a proxy run."""
        return FreshModel(
            out=self.out, steps=self.proxy_steps, batch=self.batch, context=self.context, lr=self.lr,
            preset=self.preset, tokenizer=self.tokenizer, model=self.model, compile=self.compile,
        )  # fmt: skip


def run(config: Config, events: Events) -> dict[str, Any]:
    """The recommendation, which is written beside the report; `rows` are the report's."""
    settings, named = config.proxy(), config.named()
    if not config.target:
        raise ConfigError("a mixture is judged on a target", hint="give --target a file or a folder")
    _pieces.refuse_inside(config.out)
    tokenizer = _pieces.open_tokenizer(config.tokenizer)
    corpora = [text.Config(paths=(path,), glob=config.glob, held_out=0) for path in named.values()]
    target = heldout_loss.Config(paths=config.target, glob=config.glob, limit_bytes=config.target_bytes)
    key = _key(config, tokenizer.hash, _hashes(config))
    report = Report(config.out, key, force=config.force)
    if config.dry_run:
        drawn = Search(config, list(named), report, None, events).drawn()
        length = settings.fresh(tokenizer.vocab_size, 0).config.max_position_embeddings
        tokens = config.proxy_steps * config.batch * length
        return {"dry_run": True, "runs": config.most, "tokens_per_run": tokens, "rows": drawn}
    began = time.monotonic()
    with gpu_lock("automix", wait=config.wait, enabled=config.lock, events=events), on_signals() as stop:
        proxy = Proxy(settings, tokenizer, corpora, target, events)

        def measure(shares: tuple[float, ...], seed: int, task: str) -> dict[str, Any] | None:
            started = time.monotonic()
            found = proxy.score(shares, seed, task, stop)
            return found and {**found, "seconds": round(time.monotonic() - started, 2)}

        search = Search(config, list(named), report, measure, events, began)
        status = search.run()
    found = {"status": status, **search.recommendation(), "proxy_steps": config.proxy_steps, "dry_run": False}
    if search.rows:
        report.recommend(found)
    return {**found, "rows": search.rows}


def _hashes(config: Config) -> dict[str, list[str]]:
    """SHA-256 of every file by corpus; a target that is also trained on is refused."""
    of = {**{name: (path,) for name, path in config.named().items()}, "": config.target}
    found: dict[str, list[str]] = {}
    for name, paths in of.items():
        named = corpus.find(text.Config(paths=paths, glob=config.glob))
        try:
            found[name] = [files.sha256(file) for file in named]
        except OSError as error:
            raise DataError(f"cannot read {error.filename}: {error.strerror}", hint="check it") from error
    for name, hashes in found.items():
        if name and set(hashes) & set(found[""]):
            raise ConfigError(
                f"a file of the target is in the corpus {name} too",
                hint="judge on text that no proxy run reads",
            )
    return found


def _key(config: Config, tokenizer: str, hashes: dict[str, list[str]]) -> str:
    """What scores depend on beside mixture and seed: runs of the same key can be used again."""
    counts = ("proxy_steps", "target_bytes", "preset", "model", "batch", "context", "lr")
    settings = {name: value for name, value in to_dict(config).items() if name in counts}
    whole = json.dumps([settings, tokenizer, hashes], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:16]
