"""Settings of `eval-bfcl`, checked before anything is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tinygpt.core import config as configs
from tinygpt.core.config import refuse_idle
from tinygpt.core.errors import ConfigError, unknown
from tinygpt.runs import _bfcl_known
from tinygpt.runs._asked import Asked


@dataclass(frozen=True, kw_only=True)
class Config(Asked):
    """Settings of `eval-bfcl`."""

    tasks: Annotated[
        tuple[str, ...],
        "Categories of BFCL, or groups: offline, all, single_turn, non_live, live, multi_turn, memory, ...",
    ] = ("offline",)
    limit: Annotated[int, "Ask the first so many examples of each category; 0: all."] = 0
    classes: Annotated[
        tuple[str, ...], "Only multi-turn tasks that use no other back ends, e.g. GorillaFileSystem."
    ] = ()
    mode: Annotated[
        Literal["native", "prompt"], "native: tools and tool calls of the API; prompt: both in the text."
    ] = "native"
    show_tools: Annotated[
        bool, "Send the tools with each question; not to a model that has learned its own."
    ] = True
    temperature: Annotated[float, "How answers are drawn; BFCL's own is 0.001."] = 0.001
    max_tokens: Annotated[int, "Longest answer of a step in tokens; 0: what the server allows."] = 4096
    tools: Annotated[Path | None, "JSON file of tools that our server offers beside BFCL's."] = None
    tool_mode: Annotated[
        Literal["full", "deferred"], "full: prompts show all of --tools; deferred: looked up when needed."
    ] = "full"
    serve_port: Annotated[int, "Port of the server that is started for the model; 0: any free one."] = 0
    resume: Annotated[bool, "Go on with the answers that are in --bfcl-root."] = False
    bfcl_root: Annotated[
        Path | None, "Folder for BFCL's results and scores; not given: beside --out, as NAME.bfcl."
    ] = None
    harness_python: Annotated[
        Path | None, "Interpreter of an environment with bfcl-eval; not given: one is made in the cache."
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokenizer:
            raise ConfigError("--tokenizer says nothing to eval-bfcl", hint="leave it out")
        for name in ("limit", "max_tokens", "temperature", "serve_port"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{configs.flag(name)} must not be negative, got {getattr(self, name)}")
        if self.url and (told := next((n for n in ("tools", "serve_port") if getattr(self, n)), None)):
            raise ConfigError(
                f"{configs.flag(told)} is for a server of our own", hint="leave it out, or --url"
            )
        if self.mode == "prompt" and not self.show_tools:
            raise ConfigError("--no-show-tools is for --mode native", hint="leave one of them out")
        refuse_idle(self, {"tool_mode": "tools"})
        if self.resume and self.root is None:
            raise ConfigError("--resume needs the folder of an earlier run", hint="give --bfcl-root or --out")
        if odd := next((one for one in self.classes if one not in _bfcl_known.CLASSES), None):
            raise unknown("back end of BFCL", odd, _bfcl_known.CLASSES)
        _ = self.categories

    @property
    def categories(self) -> tuple[list[str], list[str]]:
        """What is asked, and what is left out and why."""
        return _bfcl_known.chosen(self.tasks, native=self.mode == "native")

    @property
    def root(self) -> Path | None:
        """BFCL's folder, where it is kept."""
        return self.bfcl_root or (None if self.out is None else self.out.with_suffix(".bfcl"))
