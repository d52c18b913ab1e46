"""Rough clients of a real `tinygpt serve`: slow ones, ones that leave, and many of all kinds at once.

`make stress` measures the same at full size; here nothing depends on how fast the machine is.
"""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import pytest

import rough
from serving import Live, serve, tiny_chat_model


@pytest.fixture(scope="module")
def one_at_a_time(tmp_path_factory: pytest.TempPathFactory) -> Generator[Live]:
    """A server that writes one answer at a time and reads prompts in small pieces."""
    folder = tmp_path_factory.mktemp("one")
    flags = ("--no-lock", "--max-rows", 1, "--prompt-cache", 0, "--prefill-chunk", 16)
    with serve(tiny_chat_model(folder, context=1 << 15), folder, *flags) as running:
        yield running


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Generator[Live]:
    folder = tmp_path_factory.mktemp("live")
    with serve(tiny_chat_model(folder), folder, "--no-lock", "--prompt-cache", 0.01) as running:
        yield running
        assert "Traceback" not in running.log.read_text()


@pytest.mark.parametrize("one", rough.leavers(letters=30_000, tokens=30_000), ids=lambda one: one.name)
@pytest.mark.parametrize("abruptly", (False, True), ids=("closed", "reset"))
def test_work_ends_when_its_client_leaves(one_at_a_time: Live, one: rough.Leaver, abruptly: bool) -> None:
    """30,000 tokens, written one by one or read in small pieces, take far longer than the figures to fall."""
    before = rough.figures(one_at_a_time.port)
    rough.left(one_at_a_time.port, one, abruptly)
    after = rough.figures(one_at_a_time.port)
    written = after["tinygpt_answer_tokens_total"] - before["tinygpt_answer_tokens_total"]
    assert written < 20_000 and rough.idle(after)
    if one.name.startswith(("read", "scored")):
        name = "tinygpt_first_token_seconds_count"
        assert before.get(name) == after.get(name), "the prompt was read to its end"


def test_slow_connections_hold_nobody_up(live: Live) -> None:
    body = {"messages": rough.HI, "max_tokens": 4}
    with rough.slow(live.port, 40, 0.2):
        rough.wait(live.port, lambda seen: seen["tinygpt_connections"] > 40)
        for _ in range(10):
            assert rough.answer(rough.send(live.port, rough.CHAT, body))[0] == 200
        assert rough.figures(live.port)["tinygpt_connections"] > 40
    rough.wait(live.port, lambda seen: seen["tinygpt_connections"] <= 1)


def test_a_mix_of_requests_leaves_nothing_behind(live: Live) -> None:
    n, pid = len(rough.KINDS), live.process.pid
    with ThreadPoolExecutor(16) as pool:

        def ask(numbers: range) -> dict[str, float]:
            assert not [text for text in pool.map(lambda i: rough.mixed(live.port, i), numbers) if text]
            return rough.resources(live.port, pid)

        before, after = ask(range(n)), ask(range(n, 6 * n))
    assert rough.figures(live.port)["tinygpt_open_requests"] == 1  # the one that asks
    assert after["files"] <= before["files"] + 4, (before, after)
    assert after["threads"] <= before["threads"] + 40, (before, after)  # pools that grow to their bounds
