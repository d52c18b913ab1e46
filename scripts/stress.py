"""Be rough to `tinygpt serve`, and measure how it takes it; exit 1 where a bound is broken.

    python scripts/stress.py                 # all of it: make stress
    python scripts/stress.py slow leave      # some of it
    python scripts/stress.py fuzz --cases 500 --json

A server with a tiny random model is started for each, and asked over its socket.

fuzz:  cases that schemathesis makes of the served OpenAPI document (needs the extra test-fuzz): no 5xx but a
       503, every status, content type and body as the document has it, no connection dropped.
slow:  good requests while 300 connections send a byte a second, and without them, in turns: p99 <= 1.5x.
leave: from a client's leaving until nothing waits or is written by the server's own figures: the median, and
       the most of the server's CPU time, <= 300 ms; how long the worst took depends on other work here.
mixed: 2,000 requests of all kinds, 32 at once, after 32 of each kind: no unexpected answer, and neither
       memory nor threads nor open files grow.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import rough  # noqa: E402
from serving import Live, serve, tiny_chat_model  # noqa: E402

SLOWER, LEAVING, GROWN = 1.5, 0.3, 1.05  # ratio of p99, seconds, ratio of memory
Figures = dict[str, Any]


@contextlib.contextmanager
def served(*flags: object, context: int = 4096) -> Generator[Live]:
    """A server with a tiny model; that it still answers at the end, and ends without a traceback."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = tiny_chat_model(folder, context=context)
        with serve(model, folder, "--no-lock", "--no-access-log", *flags) as live:
            yield live
            status, _ = rough.answer(
                rough.send(live.port, rough.CHAT, {"messages": rough.HI, "max_tokens": 2})
            )
            said = live.log.read_text(encoding="utf-8", errors="replace")
            if status != 200 or live.process.poll() is not None or "Traceback" in said:
                raise SystemExit(f"the server answered {status} at the end; its log:\n{said[-4000:]}")


# Bodies that are right, for operations of which rough.KINDS has none.
GOOD: dict[str, Any] = {
    "/v1/fim/completions": {"prompt": "a", "suffix": "b", "max_tokens": 4},
    "/tokenize": {"prompt": "one"},
    "/v1/tokenize": {"content": "one"},
    "/detokenize": {"tokens": [5, 6]},
    "/v1/detokenize": {"tokens": [5, 6]},
    "/v1/responses/input_tokens": {"model": "tiny", "input": "hi"},
    "/v1/messages/count_tokens": {"model": "tiny", "messages": rough.HI},
    "/api/embeddings": {"model": "tiny", "prompt": "hi"},
    **{path: {"model": "tiny"} for path in ("/api/show", "/api/pull", "/api/push", "/api/create")},
    "/api/delete": {"model": "tiny"},
    "/api/copy": {"source": "tiny", "destination": "b"},
}
for _path, _body, _right, _leaves in rough.KINDS:
    if _body is not None and _right == (200,) and not _leaves:
        GOOD.setdefault(_path, _body)


class Cases:
    """Sends cases that schemathesis makes, and keeps what was wrong. Of those with an object as body, every
    second one is a right body with some fields of the case: others fail at the first field that is read."""

    def __init__(self) -> None:
        import requests
        from schemathesis import checks
        from schemathesis.specs.openapi import checks as openapi

        self.statuses: collections.Counter[int] = collections.Counter()
        self.wrong: dict[str, str] = {}
        self._session = requests.Session()
        self._checks = [
            checks.not_a_server_error, openapi.status_code_conformance, openapi.content_type_conformance,
            openapi.response_headers_conformance, openapi.response_schema_conformance,
        ]  # fmt: skip

    @property
    def n(self) -> int:
        return sum(self.statuses.values())

    def send(self, case: Any) -> None:
        from schemathesis.core.failures import FailureGroup

        good = GOOD.get(case.operation.path)
        if self.n % 2 and good is not None and isinstance(case.body, dict):
            names = [name for name in case.body if name != "model"]
            case.body = good | {name: case.body[name] for name in names[self.n % 3 :][: 1 + self.n % 3]}
        try:
            response = case.call(session=self._session, timeout=rough.PATIENCE)
            self.statuses[response.status_code] += 1
            if response.status_code != 503:  # which is documented, but schemathesis takes it for a mistake
                case.validate_response(response, checks=self._checks)
        except FailureGroup as group:
            for failure in group.exceptions:
                self._tell(case, failure.title, failure.message)
        except OSError as error:  # of requests: the connection was dropped, or no answer came
            self._tell(case, type(error).__name__, str(error))

    def _tell(self, case: Any, title: str, message: str) -> None:
        self.wrong.setdefault(
            f"{case.operation.label}: {title}", f"{message}\n{case.as_curl_command()[:2000]}"
        )


