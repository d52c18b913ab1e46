"""Contestants of scripts/bench.py that write: one stream, many in one process, many clients of a server.

Each is a function of a model directory that returns figures; it runs in a process of its own. Prompts are
random ids, answers greedy and of a fixed length, for both sides. TINYGPT_BLAS decides which BLAS mlx-lm gets.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Figures = dict[str, float]
PROMPT, ANSWER, LONG = 64, 128, 512
ROUNDS = 3  # after one that warms up; the best counts


def best(run: Callable[[int], Figures]) -> Figures:
    """The best round: what the machine can do when nothing disturbs it."""
    found = [run(i) for i in range(ROUNDS + 1)][1:]
    return {name: max(one[name] for one in found) for name in found[0]}


def single(model: Path) -> Figures:
    """Our engine: one stream, and a long prompt."""
    from tinygpt.runs import _bench_engine as ours
    from tinygpt.runs._engine import open_engine
    from tinygpt.runs._streams import one_run

    engine = open_engine(model)

    def run(seed: int) -> Figures:
        found = one_run(
            ours.together(engine, ours.prompts(1, PROMPT, engine.tokenizer.vocab_size, seed), 200)
        )
        long = ours.together(engine, ours.prompts(1, LONG, engine.tokenizer.vocab_size, seed), 2)
        return {"decode_tok_s": found["decode_tok_s"], "prefill_tok_s": one_run(long)["prefill_tok_s"]}

    return best(run)


def single_peer(model: Path) -> Figures:
    """mlx-lm's generate_step."""
    from tinygpt.core.backend import mx, setup

    setup()
    from mlx_lm.generate import generate_step

    peer, vocab_size = opened(model)

    def times(length: int, n: int, seed: int) -> tuple[float, list[float]]:
        prompt = mx.array(ids(1, length, vocab_size, seed)[0])
        began = time.perf_counter()
        return began, [time.perf_counter() for _ in generate_step(prompt, peer, max_tokens=n)]

    def run(seed: int) -> Figures:
        _, found = times(PROMPT, 200, seed)
        began, long = times(LONG, 2, seed)
        return {
            "decode_tok_s": (len(found) - 1) / (found[-1] - found[0]),
            "prefill_tok_s": LONG / (long[0] - began),
        }

    return best(run)


def many(model: Path, n: int) -> Figures:
    """Our lane: n answers at once, prompts included in the time."""
    from tinygpt.runs import _bench_engine as ours
    from tinygpt.runs._engine import open_engine
    from tinygpt.runs._streams import one_run

    engine = open_engine(model)

    def run(seed: int) -> Figures:
        asked = ours.prompts(n, PROMPT, engine.tokenizer.vocab_size, seed)
        found = one_run(ours.together(engine, asked, ANSWER))
        return {"tok_s": found["tok_s"], "decode_tok_s": found["decode_tok_s"]}

    return best(run)


def many_peer(model: Path, n: int) -> Figures:
    """mlx-lm's BatchGenerator, with room for all at once."""
    from tinygpt.core.backend import setup

    setup()
    from mlx_lm.generate import BatchGenerator

    peer, vocab_size = opened(model)

    def run(seed: int) -> Figures:
        writer = BatchGenerator(peer, completion_batch_size=n, prefill_batch_size=n)
        began = time.perf_counter()
        names = writer.insert(ids(n, PROMPT, vocab_size, seed), [ANSWER] * n)
        times: dict[int, list[float]] = {name: [] for name in names}
        while any(len(one) < ANSWER for one in times.values()):
            for response in writer.next_generated():
                times[response.uid].append(time.perf_counter())
        writer.close()
        last_first = max(one[0] for one in times.values())
        end = max(one[-1] for one in times.values())
        after = sum(t > last_first for one in times.values() for t in one)
        return {"tok_s": n * ANSWER / (end - began), "decode_tok_s": after / (end - last_first)}

    return best(run)


def opened(model: Path) -> tuple[object, int]:
    """mlx-lm's model of a directory, and how many ids it has."""
    from mlx_lm.utils import load_model

    peer, config = load_model(model)
    return peer, config["vocab_size"]


def ids(n: int, length: int, vocab_size: int, seed: int) -> list[list[int]]:
    """The prompts that our side has."""
    from tinygpt.runs._bench_engine import prompts

    return prompts(n, length, vocab_size, seed)


def served(model: Path, n: int, *, peer: bool = False) -> Figures:
    """n clients of `tinygpt serve`, or of mlx_lm.server: streams over HTTP, all tokens over all the time."""
    from tinygpt.runs._bench_url import Load
    from tinygpt.runs._openai import Client

    with server(model, peer=peer) as (url, memory):
        client = Client(url)
        # The peer's list of models is that of the hub's cache, and an error where there is none.
        name = str(model) if peer else client.model()
        load = Load(client, name, chat=False, ignore_eos=not peer, gen_tokens=ANSWER)
        load.at_once(n, 1, PROMPT // 4, 1 << 20)
        rates = []
        for seed in range(ROUNDS):
            streams = load.at_once(n, 2, PROMPT // 4, 1000 * seed)
            took = max(s.times[-1] for s in streams) - min(s.began for s in streams)
            rates.append(sum(s.tokens for s in streams) / took)
        for text in load.warnings():
            print(text, file=sys.stderr)
        return {"tok_s": max(rates), "median_tok_s": statistics.median(rates), "server_peak_mb": memory()}


@contextlib.contextmanager
def server(model: Path, *, peer: bool) -> Iterator[tuple[str, Callable[[], float]]]:
    """A server in a process of its own: its URL, and what tells its peak memory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if peer:
        start = "from tinygpt.core.backend import setup; setup(); from mlx_lm.server import main; main()"
        command = [sys.executable, "-c", start, "--model", str(model), "--port", str(port)]
    else:
        command = [sys.executable, "-m", "tinygpt", "serve", str(model), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=sys.stderr)
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if process.poll() is not None:
                sys.exit(f"the server ended with {process.returncode}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", lambda: peak_mb(process.pid)
    finally:
        process.terminate()
        process.wait()


def peak_mb(pid: int) -> float:
    """Peak of a process's resident memory; 0 where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0.0
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) / 1e3


CONTESTANTS: dict[str, Callable[[Path], Figures]] = {
    "single": single, "single-peer": single_peer,
    **{f"many-{n}": lambda model, n=n: many(model, n) for n in (8, 32)},
    **{f"many-{n}-peer": lambda model, n=n: many_peer(model, n) for n in (8, 32)},
    **{f"served-{n}": lambda model, n=n: served(model, n) for n in (8, 32)},
    **{f"served-{n}-peer": lambda model, n=n: served(model, n, peer=True) for n in (8, 32)},
}  # fmt: skip
