"""Several processes train one model over the ring on loopback, and end together."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.shell import NANO, good
from tinygpt.core import events, files
from tinygpt.model import checkpoint
from tinygpt.train.world import World


def start(folder: Path, n: int, *words: object) -> list[subprocess.Popen[str]]:
    """The command line as n ranks, with the variables that mlx.launch sets."""
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    hosts = [[f"127.0.0.1:{one.getsockname()[1]}"] for one in sockets]
    for one in sockets:
        one.close()
    (folder / "hosts.json").write_text(json.dumps(hosts))
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tinygpt", *map(str, words)],
            env={**os.environ, "MLX_RANK": str(rank), "MLX_HOSTFILE": str(folder / "hosts.json")},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(n)
    ]  # fmt: skip


def losses(run: Path) -> list[float]:
    found = [e for e in events.read(run / "events.jsonl") if e["kind"] == "train.step"]
    assert [e["step"] for e in found] == list(range(1, len(found) + 1)), "every step is told once"
    return [e["loss"] for e in found]


def held_out(run: Path) -> list[float]:
    return [e["metrics"]["loss"] for e in events.read(run / "events.jsonl") if e["kind"] == "train.eval"]


def command(folder: Path, out: str, steps: int, *more: object) -> tuple[object, ...]:
    return (
        "train", "--corpus", folder / "corpus.txt", "--out", folder / out, "--steps", steps, "--seed", 1,
        "--no-lock", *NANO, *more,
    )  # fmt: skip


def test_two_ranks_are_one_process(trained: Path) -> None:
    good(*command(trained, "alone", 50))
    both = start(trained, 2, *command(trained, "two", 50))
    told = [one.communicate() for one in both]
    assert [one.returncode for one in both] == [0, 0], told
    assert "saved in" in told[0][0] and not told[1][0] and not told[1][1], "rank 0 alone speaks"
    alone, two = losses(trained / "alone"), losses(trained / "two")
    assert len(two) == 50 and two == pytest.approx(alone, abs=1e-5)
    checkpoint.validate(trained / "two" / "final")
    assert held_out(trained / "two") == pytest.approx(held_out(trained / "alone"), abs=1e-5)
    assert held_out(trained / "two")


def test_resumed_by_another_number_of_processes(trained: Path) -> None:
    good(*command(trained, "straight", 30))
    good(*command(trained, "parts", 30, "--save-every", 10))
    for folder in ("000020", "000030"):
        shutil.rmtree(trained / "parts" / "steps" / folder, ignore_errors=True)
    both = start(trained, 2, *command(trained, "parts", 30, "--save-every", 10, "--resume"))
    told = [one.communicate() for one in both]
    assert [one.returncode for one in both] == [0, 0], told
    assert losses(trained / "parts") == pytest.approx(losses(trained / "straight"), abs=1e-5)


def test_a_killed_rank_ends_the_run_and_leaves_the_checkpoint_whole(trained: Path) -> None:
    more = ("--save-every", 5)
    both = start(trained, 2, *command(trained, "lost", 100_000, *more))
    assert both[0].stderr is not None
    for line in both[0].stderr:
        if line.startswith("step "):
            break
    both[1].send_signal(signal.SIGKILL)
    rest = both[0].communicate()[1]
    both[1].communicate()
    assert both[0].returncode == 2 and "lost the other processes" in rest and "--resume" in rest, rest
    assert "Traceback" not in rest
    for path in (trained / "lost" / "steps").iterdir():
        checkpoint.validate(path)


def test_an_interrupt_of_one_rank_ends_all_at_one_step(trained: Path) -> None:
    both = start(trained, 2, *command(trained, "stopped", 100_000))
    assert both[0].stderr is not None
    for line in both[0].stderr:
        if line.startswith("step "):
            break
    both[1].send_signal(signal.SIGINT)
    told = [one.communicate() for one in both]
    assert [one.returncode for one in both] == [130, 130], told
    (saved,) = (trained / "stopped" / "steps").iterdir()
    checkpoint.validate(saved)
    assert int(saved.name) == len(losses(trained / "stopped"))


def test_a_process_alone_is_a_world_of_one() -> None:
    alone = World()
    assert alone.leads and alone.size == 1 and alone.first(7) == alone.largest(7) == 7
    assert alone.total([0.1, 2]) == [0.1, 2]


def test_what_works_in_one_process_only_is_refused(trained: Path) -> None:
    es = ("es", trained / "run", "--corpus", trained / "corpus.txt", "--out", trained / "es2", "--no-lock")
    for words, why in (
        (es, "'es' runs in one process"),
        (command(trained, "on", 5, "--auto-rollback", "on"), "warn"),
    ):
        both = start(trained, 2, *words)
        told = [one.communicate() for one in both]
        assert [one.returncode for one in both] == [2, 2], told
        assert why in told[0][1] and not told[0][0], told


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_two_ranks_read_pairs_as_one_does(loss: str, trained: Path, tmp_path: Path) -> None:
    """No pair is torn apart, each rank computes a part of the reference, KTO's KL is that of all ranks."""
    usual = (
        "dpo", trained / "run", "--data", trained / "pairs.jsonl", "--batch", 8, "--steps", 3, "--seed", 1,
        "--no-lock", "--lr", 1e-3, "--loss-type", loss, "--held-out", 0.3, "--no-compile", "-q",
    )  # fmt: skip
    good(*usual, "--out", tmp_path / "one")
    shutil.rmtree(files.cache_dir("reference"))
    for rank in start(tmp_path, 2, *usual, "--out", tmp_path / "two"):
        _, err = rank.communicate(timeout=120)
        assert rank.returncode == 0, err
    one, two = tmp_path / "one", tmp_path / "two"
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert held_out(two) == pytest.approx(held_out(one), rel=1e-5)
