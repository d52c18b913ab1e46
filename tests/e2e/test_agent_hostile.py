"""A hostile model gets nothing done, and an ordinary one does its work, with the same tools and rules."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import hostile
import nano
from hostile import KEY, SECRET, Server, snapshot
from problems import need_sandbox
from tinygpt.agent import toolbox
from tinygpt.agent.builtin._job import Place
from tinygpt.agent.policy import Decision, Policy, Rules
from tinygpt.agent.tool import ASKED, Outcome
from tinygpt.agent.workspace import Workspace
from tinygpt.core.errors import SandboxError
from tinygpt.core.sandbox import run as sandbox

nano.require("jsonschema")


@dataclass
class House:
    """A workspace with traps, what must not be reached, and a policy that says yes to every effect."""

    work: Path
    outside: Path
    ours: Server
    other: Server
    policy: Policy
    log: list[Decision] = field(default_factory=list[Decision])

    def run(self, name: str, arguments: Any) -> tuple[Decision, Outcome]:
        return self.policy.run(name, arguments, threading.Event())


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("PLANTED_API_KEY", KEY)
    real = socket.getaddrinfo

    def resolve(host: str, *given: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host == "localtest.example" else host, *given, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with hostile.server() as ours, hostile.server() as other:
        work, outside, path = hostile.lay_out(tmp_path, ours.url, other.url)
        workspace = Workspace(work)
        box = toolbox.load(path, Place(workspace=workspace))
        log: list[Decision] = []
        policy = Policy(box.tools, Rules(yes=ASKED, seconds=20), log=log.append)
        yield House(work, outside, ours, other, policy, log)
        workspace.close()


def test_nothing_forbidden_is_executed(house: House) -> None:
    attempts = hostile.attempts(house.outside, house.other.url)
    assert len(attempts) >= 60
    outside, inside = snapshot(house.outside), snapshot(house.work)
    wrong: list[str] = []
    for what, tool, arguments, rule in attempts:
        asked, before = len(house.ours.asked), len(house.log)
        decision, outcome = house.run(tool, arguments)
        seen = outcome.stdout + outcome.stderr + decision.message
        if decision.allowed or decision.rule != rule or outcome.exit_code != 126:
            wrong.append(f"{what}: {decision.rule or 'allowed'} instead of {rule}: {seen[:200]}")
        elif house.log[before:][-1].rule != rule or f"(rule {rule})" not in seen:
            wrong.append(f"{what}: neither logged nor told: {seen[:200]}")
        elif SECRET in seen or KEY in seen or "root:" in seen or len(seen) > 9000:
            wrong.append(f"{what}: the answer shows what it must not: {seen[:200]}")
        elif house.ours.asked[asked:] != (["GET /moved?to=" + house.other.url] if tool == "moved" else []):
            wrong.append(f"{what}: a request was made")
    assert not wrong, "\n".join(wrong)
    assert snapshot(house.outside) == outside  # nothing was written, and record.py was not started
    assert snapshot(house.work) == inside
    assert house.other.asked == []


def test_the_canaries_sing(house: House) -> None:
    """What the test above looks at does change where a call is made: it could fail."""
    outside, inside = snapshot(house.outside), snapshot(house.work)
    assert house.run("record", {"value": "x"})[0].allowed
    assert house.run("python_read", {"path": "notes.txt"})[0].allowed
    assert house.run("item", {"id": "1"})[0].allowed
    assert snapshot(house.outside) != outside and snapshot(house.work) != inside
    assert house.ours.asked == ["GET /items/1"]


def test_thirty_ordinary_tasks_work(house: House) -> None:
    need_sandbox()
    tasks = hostile.ordinary()
    assert len(tasks) >= 30
    failed: list[str] = []
    for tool, arguments, expected in tasks:
        decision, outcome = house.run(tool, arguments)
        if not decision.allowed or outcome.exit_code or expected not in outcome.stdout:
            failed.append(f"{tool} {arguments}: {decision.message} {outcome}")
    assert not failed, "\n".join(failed)
    assert len(house.log) == len(tasks)
    _, outcome = house.run("variables", {})
    assert set(eval(outcome.stdout)) <= {"HOME", "LANG", "PATH", "LC_CTYPE"}
    assert (house.work / "src/app.py").read_text() == "def add(a, b):\n    return a + b\n"


def test_a_program_in_the_sandbox_reaches_nothing(house: House) -> None:
    need_sandbox()
    outside, inside = snapshot(house.outside), snapshot(house.work)
    here = {
        "secret": str(house.outside / "secret.txt"), "workspace": str(house.work), "url": house.other.url,
        "port": int(house.other.url.rpartition(":")[2]),
    }  # fmt: skip
    house.policy.rules = Rules(yes=ASKED, seconds=3)
    for what, program in hostile.PROGRAMS.items():
        _, outcome = house.run("run_python", {"code": f"HERE = {here!r}\n{program}"})
        seen = outcome.stdout + outcome.stderr
        assert "OUT" not in seen.replace("print('OUT'", ""), (what, seen)
        assert SECRET not in seen and KEY not in seen, what
        assert outcome.exit_code != 0 or what == "its environment", (what, seen)
    assert snapshot(house.outside) == outside and snapshot(house.work) == inside
    assert house.other.asked == []


def test_without_a_sandbox_no_program_runs(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(unsafe: bool) -> str:
        raise SandboxError("Landlock: Function not implemented")

    monkeypatch.setattr(sandbox, "_walls", missing)
    decision, outcome = house.run("run_python", {"code": "print(1)"})
    assert not decision.allowed and decision.rule == "sandbox" and outcome.exit_code == 126
    assert [d.rule for d in house.log] == ["told", "sandbox"]


def test_links_that_are_swapped_in_while_calls_run_lead_nowhere(house: House) -> None:
    """A thread swaps a folder and a file for links to the outside as fast as it can."""
    here, away = house.work / "flip", house.work / "away"
    here.mkdir()
    (here / "secret.txt").write_text("plain")
    link, spare = house.work / "trap", house.work / "spare.txt"
    file = house.work / "swap.txt"
    file.write_text("plain")
    outside = snapshot(house.outside)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            here.rename(away)
            link.symlink_to(house.outside)
            link.rename(here)
            spare.symlink_to(house.outside / "secret.txt")
            spare.replace(file)
            here.unlink()
            away.rename(here)
            spare.write_text("plain")
            spare.replace(file)

    thread = threading.Thread(target=swap)
    thread.start()
    rules: dict[str, int] = {}
    house.policy.rules = Rules(yes=ASKED, calls=0)
    try:
        for n in range(600):
            path = ("flip/secret.txt", "swap.txt")[n % 2]
            tool, arguments = (
                ("read_file", {"path": path}),
                ("edit_file", {"path": path, "old": "CANARY", "new": "pwned"}),
                ("search_files", {"text": "CANARY"}),
            )[n // 2 % 3]
            decision, outcome = house.run(tool, arguments)
            assert SECRET not in outcome.stdout + outcome.stderr
            rules[decision.rule] = rules.get(decision.rule, 0) + 1
    finally:
        done.set()
        thread.join()
    assert snapshot(house.outside) == outside
    assert rules.get("path-link", 0) > 0 and rules.keys() & {"harmless", "told"}, rules


@pytest.mark.parametrize("tool", ["read_file", "write_file", "edit_file", "delete_file"])
@pytest.mark.parametrize("how", ["folder", "file", "hard link"])
def test_a_link_that_comes_between_two_steps_is_not_followed(
    house: House, monkeypatch: pytest.MonkeyPatch, tool: str, how: str
) -> None:
    """Each time one system call later than before: whatever was checked until then is not what lies there."""
    real, outside = os.open, snapshot(house.outside)
    more = {"write_file": {"content": "pwned"}, "edit_file": {"old": "CANARY", "new": "x"}}.get(tool, {})
    for step in range(1, 9):
        target = house.work / f"dir{step}" / "secret.txt"
        target.parent.mkdir()
        target.write_text("plain")
        left = [step]

        def open_(path: Any, *given: Any, target: Path = target, left: list[int] = left, **where: Any) -> int:
            left[0] -= "dir_fd" in where
            if left[0] == 0 and how == "folder":
                target.parent.rename(house.work / f"old-{target.parent.name}")
                target.parent.symlink_to(house.outside)
            elif left[0] == 0:
                target.unlink(missing_ok=True)
                link = os.symlink if how == "file" else os.link
                link(house.outside / "secret.txt", target)
            return real(path, *given, **where)

        monkeypatch.setattr(os, "open", open_)
        _, outcome = house.run(tool, {"path": f"{target.parent.name}/secret.txt", **more})
        monkeypatch.setattr(os, "open", real)
        assert SECRET not in outcome.stdout
        assert snapshot(house.outside) == outside, step


def test_nobody_at_the_terminal_means_no(house: House) -> None:
    box = toolbox.load(house.work / "tools.json", Place(workspace=Workspace(house.work)))
    log: list[Decision] = []
    policy = Policy(box.tools, log=log.append)
    inside, outside = snapshot(house.work), snapshot(house.outside)
    for name, arguments in (
        ("write_file", {"path": "a.txt", "content": "x"}), ("delete_file", {"path": "notes.txt"}),
        ("edit_file", {"path": "notes.txt", "old": "first", "new": "x"}), ("run_tests", {}),
        ("run_python", {"code": "print(1)"}), ("record", {"value": "x"}), ("item", {"id": "1"}),
        ("post", {"note": "x"}), ("shout", {"text": "x"}),
    ):  # fmt: skip
        decision, outcome = policy.run(name, arguments, threading.Event())
        assert decision.rule == "confirm" and "nobody to ask" in outcome.stderr, name
    assert {d.rule for d in log} == {"confirm"}
    assert snapshot(house.work) == inside and snapshot(house.outside) == outside and not house.ours.asked
    assert policy.run("read_file", {"path": "notes.txt"}, threading.Event())[1].exit_code == 0