def fuzz(options: argparse.Namespace) -> Figures:
    """Requests that a tool makes of the document."""
    import hypothesis
    import schemathesis
    from schemathesis.generation import GenerationMode

    cases = Cases()
    with served("--max-context", 96, "--prompt-cache", 0.01) as live:
        schema = schemathesis.openapi.from_url(f"{live.url}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        n_bodies = sum(bool(one.body) for one in operations)
        few = max(1, options.cases // 40 // len(operations))  # of those that take no body
        many = 2 + -(-(options.cases - few * (len(operations) - n_bodies)) // n_bodies)
        start = time.perf_counter()
        for one in operations:
            for mode in GenerationMode:  # as the document has it, and not
                how = hypothesis.settings(
                    max_examples=max(1, ((many if one.body else few) + 1) // 2),
                    deadline=None, database=None, phases=(hypothesis.Phase.generate,),
                    suppress_health_check=list(hypothesis.HealthCheck),
                )  # fmt: skip
                run = hypothesis.given(one.as_strategy(generation_mode=mode))(cases.send)
                with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing of it can be wrong
                    hypothesis.seed(options.seed)(how(run))()
        seconds = time.perf_counter() - start
    for key, text in sorted(cases.wrong.items()):
        print(f"{key}\n    {text}\n", file=sys.stderr)
    statuses = dict(sorted(cases.statuses.items()))
    return {
        "cases": cases.n, "operations": len(operations), "wrong": len(cases.wrong), "statuses": statuses,
        "seconds": seconds, "held": not cases.wrong,
    }  # fmt: skip


def slow(options: argparse.Namespace) -> Figures:
    """Good requests beside slow connections."""
    body = {"messages": rough.HI, "max_tokens": 8, "ignore_eos": True, "temperature": 0}

    def block(port: int, n: int) -> list[float]:
        """Seconds of each of n requests, one after the other."""
        times: list[float] = []
        for _ in range(n):
            start = time.perf_counter()
            status, said = rough.answer(rough.send(port, rough.CHAT, body))
            times.append(time.perf_counter() - start)
            if status != 200:
                raise SystemExit(f"a good request was answered {status}: {said!r}")
        return times

    alone: list[float] = []
    beside: list[float] = []
    with served() as live:
        block(live.port, 50)
        for _ in range(options.rounds):
            alone += block(live.port, options.requests)
            with rough.slow(live.port, options.connections, 1.0):
                held = rough.figures(live.port)["tinygpt_connections"] - 1
                if held < options.connections * 0.9:
                    raise SystemExit(f"only {held:g} slow connections are open")
                beside += block(live.port, options.requests)
    both = (_percentile(alone, 99), _percentile(beside, 99))
    return {
        "connections": options.connections, "requests": len(beside), "p99_alone_ms": 1e3 * both[0],
        "p99_beside_ms": 1e3 * both[1], "ratio": both[1] / both[0],
        "median_ratio": statistics.median(beside) / statistics.median(alone),
        "held": both[1] <= SLOWER * both[0],
    }  # fmt: skip


def leave(options: argparse.Namespace) -> Figures:
    """How long work goes on for clients that left."""
    figures: Figures = {}
    context, held = 1 << 15, True
    with served("--max-rows", 1, "--prompt-cache", 0, "--prefill-chunk", 128, context=context) as live:
        for one in rough.leavers(letters=context - 2000, tokens=context - 2000):
            found = [rough.left(live.port, one, i) for i in range(options.tries)]
            seconds, cpu = zip(*found, strict=True)
            median = statistics.median(seconds)
            figures[one.name] = {
                "median_ms": 1e3 * median, "worst_ms": 1e3 * max(seconds), "worst_cpu_ms": 1e3 * max(cpu),
            }  # fmt: skip
            held = held and median <= LEAVING and max(cpu) <= LEAVING
    return figures | {"tries": options.tries, "held": held}


def mixed(options: argparse.Namespace) -> Figures:
    """Many requests of all kinds at once."""
    with served("--prompt-cache", 0.01) as live, ThreadPoolExecutor(options.concurrency) as pool:

        def ask(numbers: Iterable[int]) -> list[str]:
            return [text for text in pool.map(lambda i: rough.mixed(live.port, i), numbers) if text]

        # Freed memory stays with the process. After so many of each kind at once as there can be it has all
        # that it will need.
        n = len(rough.KINDS)
        wrong = ask(kind + n * i for kind in range(n) for i in range(options.concurrency))
        before, start = rough.resources(live.port, live.process.pid), time.perf_counter()
        wrong += ask(range(n * options.concurrency, n * options.concurrency + options.mixed))
        seconds, after = time.perf_counter() - start, rough.resources(live.port, live.process.pid)
    for text in sorted(set(wrong)):
        print(text, file=sys.stderr)
    flat = after["memory_mb"] <= GROWN * before["memory_mb"] and all(
        after[name] <= before[name] for name in ("threads", "files")
    )
    return {
        "requests": options.mixed, "at_once": options.concurrency, "wrong": len(wrong),
        "a_second": options.mixed / seconds, "before": before, "after": after, "held": flat and not wrong,
    }  # fmt: skip


def _percentile(values: list[float], p: int) -> float:
    return statistics.quantiles(values, n=100)[p - 1]


def _line(figures: Figures) -> str:
    def word(value: Any) -> str:
        if isinstance(value, dict):
            return "(" + ", ".join(f"{k} {word(v)}" for k, v in value.items()) + ")"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{name} {word(value)}" for name, value in figures.items())


MEASURES: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "fuzz": fuzz, "slow": slow, "leave": leave, "mixed": mixed,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=[*MEASURES, []], help="all, where none is named")
    parser.add_argument("--json", action="store_true", help="the figures as one object")
    parser.add_argument("--cases", type=int, default=10_000, help="of fuzz")
    parser.add_argument("--seed", type=int, default=0, help="of fuzz")
    parser.add_argument("--connections", type=int, default=300, help="of slow")
    parser.add_argument("--requests", type=int, default=250, help="of slow: in a turn, with and without")
    parser.add_argument("--rounds", type=int, default=8, help="of slow")
    parser.add_argument("--tries", type=int, default=20, help="of leave: of each way")
    parser.add_argument("--mixed", type=int, default=2_000, help="of mixed: requests")
    parser.add_argument("--concurrency", type=int, default=32, help="of mixed")
    options = parser.parse_args()
    figures: Figures = {}
    for name in options.what or MEASURES:
        figures[name] = MEASURES[name](options)
        if not options.json:
            print(f"{name}: {_line(figures[name])}", flush=True)
    if options.json:
        print(json.dumps(figures, indent=1))
    return 0 if all(found["held"] for found in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
