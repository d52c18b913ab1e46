"""How a clone of tau-bench or tau2-bench is run, where it writes, and what says which version it is."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tinygpt.runs._tau_settings import Config

Server = tuple[str, str]  # a /v1, and the model's name there


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an interpreter is told. `results`: a pattern, from the folder of the run."""

    words: list[str]
    env: dict[str, str]
    results: str


def plan(config: Config, root: Path, agent: Server, user: Server) -> Plan:
    """The command for agent and user at these servers."""
    return (_tau if config.layout == "tau" else _tau2)(config, root, agent, user)


def _tau(config: Config, root: Path, agent: Server, user: Server) -> Plan:
    """Two servers are two of litellm's providers, which read an address each from the environment."""
    key, end = os.environ.get("OPENAI_API_KEY") or "none", str(config.limit or -1)
    # Results go to a file whose name holds the user's model; of org/name the folder must be there.
    name = f"tool-calling-{agent[1].split('/')[-1]}-{config.temperature}_range_0-{end}_user-{user[1]}"
    (root / "result" / name).parent.mkdir(parents=True, exist_ok=True)
    words = [
        str(config.tau_root.resolve() / "run.py"), "--env", config.env, "--model", agent[1],
        "--model-provider", "openai", "--user-model", user[1], "--user-model-provider", "hosted_vllm",
        "--user-strategy", "llm", "--agent-strategy", "tool-calling", "--num-trials", str(config.trials),
        "--end-index", end, "--temperature", str(config.temperature), "--seed", str(config.seed),
        "--max-concurrency", str(config.batch), "--log-dir", str(root / "result"),
    ]  # fmt: skip
    env = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_API_BASE": agent[0], "OPENAI_API_KEY": key,
        "HOSTED_VLLM_API_BASE": user[0], "HOSTED_VLLM_API_KEY": key,
    }  # fmt: skip
    return Plan(words=words, env=env, results="result/**/*.json")


def _tau2(config: Config, root: Path, agent: Server, user: Server) -> Plan:
    """Its data folder is ours with a link to its data, so that nothing is written into the clone. What it has
    judged by a model is asked of the user's server."""
    key, clone = os.environ.get("OPENAI_API_KEY") or "none", config.tau_root.resolve()
    (root / "data").mkdir(exist_ok=True)
    if not (root / "data" / "tau2").is_symlink():
        (root / "data" / "tau2").symlink_to(clone / "data" / "tau2")

    def told(url: str, temperature: float) -> str:
        return json.dumps({"api_base": url, "api_key": key, "temperature": temperature})

    words = [
        "-m", "tau2.cli", "run", "--domain", config.env, "--agent-llm", f"openai/{agent[1]}",
        "--agent-llm-args", told(agent[0], config.temperature), "--user-llm", f"openai/{user[1]}",
        "--user-llm-args", told(user[0], 0.0), "--num-trials", str(config.trials), "--seed", str(config.seed),
        "--max-concurrency", str(config.batch), "--save-to", "run", "--log-level", "ERROR",
    ]  # fmt: skip
    words += ["--num-tasks", str(config.limit)] if config.limit else []
    env = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONPATH": str(clone / "src"), "OPENAI_API_KEY": key,
        "TAU2_DATA_DIR": str(root / "data"), "OPENAI_BASE_URL": user[0], "OPENAI_API_BASE": user[0],
    }  # fmt: skip
    return Plan(words=words, env=env, results="data/simulations/run/results.json")


def versions(config: Config) -> tuple[str, str]:
    """A hash of what is simulated, and the harness with the version and commit of its clone."""
    clone, hashed = config.tau_root, hashlib.sha256()
    folder = "tau_bench/envs" if config.layout == "tau" else "data/tau2/domains"
    for path in sorted((clone / folder / config.env).rglob("*")):
        if path.suffix in (".py", ".json", ".md"):
            hashed.update(f"{path.name}\n".encode() + path.read_bytes())
    about = clone / ("setup.py" if config.layout == "tau" else "pyproject.toml")
    text = about.read_text(encoding="utf-8") if about.is_file() else ""
    version = re.search(r"""^\s*version\s*=\s*["']([^"']+)""", text, re.MULTILINE)
    asked = ["git", "-C", str(clone), "rev-parse", "--short=12", "HEAD"]
    try:
        commit = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = ""  # a copy without its history
    named = f"{config.layout}-bench {version[1] if version else '?'}"
    return hashed.hexdigest()[:12], f"{named} {commit}".strip()
