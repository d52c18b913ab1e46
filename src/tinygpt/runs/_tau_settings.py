"""Settings of `eval-tau-bench`, checked before anything is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tinygpt.core import config as configs
from tinygpt.core.errors import ConfigError
from tinygpt.runs._asked import Asked

# How a clone of each harness is known, and what it simulates.
LAYOUTS = {"tau": Path("tau_bench/run.py"), "tau2": Path("src/tau2/cli.py")}
DOMAINS = {"tau": ("retail", "airline"), "tau2": ("retail", "airline", "telecom", "mock")}
CLONE = "git clone https://github.com/sierra-research/tau2-bench (or tau-bench), then --tau-root tau2-bench"


@dataclass(frozen=True, kw_only=True)
class Config(Asked):
    """Settings of `eval-tau-bench`."""

    tau_root: Annotated[Path, "A clone of tau-bench or tau2-bench, which are in no package registry."]
    env: Annotated[
        Literal["retail", "airline", "telecom", "mock"], "What is simulated; the last two in tau2-bench only."
    ] = "retail"
    user_model: Annotated[
        str, "The simulated user: a model of this machine; with --user-url a server's name for it."
    ] = ""
    user_url: Annotated[str, "Server of the simulated user; not given: our own with --user-model."] = ""
    limit: Annotated[int, "The first so many tasks; 0: all."] = 0
    trials: Annotated[int, "How often each task is done; pass^k is told for k up to it, at most 4."] = 1
    temperature: Annotated[float, "How the agent's answers are drawn."] = 0.0
    seed: Annotated[int, "Seed of the harness; the answers of a server need not follow it."] = 10
    serve_port: Annotated[int, "Port of the server that is started for the model; 0: any free one."] = 0
    tau_out: Annotated[
        Path | None, "Folder for results and traces; not given: beside --out, as NAME.tau."
    ] = None
    harness_python: Annotated[
        Path | None,
        "Interpreter of the harness's environment; not given: one for tau-bench is made in the cache.",
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokenizer:
            raise ConfigError("--tokenizer says nothing to eval-tau-bench", hint="leave it out")
        if not self.user_model and not self.user_url:
            raise ConfigError(
                "nobody plays the user", hint="--user-model DIR, or --user-url URL [--user-model NAME]"
            )
        for name, least in (("trials", 1), ("limit", 0), ("temperature", 0), ("serve_port", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{configs.flag(name)} must be at least {least}, got {getattr(self, name)}")
        if self.env not in DOMAINS[self.layout]:
            raise ConfigError(
                f"{self.tau_root} is a clone of {self.layout}-bench, which has no '{self.env}'",
                hint=f"--env {' or '.join(DOMAINS[self.layout])}",
            )

        if self.layout == "tau2" and self.harness_python is None:
            raise ConfigError(
                "tau2-bench needs an environment of its own, which is made from its clone",
                hint=f"python3.12 -m venv DIR && DIR/bin/python -m pip install {self.tau_root}, then "
                "--harness-python DIR/bin/python",
            )

    @property
    def layout(self) -> str:
        """Which of the two harnesses the clone is."""
        found = next((name for name, mark in LAYOUTS.items() if (self.tau_root / mark).is_file()), None)
        if found is None:
            raise ConfigError(
                f"--tau-root {self.tau_root} is no clone of tau-bench or tau2-bench", hint=CLONE
            )
        return found

    @property
    def root(self) -> Path | None:
        """Where results and traces are kept."""
        return self.tau_out or (None if self.out is None else self.out.with_suffix(".tau"))
