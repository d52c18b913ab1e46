"""Settings of `run-lm-eval`, and who is asked under them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

from tinygpt.core import config as configs
from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError, DependencyError
from tinygpt.core.events import Events
from tinygpt.runs import _pieces
from tinygpt.runs._asked import NOWHERE, Asked
from tinygpt.runs._lm_eval_words import Words

AUTO, THOUGHT = "auto", "</think>"
LENGTH = 2048  # lm-eval's, where a server does not say how long its texts may be


@dataclass(frozen=True, kw_only=True)
class Config(Asked):
    """Settings of `run-lm-eval`."""

    REMOTE = ("seconds", "tries", "tokenizer")

    tasks: Annotated[tuple[str, ...], "Tasks or groups of lm-eval; a pattern as mmlu_* is all it fits."]
    include_path: Annotated[tuple[Path, ...], "Folder with tasks of your own; may be repeated."] = ()
    limit: Annotated[int, "The first so many documents of each task; 0: all."] = 0
    shots: Annotated[int | None, "Solved examples before each question; not given: as the task has it."] = (
        None
    )
    batch: Annotated[int, "Rows computed at once; with --url requests made at once."] = 8
    max_length: Annotated[int, "Tokens that a text may have; 0: the model's context."] = 0
    apply_chat_template: Annotated[bool, "Ask in a conversation."] = False
    system: Annotated[str, "With --apply-chat-template or alone: what comes before every prompt."] = ""
    gen_kwargs: Annotated[str, "How answers are written, e.g. temperature=0.7,max_gen_toks=128."] = ""
    think_end_token: Annotated[
        str, "What ends a thought, which is no part of the answer; auto: </think> in conversations."
    ] = AUTO
    seed: Annotated[int | None, "Seed of examples and answers; not given: lm-eval's own."] = None
    kind: Annotated[Literal["completions", "chat"], "With --url: what the server is asked for."] = (
        "completions"
    )
    hf_model: Annotated[str, "Measure this model through transformers, lm-eval's hf."] = ""
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], "With --hf-model: of its weights."] = (
        "float32"
    )
    device: Annotated[str, "With --hf-model: cpu, mps or cuda."] = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tasks:
            raise ConfigError("nothing to measure", hint="give --tasks NAME")
        for name in ("limit", "max_length"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{configs.flag(name)} must not be negative, got {getattr(self, name)}")
        if self.shots is not None and self.shots < 0:
            raise ConfigError(f"--shots must not be negative, got {self.shots}")
        if self.hf_model and (self.url or self.adapter):
            raise ConfigError("--hf-model goes without --url and --adapter", hint="leave one of them out")
        if self.hf_model and self.model != NOWHERE:
            raise ConfigError(f"--hf-model and {self.model} are two models", hint="leave one of them out")
        refuse_idle(self, {"kind": "url", "dtype": "hf_model", "device": "hf_model"})

    @property
    def chat(self) -> bool:
        """Whether prompts are conversations."""
        return self.apply_chat_template or self.kind == "chat"

    @property
    def backend(self) -> str:
        """lm-eval's name of what answers."""
        served = "local-chat-completions" if self.kind == "chat" else "local-completions"
        return "hf" if self.hf_model else served if self.url else "tinygpt"

    def think_end(self, template: str) -> str:
        """What ends a thought; `template` is the model's, where it is known."""
        if self.think_end_token != AUTO:
            return self.think_end_token
        return THOUGHT if self.chat and (self.url or THOUGHT in template) else ""


def opened(config: Config, kinds: set[str], events: Events) -> tuple[Any, Any]:
    """Who is measured, and lm-eval's model of it. A server is tried first: RemoteError or UnsupportedError
    where it does not do what these kinds of tasks need."""
    scores = kinds - {"generate_until"}
    if config.hf_model:
        return _transformers(config)
    if config.kind == "chat" and scores:
        raise ConfigError(
            f"--kind chat: servers tell no log-likelihoods of it, which {', '.join(sorted(scores))} needs",
            hint="ask with --kind completions",
        )
    endpoint: Any = config.open(events)
    length = config.max_length or endpoint.context
    more: Any = {"seed": 1234 if config.seed is None else config.seed, "events": events}
    if not config.url:
        from tinygpt.runs._lm_eval_model import lm_class

        think = config.think_end(endpoint.engine.template.source)
        return endpoint, lm_class()(
            endpoint.engine, batch_size=config.batch, max_length=length, think_end_token=think, **more
        )
    from tinygpt.runs._lm_eval_http import client, preflight
    from tinygpt.runs._openai import Client

    words = None if endpoint.tokenizer is None else Words(endpoint.tokenizer)
    server = Client(config.url, seconds=config.seconds, tries=config.tries)
    model = client(
        server, endpoint.model, chat=config.kind == "chat", scores=bool(scores), words=words,
        batch=config.batch, max_length=length or LENGTH, think_end=config.think_end(""), **more,
    )  # fmt: skip
    preflight(model, bool(scores), "generate_until" in kinds)
    return endpoint, model


def _transformers(config: Config) -> tuple[Any, Any]:
    """lm-eval's own backend."""
    try:
        from lm_eval.models.huggingface import HFLM
        from lm_eval.utils import set_torch_seed
    except ImportError as error:
        raise DependencyError("torch and transformers", "test-parity", "--hf-model") from error
    backend: Any = HFLM
    set_torch_seed(1234 if config.seed is None else config.seed)
    folder = Path(config.hf_model)
    if not folder.is_dir():
        raise ConfigError(f"--hf-model {folder} is no folder", hint="name a model's directory")
    try:
        model = backend(
            pretrained=config.hf_model, dtype=config.dtype, device=config.device, batch_size=config.batch,
            max_length=config.max_length or None, think_end_token=config.think_end("") or None,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ConfigError(f"transformers cannot open {folder}: {str(error).splitlines()[0][:300]}") from error
    return SimpleNamespace(
        name=config.model_name or folder.resolve().name, path=config.hf_model, step=config.model_step,
        model_hash=_pieces.checkpoint.identity(folder), baseline=config.baseline, facts={},
    ), model  # fmt: skip
