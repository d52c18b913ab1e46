"""A clone of tau-bench, or of tau2-bench, that has their files and writes what they write, for tests.

It asks the agent and the user once a trial. A task is done when the agent says "good"; a server that does not
answer is what the harness makes of it: an error that it scores 0, or a simulation that it would leave out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ASK = """
import argparse, json, os, urllib.request

def ask(url, model, text):
    body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 2}
    request = urllib.request.Request(url + "/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.loads(reply.read())["choices"][0]["message"]["content"]
"""
TAU = (
    ASK
    + """
parser = argparse.ArgumentParser()
for name in ("env model model-provider user-model user-model-provider user-strategy agent-strategy "
             "num-trials end-index temperature seed max-concurrency log-dir").split():
    parser.add_argument("--" + name, required=True)
args = parser.parse_args()
assert args.model_provider == "openai" and args.user_model_provider == "hosted_vllm"
assert os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
found = []
for trial in range(int(args.num_trials)):
    for task in range(3 if args.end_index == "-1" else int(args.end_index)):
        one = {"task_id": task, "trial": trial, "reward": 0.0, "info": {}, "traj": []}
        try:
            told = ask(os.environ["HOSTED_VLLM_API_BASE"], args.user_model, f"user {task} {trial}")
            said = ask(os.environ["OPENAI_API_BASE"], args.model, f"agent {task} {trial}")
            call = {"id": "a", "function": {"name": "look", "arguments": "{}"}}
            one["reward"] = float("good" in said)
            one["traj"] = [
                {"role": "system", "content": "wiki"}, {"role": "user", "content": told},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "name": "look", "content": "seen", "tool_call_id": "a"},
                {"role": "assistant", "content": said, "tool_calls": None},
            ]
        except Exception as error:
            one["info"] = {"error": str(error), "traceback": ""}
        found.append(one)
name = f"{args.log_dir}/tool-calling-{args.model.split('/')[-1]}-{args.temperature}_range_0-{args.end_index}"
with open(f"{name}_user-{args.user_model}-llm_0101.json", "w") as file:
    json.dump(found, file, indent=2)
"""
)
TAU2 = (
    ASK
    + """
from pathlib import Path
parser = argparse.ArgumentParser()
parser.add_argument("action")
for name in ("domain agent-llm agent-llm-args user-llm user-llm-args num-trials seed max-concurrency save-to "
             "log-level").split():
    parser.add_argument("--" + name, required=True)
parser.add_argument("--num-tasks", default="3")
args = parser.parse_args()
data = Path(os.environ["TAU2_DATA_DIR"])
assert (data / "tau2" / "domains" / args.domain / "tasks.json").is_file()
agent, user = json.loads(args.agent_llm_args), json.loads(args.user_llm_args)
found = []
for trial in range(int(args.num_trials)):
    for task in range(int(args.num_tasks)):
        one = {"id": f"{task}-{trial}", "task_id": str(task), "trial": trial, "reward_info": None}
        try:
            told = ask(user["api_base"], args.user_llm.removeprefix("openai/"), f"user {task} {trial}")
            said = ask(agent["api_base"], args.agent_llm.removeprefix("openai/"), f"agent {task} {trial}")
            messages = [{"role": "user", "content": told}, {"role": "assistant", "content": said}]
            one |= {"reward_info": {"reward": float("good" in said)}, "messages": messages}
            one["termination_reason"] = "user_stop"
        except Exception:
            one["termination_reason"] = "infrastructure_error"
        found.append(one)
path = data / "simulations" / args.save_to / "results.json"
path.parent.mkdir(parents=True)
path.write_text(json.dumps({"info": {}, "tasks": [], "simulations": found}, indent=2))
"""
)


def clone(root: Path, layout: str) -> Path:
    """A folder that looks like a clone."""
    files = {
        "tau": {
            "run.py": TAU, "setup.py": 'setup(\n    version="0.1.0",\n)\n', "tau_bench/run.py": "",
            "tau_bench/envs/retail/tasks.py": "tasks = []\n",
        },
        "tau2": {
            "pyproject.toml": '[project]\nversion = "1.0.1"\n', "src/tau2/__init__.py": "",
            "src/tau2/cli.py": TAU2, "data/tau2/domains/telecom/tasks.json": "[]\n",
        },
    }  # fmt: skip
    for name, text in files[layout].items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def interpreter(path: Path) -> Path:
    """An executable that has litellm as far as anybody asks, and else is this interpreter."""
    told = f'if [ "$2" = "-c" ]; then echo 1.0; else exec {sys.executable} "$@"; fi'
    path.write_text(f"#!/bin/sh\n{told}\n", encoding="utf-8")
    os.chmod(path, 0o755)
    return path
