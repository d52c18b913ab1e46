"""The gate where continuous integration calls it: the GitHub action, the pre-commit hook, the GitLab job."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nano
from gates import measured, write

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


def load(path: str) -> Any:
    return nano.require("yaml").safe_load((ROOT / path).read_text(encoding="utf-8"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a gate, a baseline, and the command's rows in new.jsonl."""
    folder = tmp_path / "project"
    folder.mkdir()
    copy = "import os, shutil; shutil.copy('new.jsonl', os.environ['TINYGPT_EVAL_OUT'])"
    suite = {"name": "t", "command": [sys.executable, "-c", copy]}
    (folder / "eval-gate.json").write_text(json.dumps({"baseline": "old.jsonl", "suites": [suite]}))
    write(folder / "old.jsonl", [measured(160)])
    return folder


@pytest.fixture
def bash(tmp_path: Path) -> Run:
    """Runs a script with `tinygpt` on its path, as an installed package would be."""
    shim = tmp_path / "bin" / "tinygpt"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tinygpt "$@"\n')
    shim.chmod(0o755)
    search = os.pathsep.join([str(shim.parent), os.environ["PATH"]])

    def run(script: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
        told = {**os.environ, **env, "PATH": search}
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=cwd, env=told, capture_output=True, text=True,
        )  # fmt: skip

    return run


def act(run: Run, folder: Path, temporary: Path, **given: str) -> tuple[int, dict[str, str], str]:
    """What GitHub does with the action: exit code, outputs, summary."""
    action = load(".github/actions/eval-gate/action.yml")
    inputs = {name: one["default"] for name, one in action["inputs"].items()} | given
    assert set(given) <= set(action["inputs"]) and action["runs"]["using"] == "composite"
    temporary.mkdir(exist_ok=True)
    files = {name: temporary / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    for path in files.values():
        path.write_text("")

    def filled(text: str) -> str:
        return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: inputs[m[1]], text)

    code = 0
    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash" and "${{" not in step["run"], "inputs come by the environment"
        condition = (
            re.fullmatch(r"\$\{\{ inputs\.(\w+) != '' \}\}", step.get("if", "")) if "if" in step else None
        )
        if condition and not inputs[condition[1]]:
            continue
        env = {name: filled(value) for name, value in step["env"].items()}
        told = {"RUNNER_TEMP": str(temporary), **{k: str(v) for k, v in files.items()}}
        done = run(step["run"], folder / filled(step["working-directory"]), **told, **env)
        code = done.returncode
        if code:
            break
    lines = files["GITHUB_OUTPUT"].read_text().splitlines()
    outputs = dict(line.split("=", 1) for line in lines)
    said = {name: one["value"] for name, one in action["outputs"].items()}
    assert said == {name: f"${{{{ steps.gate.outputs.{name} }}}}" for name in said}
    assert set(said) == set(outputs)
    return code, outputs, files["GITHUB_STEP_SUMMARY"].read_text()


@pytest.mark.parametrize(("right", "code"), [(160, 0), (120, 1), (None, 2)])
def test_the_github_action(project: Path, bash: Run, tmp_path: Path, right: int | None, code: int) -> None:
    if right is not None:
        write(project / "new.jsonl", [measured(right)])
    got, outputs, summary = act(
        bash, project.parent, tmp_path / "t", install="", **{"working-directory": "project"}
    )
    assert (got, outputs["passed"]) == (code, "true" if code == 0 else "false")
    assert json.loads(Path(outputs["result"]).read_text())["exitCode"] == code
    assert "Eval gate: " in summary and Path(outputs["junit"]).read_text().startswith("<?xml")


def test_inputs_of_the_action_reach_the_gate(project: Path, bash: Run, tmp_path: Path) -> None:
    write(project / "new.jsonl", [measured(100)])
    other = write(project / "other.jsonl", [measured(100, decoding={"temperature": 1.0})])
    given = {"candidate": "new.jsonl", "baseline": str(other), "spec": "eval-gate.json", "passes": "1"}
    code, outputs, _ = act(bash, project, tmp_path / "t", install="", **given)
    assert code == 0, outputs
    code, _, summary = act(
        bash, project, tmp_path / "t", install="", **given, budget='{"temperature": 1.0, "top_p": 1}'
    )
    assert code == 2 and "temperature 0.0" in summary


def test_our_own_workflow_uses_the_action() -> None:
    steps = load(".github/workflows/ci.yml")["jobs"]["gate"]["steps"]
    (uses,) = (step for step in steps if step.get("uses") == "./.github/actions/eval-gate")
    assert (ROOT / uses["with"]["spec"]).is_file()
    assert set(uses["with"]) <= set(load(".github/actions/eval-gate/action.yml")["inputs"])


@pytest.mark.parametrize(("right", "code"), [(160, 0), (120, 1)])
def test_the_pre_commit_hook(project: Path, bash: Run, right: int, code: int) -> None:
    (hook,) = load(".pre-commit-hooks.yaml")
    assert hook["id"] == "eval-gate" and hook["pass_filenames"] is False
    write(project / "new.jsonl", [measured(right)])
    assert bash(hook["entry"], project).returncode == code


@pytest.mark.parametrize(("right", "code"), [(160, 0), (120, 1)])
def test_the_gitlab_job(project: Path, bash: Run, right: int, code: int) -> None:
    job = load("docs/templates/eval-gate.gitlab-ci.yml")["eval-gate"]
    write(project / "new.jsonl", [measured(right)])
    done = bash("\n".join(job["script"]), project, **job["variables"])
    assert done.returncode == code, done.stderr
    kept = [*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]]
    assert all((project / name).is_file() for name in kept)
