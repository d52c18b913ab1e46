"""Settings of `serve`, checked before anything is opened."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError
from tinygpt.infer.config import SampleConfig
from tinygpt.runs import _served
from tinygpt.runs._drafters import Speculation
from tinygpt.runs._packs import Packs
from tinygpt.runs._prompt_cache import PromptCache
from tinygpt.serve import security

UNITS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
TRACES = Path("/tmp/tinygpt-traces")


@dataclass(frozen=True, kw_only=True)
class Config(Speculation, Packs, PromptCache):
    """Settings of `serve`."""

    model: Annotated[
        tuple[str, ...], "Models, runs or specialists, as PATH or NAME=PATH; the first is the default."
    ] = ()
    models_dir: Annotated[Path | None, "Also serve every model in this folder."] = None
    port: Annotated[int, "Where to listen; 0: any free port."] = 8080
    host: Annotated[str, "Address to listen on; any but this machine's own needs a key."] = "127.0.0.1"
    max_context: Annotated[
        int | None, "Longest prompt and answer together, in tokens; not given: the model's."
    ] = None
    lora: Annotated[
        tuple[str, ...],
        "NAME=PATH: an adapter that requests choose as MODEL+NAME; PATH alone: on every answer. Repeatable.",
    ] = ()
    lora_weight: Annotated[
        tuple[float, ...], "How much each adapter counts, in their order; not given: 1 each."
    ] = ()
    force: Annotated[bool, "Also take an adapter that was trained on other weights than the model's."] = False
    keep_alive: Annotated[
        str, "How long a model stays in memory after its last use, e.g. 5m; -1: for ever."
    ] = "-1"
    memory_limit: Annotated[
        float, "GB that models may take; those not used for longest go first; 0: no bound."
    ] = 0.0
    max_rows: Annotated[int, "Answers of one model that are written together."] = 32
    queue: Annotated[int, "Answers of one model that may wait; beyond it the reply is 503."] = 256
    max_logprobs: Annotated[int, "Likeliest tokens that a request may ask for beside each token."] = 20
    prefill_chunk: Annotated[
        int, "Tokens of prompts read at once, between two tokens of the other answers."
    ] = 2048
    grammar: Annotated[
        Path | None, "File that answers follow which name no format: Lark, GBNF or a JSON Schema."
    ] = None
    tools: Annotated[Path | None, "JSON file of tools that every conversation is offered."] = None
    tool_mode: Annotated[
        Literal["full", "deferred"],
        "full: prompts show all of --tools; deferred: a line for each, looked up when needed.",
    ] = "full"
    tool_metrics_out: Annotated[Path | None, "JSONL file with a line for each answer with --tools."] = None
    kv_limit: Annotated[
        float, "GB of keys and values that a model's answers may hold; others wait; 0: no bound."
    ] = 0.0
    kv_bits: Annotated[int, "Bits of cached keys and values: 8, 4 or 2; 0: as they come."] = 0
    eos_stop: Annotated[bool, "End an answer at the model's stop tokens."] = True
    api_key: Annotated[
        str | None, f"Key that clients must show; seen by other users: better {security.ENV} or a file."
    ] = None
    api_key_file: Annotated[Path | None, "File with one key a line; any of them opens."] = None
    allow_host: Annotated[tuple[str, ...], "Another name that browsers may know this server by; *: any."] = ()
    cors_origin: Annotated[tuple[str, ...], "Origin of pages whose scripts may use this server; *: any."] = ()
    corrections_dir: Annotated[
        Path | None, "Folder in which corrections that clients send (POST /v1/corrections) are kept."
    ] = None
    route: Annotated[
        Path | None, "JSON file of specialists, each with the router that claims requests for it."
    ] = None
    trace_dir: Annotated[
        Path | None, "Write each conversation into this folder, as .atraj: texts, tokens, log-probabilities."
    ] = None
    trace_times: Annotated[
        Path | None, "Write the times of each request into this folder; see infer-heatmap."
    ] = None
    trace_infer: Annotated[bool, f"The same as --trace-times {TRACES}."] = False
    grace: Annotated[float, "Seconds that answers may still take once the server is asked to end."] = 20.0
    access_log: Annotated[bool, "One line a request on stderr."] = True
    wait: Annotated[bool, "Wait for the machine's lock where another run holds it."] = False
    lock: Annotated[bool, "Hold the machine's lock, so that no training runs beside."] = True

    def __post_init__(self) -> None:
        Speculation.__post_init__(self)
        Packs.__post_init__(self)
        PromptCache.__post_init__(self)
        if not self.model and self.models_dir is None:
            raise ConfigError("no model was given", hint="tinygpt serve MODEL, or --models-dir FOLDER")
        for name, least in (
            ("max_rows", 1),
            ("queue", 0),
            ("prefill_chunk", 16),
            ("max_logprobs", 0),
            ("grace", 0),
            ("port", 0),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"'{name}' must be at least {least}, got {getattr(self, name)}")
        if self.port > 65535:
            raise ConfigError(f"'port' must be at most 65535, got {self.port}")
        if self.max_context is not None and self.max_context < 2:
            raise ConfigError(f"'max_context' must be at least 2, got {self.max_context}")
        if self.lora_weight and len(self.lora_weight) != len(self.lora):
            raise ConfigError(
                f"--lora-weight has {len(self.lora_weight)} numbers for {len(self.lora)} adapters",
                hint="give one for each --lora, in their order",
            )
        if self.trace_infer and self.trace_times is not None:
            raise ConfigError("--trace-infer has a folder of its own", hint="give --trace-times alone")
        for name in ("memory_limit", "kv_limit"):
            if getattr(self, name) < 0:
                raise ConfigError(f"'{name}' must not be negative, got {getattr(self, name):g}")
        needs = {"force": "lora", "tool_mode": "tools", "tool_metrics_out": "tools", "wait": "lock"}
        refuse_idle(self, needs)
        if self.guessing and self.kv_bits:
            raise ConfigError(
                f"--kv-bits does not go with {self.guessing}: tokens checked together pack otherwise"
            )
        _ = SampleConfig(kv_bits=self.kv_bits)
        _ = self.source, self.keep

    @property
    def source(self) -> _served.Source:
        """The models and adapters that these settings name."""
        models: dict[str, Path] = {}
        for text in self.model:
            name, path = _served.named(text)
            if name in models:
                raise ConfigError(f"two models are called '{name}'", hint="give one another name: NAME=PATH")
            models[name] = path
        adapters: list[_served.Adapter] = []
        for i, text in enumerate(self.lora):
            name, equals, _ = text.partition("=")
            chosen = bool(equals) and "/" not in name
            name, path = _served.named(text) if chosen else ("", Path(text))
            if name and any(a.name == name for a in adapters):
                raise ConfigError(f"two adapters are called '{name}'", hint="give one another name")
            weight = self.lora_weight[i] if self.lora_weight else 1.0
            adapters.append(_served.Adapter(name=name, path=path, weight=weight))
        return _served.Source(
            models=models, folder=self.models_dir, adapters=adapters, force=self.force,
            packing=self.packing,
            context=self.max_context, stops=self.eos_stop, kv_bits=self.kv_bits,
        )  # fmt: skip

    @property
    def keep(self) -> float:
        """Seconds of --keep-alive; negative: for ever."""
        found = re.fullmatch(r"(-?\d+(?:\.\d+)?)(ms|s|m|h|)", self.keep_alive)
        if not found:
            raise ConfigError(f"'keep_alive' is no time: {self.keep_alive!r}", hint="e.g. 300, 5m, 1h or -1")
        return max(-1.0, float(found[1]) * UNITS[found[2]])

    @property
    def times(self) -> Path | None:
        """Where requests leave their times."""
        return TRACES if self.trace_infer else self.trace_times
