"""Compare a base with adapters on it: losses, answers to the same questions, rows known by heart."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.data import bm25
from tinygpt.eval import paired
from tinygpt.eval.suites import exact_match, heldout_loss
from tinygpt.runs import _compare_page, _compared
from tinygpt.runs._local_endpoint import LocalEndpoint


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of `compare`."""

    base: Annotated[Path, "The model that the adapters were trained on."]
    adapter: Annotated[tuple[Path, ...], "Adapter directory or file to compare; may be repeated."]
    corpus: Annotated[tuple[Path, ...], "Held-out text: files or folders."] = ()
    glob: Annotated[str, "Which files of a folder of text or documents are read."] = "*.txt"
    context: Annotated[int, "Tokens of a window of text; 0: the model's context."] = 0
    windows: Annotated[int, "Most windows to read, evenly spread over the text; 0: all."] = 240
    data: Annotated[Path | None, "Held-out rows with questions and answers: the four-way matrix."] = None
    limit: Annotated[int, "Use the first so many of these rows; 0: all."] = 100
    examples: Annotated[
        Path | None, "Rows that few-shot prompts are made of; not given: the first of the held-out rows."
    ] = None
    shots: Annotated[int, "Examples in a few-shot prompt."] = 3
    documents: Annotated[Path | None, "Folder of texts that passages are found in, with BM25."] = None
    passages: Annotated[int, "Passages put before a question."] = 3
    memorise: Annotated[Path | None, "Training rows: how many are continued word for word?"] = None
    prefix: Annotated[int, "Tokens of a training row that are given."] = 40
    go_on: Annotated[int, "Tokens that must follow exactly."] = 20
    sample: Annotated[bool, "Show what each model writes to the same few prompts."] = True
    prompt: Annotated[tuple[str, ...], "Text to go on from in these samples; may be repeated."] = ()
    max_tokens: Annotated[int, "Longest answer in tokens."] = 128
    force: Annotated[bool, "Also take an adapter that was trained on other weights."] = False
    out: Annotated[Path | None, "Write the comparison as a page: .html, .md or .json."] = None
    seed: Annotated[int, "Seed of the intervals' draws."] = 0

    def __post_init__(self) -> None:
        if not self.adapter:
            raise ConfigError("there is nothing to compare the base with", hint="give --adapter DIRECTORY")
        if not (self.corpus or self.data or self.memorise or self.prompt):
            raise ConfigError("nothing to compare on", hint="give --corpus, --data, --memorise or --prompt")
        refuse_idle(
            self,
            {"context": "corpus", "windows": "corpus", "examples": "data", "shots": "data", "limit": "data",
             "documents": "data", "passages": "documents", "prefix": "memorise", "go_on": "memorise"},
        )  # fmt: skip
        least = {"windows": 0, "context": 0, "limit": 0, "shots": 1, "passages": 1, "prefix": 1, "go_on": 1,
                 "max_tokens": 1, "seed": 0}  # fmt: skip
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least {bound}")
        if self.out is not None:
            _compare_page.check(self.out)


def run(config: Config, events: Events) -> dict[str, Any]:
    """Measure the base and each adapter on it, one after another, so that one model is held at a time.

    Facts of each model in `models`, the base first; differences are adapter minus base, paired, with their
    95 % intervals. The page is written where `out` says."""
    asked = _compared.Asked()
    if config.corpus:
        text = heldout_loss.load(heldout_loss.Config(paths=config.corpus, glob=config.glob))
        asked.texts = [item["text"] for item in text.items]
    if config.data is not None:
        _rows(config, asked)
    if config.memorise is not None:
        asked.memorise = _compared.read_rows(config.memorise)
    found: list[_compared.Measured] = []
    names = _compared.names(config.adapter)
    for name, adapters in ((_compared.BASE, ()), *((n, (a,)) for n, a in zip(names, config.adapter))):
        endpoint = LocalEndpoint.open(config.base, adapters, events=events, force=config.force)
        how = {n: getattr(config, n) for n in ("context", "windows", "prefix", "go_on", "max_tokens")}
        prompts = config.prompt if config.sample else ()
        found.append(_compared.measure(endpoint, asked, name, prompts=prompts, **how))
    result = _result(config, asked, found)
    if config.out is not None:
        _compare_page.write(config.out, result)
    return result


def _rows(config: Config, asked: _compared.Asked) -> None:
    """The questions, and what may stand before them."""
    assert config.data is not None
    rows = exact_match.load(exact_match.Config(path=config.data)).items
    if config.examples is not None:
        asked.shots = exact_match.load(exact_match.Config(path=config.examples)).items[: config.shots]
    else:
        asked.shots, rows = rows[: config.shots], rows[config.shots :]
    asked.rows = rows[: config.limit or None]
    if not asked.rows:
        raise ConfigError(
            f"{config.data} has no row left to ask after {len(asked.shots)} examples",
            hint="give more rows, or --examples FILE",
        )
    if config.documents is not None:
        texts = heldout_loss.load(heldout_loss.Config(paths=(config.documents,), glob=config.glob)).items
        asked.index = bm25.BM25([piece for item in texts for piece in bm25.passages(item["text"])])
    asked.n_passages, asked.n_samples = config.passages, 3 if config.sample else 0


def _result(config: Config, asked: _compared.Asked, found: list[_compared.Measured]) -> dict[str, Any]:
    base, models = found[0], list[dict[str, Any]]()
    for model in found:
        facts: dict[str, Any] = {"name": model.name}
        if model.loss is not None and base.loss is not None:
            loss = model.loss
            facts |= {"loss": loss.loss, "perplexity": loss.perplexity, "bits_per_byte": loss.bits_per_byte}
            if model is not base:
                gap = paired.difference(loss.nats, base.loss.nats, loss.tokens, seed=config.seed)
                per_byte = gap.value and (loss.bits_per_byte - base.loss.bits_per_byte) / gap.value
                facts["difference"] = asdict(gap) | {"clear": gap.clear}
                facts["difference_bits_per_byte"] = {
                    key: value * per_byte for key, value in asdict(gap).items()
                }
        if model.memorised is not None:
            facts["memorised"] = asdict(model.memorised) | {"share": model.memorised.share}
        models.append(facts)
    matrix = [cell for model in found for cell in model.cells]
    samples = [
        {"prompt": prompt, **{model.name: model.samples[i] for model in found}}
        for i, prompt in enumerate(base.prompts)
    ]
    counts: dict[str, Any] = {}
    if base.loss is not None:
        counts["corpus"] = {"windows": len(base.loss.nats), "tokens": sum(base.loss.tokens)}
    if asked.rows:
        counts["rows"], counts["shots"] = len(asked.rows), len(asked.shots)
        counts["passages"] = len(asked.index.texts) if asked.index else 0
    return {
        "base": str(config.base), **counts, "models": models,
        "matrix": _compared.table(matrix, seed=config.seed), "samples": samples,
    }  # fmt: skip
