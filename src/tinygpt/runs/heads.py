"""Heads: train Medusa's or EAGLE's heads beside a frozen model, so that it can guess its next tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tinygpt.core import files
from tinygpt.core.backend import mx
from tinygpt.core.config import fields, refuse_idle
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events
from tinygpt.data.source import text
from tinygpt.model import checkpoint
from tinygpt.model.drafting import heads as stored
from tinygpt.model.drafting.features import Features
from tinygpt.model.noise import Noise
from tinygpt.runs import _directory, _pieces, _train
from tinygpt.runs._directory import RunDirectory
from tinygpt.runs._settings import TrainSettings
from tinygpt.train.heads import HeadsLoss
from tinygpt.train.loop import Result
from tinygpt.train.world import world

# Settings of training runs that mean nothing where the model itself does not learn; they have no flags.
IDLE = (
    "lr_layer_decay", "z_loss", "dropout", "layer_drop", "neftune_alpha", "grad_checkpoint", "qat",
    "eval_tasks", "eval_limit", "sample_every", "sample_prompt", "sample_tokens",
)  # fmt: skip
MEDUSA = 4  # heads, where nothing is said
NOISE = 0.1  # on EAGLE's features, where nothing is said: the paper's
LOOK = 512  # tokens whose features are measured


@dataclass(frozen=True, kw_only=True)
class Config(TrainSettings):
    """Settings of a run that trains heads."""

    base: Annotated[Path, "Model that the heads are for: a model, run or specialist directory."]
    type: Annotated[
        Literal["medusa", "eagle"], "Heads that each guess one place ahead, or a layer that writes on."
    ] = "medusa"
    corpus: Annotated[
        tuple[Path, ...],
        "Text like what the model will write: files, .jsonl or .parquet with {text} rows, folders.",
    ]
    glob: Annotated[str, "Which files of a folder are read, at any depth."] = "*.txt"
    held_out: Annotated[float, "Fraction of the text kept to measure how often guesses are right."] = 0.05
    strict: Annotated[bool, "Refuse files and rows that cannot be read, instead of counting them."] = False
    num_heads: Annotated[int | None, "Of medusa: places ahead that are guessed; not given: 4."] = None
    hidden_dim: Annotated[int, "Width inside the heads; 0: the model's own."] = 0
    adapter: Annotated[
        tuple[Path, ...], "Adapter that the base wears, now and when the heads are used; may be repeated."
    ] = ()
    feature_noise: Annotated[
        float | None,
        "Of eagle: uniform noise on the features that are read in training, in their root mean squares; not "
        "given: 0.1.",
    ] = None
    context: Annotated[int, "Tokens of a row; 0: 512, or the model's own if that is less."] = 0
    lr: Annotated[float | None, "Peak learning rate; not given: 1e-3."] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for f in fields(TrainSettings):
            if f.name in IDLE and getattr(self, f.name) != f.default:
                flag = f.name.replace("_", "-")
                raise ConfigError(
                    f"--{flag} means nothing where the model does not learn", hint="leave it out"
                )
        if self.type == "eagle" and self.num_heads is not None:
            raise ConfigError(
                "--num-heads is Medusa's: EAGLE's one layer writes on as long as it is asked",
                hint="leave it out",
            )
        if self.type == "medusa" and self.feature_noise is not None:
            raise ConfigError(
                "--feature-noise is EAGLE's: Medusa's heads read no features of their own",
                hint="leave it out",
            )
        if self.num_heads is not None and self.num_heads < 1:
            raise ConfigError(f"--num-heads must be at least 1, got {self.num_heads}")
        if self.hidden_dim < 0:
            raise ConfigError(f"--hidden-dim must not be negative, got {self.hidden_dim}")
        refuse_idle(self, {"glob": "corpus"})

    @property
    def noise(self) -> Noise:
        """What is done to features in training."""
        given = NOISE if self.feature_noise is None else self.feature_noise
        return Noise(features=given if self.type == "eagle" else 0.0)

    @property
    def horizons(self) -> int:
        """Places ahead that are learned."""
        return 1 if self.type == "eagle" else self.num_heads or MEDUSA


def run(config: Config, events: Events) -> Result:
    """Train and leave `out/final`, a directory of heads; the base's weights stay as they are."""
    if not config.corpus:
        raise ConfigError("there is nothing to learn from", hint="give --corpus a file or a folder")
    directory = RunDirectory("train-heads", config, world())
    loaded, tokenizer = _pieces.open_model(config.base, config.adapter, events=events)
    model: Any = loaded.model
    model.freeze()
    base = loaded.path
    length = config.context or min(512, model.config.reach)
    if length <= config.horizons + 1 or length > model.config.reach:
        raise ConfigError(
            f"rows of {length} tokens do not do for {config.horizons} places ahead in a context of "
            f"{model.config.reach}",
            hint="choose another --context",
        )
    source = text.build(
        text.Config(paths=config.corpus, glob=config.glob, held_out=config.held_out, strict=config.strict),
        tokenizer, length=length, batch_size=config.amounts.batch, seed=directory.seed, events=events,
        packs=getattr(model, "packs", True),
    )  # fmt: skip
    features = Features(model)
    rows = mx.array(source[0].tokens)
    scales = features.scales(rows[: max(1, LOOK // length)])
    facts = stored.Facts(
        kind=config.type, width=features.width, hidden=config.hidden_dim or features.width,
        vocab_size=features.vocab_size, horizons=config.horizons,
        feature_scale=scales[0], embedding_scale=scales[1],
    )  # fmt: skip
    heads = stored.build(facts, directory.seed)
    heads.packs = getattr(model, "packs", True)

    inputs = _directory.inputs(source, tokenizer, base)
    worn = [_pieces.model_path(adapter) for adapter in config.adapter]
    tensors = [f for path in worn for f in ([path] if path.is_file() else sorted(path.glob("*.safetensors")))]
    if worn:
        inputs["the adapters"] = " ".join(map(files.sha256, tensors))

    def write(path: Path, **parts: Any) -> Path:
        return stored.save(path, heads, base=base, adapters=list(map(str, worn)), **parts)

    def resume(path: Path) -> None:
        stored.fill(heads, checkpoint.read_tensors(path, "heads"), str(path))

    told = {"learned_parameters": _pieces.n_parameters(heads), **source.describe()}
    return _train.train(
        directory, source=source, held_out=source.held_out, objective=HeadsLoss(heads, features),
        inputs=inputs, write=write, resume=resume, events=events,
        facts=told | {"epochs": source.epochs(config.amounts.steps)}, tokenizer=tokenizer,
    )  # fmt: skip
