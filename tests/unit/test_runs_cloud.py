"""A stronger model behind two APIs: streams, refusals, waits, broken connections, and where a key goes."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

import pytest

from scripted_cloud import N_IN, N_OUT, Reply, ScriptedCloud, refusing, said, two
from tinygpt.agent.escalate import Escalation, Told, outgoing
from tinygpt.core.errors import RemoteError
from tinygpt.core.events import Events, MemorySink
from tinygpt.runs._cloud import Target, open_cloud

KEY = "the-key-of-this-test-4711"
USER = {"role": "user", "content": "Why?"}
SOON = 5.0  # seconds that nothing here may take


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)


@pytest.fixture(params=["openai", "anthropic"])
def api(request: pytest.FixtureRequest) -> str:
    return request.param


def target(server: ScriptedCloud, api: str = "openai", **more: Any) -> Target:
    given: dict[str, Any] = {"model": "m", "backoff": 0.01, "timeout": 20.0, "retries": 2}
    return Target(provider=server.url, api=api, **{**given, **more})


def ask(server: ScriptedCloud, api: str = "openai", messages: Any = (USER,), **more: Any) -> Told:
    on_text = more.pop("on_text", lambda text: None)
    cancel = more.pop("cancel", None)
    out, events = outgoing(messages, tools=more.pop("tools", ())), more.pop("events", Events())
    cloud = open_cloud(target(server, api, **more), events)
    return cloud.ask(out.messages, out.tools, on_text=on_text, cancel=cancel)


def failing(server: ScriptedCloud, api: str = "openai", **more: Any) -> RemoteError:
    """The error of an answer that does not come: one line, without the key."""
    with pytest.raises(RemoteError) as found:
        ask(server, api, **more)
    error = found.value
    assert KEY not in str(error) and KEY not in repr(error.args) and "\n" not in str(error)
    assert error.__cause__ is None and error.__suppress_context__, "what it is made of is not shown"
    return error


def test_an_answer_streams_with_its_counts(api: str) -> None:
    pieces: list[str] = []
    with ScriptedCloud(said("Be", "cause", " of \u00e9.\n")) as server:
        told = ask(server, api, on_text=pieces.append, max_tokens=77)
    assert pieces == ["Be", "cause", " of \u00e9.\n"] and told.text == "".join(pieces)
    assert (told.finish_reason, told.error, told.whole) == ("stop", "", True)
    assert (told.n_in, told.n_out) == (N_IN, N_OUT) and told.seconds > 0 and told.cost is None
    ((path, body),), (headers,) = server.asked, server.headers
    assert body["stream"] is True and body["max_tokens"] == 77 and body["model"] == "m"
    if api == "openai":
        assert path == "/v1/chat/completions" and headers["authorization"] == f"Bearer {KEY}"
        assert "x-api-key" not in headers and body["stream_options"] == {"include_usage": True}
    else:
        assert path == "/v1/messages" and headers["x-api-key"] == KEY and "authorization" not in headers
        assert headers["anthropic-version"] == "2023-06-01"


TALK = [
    {"role": "system", "content": "Help."},
    USER,
    {
        "role": "assistant", "content": "I look.",
        "tool_calls": [
            {"id": "a.1", "function": {"name": "ls", "arguments": {"path": "."}}},
            {"id": "a.2", "function": {"name": "ls", "arguments": {"path": "b"}}},
        ],
    },
    {"role": "tool", "content": "a.txt", "tool_call_id": "a.1", "name": "ls"},
    {"role": "tool", "content": "", "tool_call_id": "a.2", "name": "ls"},
    {"role": "user", "content": "And?"},
]  # fmt: skip


def test_the_history_is_what_openai_reads() -> None:
    with ScriptedCloud(said("ok")) as server:
        ask(server, messages=TALK)
    (body,) = server.bodies
    system, user, asked, first, second, last = body["messages"]
    assert (system, user, last) == (TALK[0], TALK[1], TALK[5])
    told = [(one["id"], one["type"], json.loads(one["function"]["arguments"])) for one in asked["tool_calls"]]
    assert told == [("call_1", "function", {"path": "."}), ("call_2", "function", {"path": "b"})]
    assert (first["tool_call_id"], first["content"]) == ("call_1", "a.txt")
    assert (second["tool_call_id"], second["content"]) == ("call_2", "")
    assert body["tool_choice"] == "none" and [t["function"]["name"] for t in body["tools"]] == ["ls"]


def test_the_history_is_what_anthropic_reads() -> None:
    with ScriptedCloud(said("ok")) as server:
        ask(server, "anthropic", messages=TALK)
    (body,) = server.bodies
    assert body["system"] == "Help." and body["tool_choice"] == {"type": "none"}
    assert body["tools"] == [{"name": "ls", "input_schema": {"type": "object"}}]
    user, asked, results, last = body["messages"]
    assert user == USER and last == TALK[5]
    assert asked["content"] == [
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "call_1", "name": "ls", "input": {"path": "."}},
        {"type": "tool_use", "id": "call_2", "name": "ls", "input": {"path": "b"}},
    ]
    assert results == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "call_1", "content": "a.txt"},
            {"type": "tool_result", "tool_use_id": "call_2", "content": ""},
        ],
    }


def test_without_calls_no_tools_go_out(api: str) -> None:
    tool = {"type": "function", "function": {"name": "ls", "parameters": {"type": "object"}}}
    with ScriptedCloud(said("ok")) as server:
        ask(server, api, tools=[tool])
    assert "tools" not in server.bodies[0] and "tool_choice" not in server.bodies[0]


def cancelling(after: threading.Event, **more: Any) -> threading.Event:
    """Set by another thread as soon as `after` is."""
    cancel = threading.Event()

    def wait() -> None:
        assert after.wait(SOON)
        cancel.set()

    threading.Thread(target=wait, daemon=True).start()
    return cancel


def test_cancelling_closes_the_connection_at_once(api: str) -> None:
    first = threading.Event()
    with ScriptedCloud(said("half", " an", then="hang")) as server:
        began = time.monotonic()
        told = ask(server, api, on_text=lambda text: first.set(), cancel=cancelling(first))
        assert server.left.wait(SOON), "the server sees it"
        assert time.monotonic() - began < SOON
    assert (told.finish_reason, told.whole) == ("cancelled", False) and told.text.startswith("half")
    assert told.n_out is None, "nobody told how much was written"


def test_cancelling_before_a_word_came(api: str) -> None:
    with ScriptedCloud(Reply(then="silent")) as server:
        arrived = threading.Event()
        seen = server._seen
        server._seen = lambda *a: (seen(*a), arrived.set())  # type: ignore[method-assign]
        told = ask(server, api, cancel=cancelling(arrived))
        assert server.left.wait(SOON)
    assert told.finish_reason == "cancelled" and told.text == ""


def test_cancelling_while_it_waits_to_ask_again() -> None:
    sink, cancel = MemorySink(), threading.Event()
    sink.write = lambda event: cancel.set()  # type: ignore[method-assign]
    with ScriptedCloud(refusing(429, Retry_After="30")) as server:
        began = time.monotonic()
        told = ask(server, events=Events(sink), cancel=cancel)
        assert told.finish_reason == "cancelled" and time.monotonic() - began < SOON
    assert len(server.bodies) == 1


def test_an_error_of_who_listens_closes_the_connection(api: str) -> None:
    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    with ScriptedCloud(said("half", then="hang")) as server:
        with pytest.raises(KeyboardInterrupt):
            ask(server, api, on_text=interrupt)
        assert server.left.wait(SOON)


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_not_taken(api: str, status: int) -> None:
    with ScriptedCloud(refusing(status, "wrong key: {key}\nsorry")) as server:
        error = failing(server, api)
        assert len(server.bodies) == 1, "it is not asked again"
        name = f"{api.upper()}_API_KEY"
        assert error.message.startswith(
            f"{server.host} does not take {name} (HTTP {status}: wrong key: [SECRET]"
        )
    assert error.hint == f"check {name}"


def test_what_is_not_there_and_what_is_not_understood(api: str) -> None:
    with ScriptedCloud(refusing(404, "no such model")) as server:
        assert "has no model 'm', or no such address (HTTP 404: no such" in failing(server, api).message
    with ScriptedCloud(refusing(400, "messages: too many")) as server:
        assert "refuses the request (HTTP 400: messages: too many)" in failing(server, api).message
        assert len(server.bodies) == 1
    with ScriptedCloud(said("<html>", kind="text/html")) as server:
        assert "is no API that streams" in failing(server, api).message


def test_too_many_requests_with_and_without_a_time(api: str) -> None:
    sink = MemorySink()
    with ScriptedCloud(refusing(429, Retry_After="0.1"), refusing(429), said("yes")) as server:
        began = time.monotonic()
        assert ask(server, api, events=Events(sink)).text == "yes" and len(server.bodies) == 3
        assert time.monotonic() - began >= 0.1
    assert [note.text.partition(";")[2][:15] for note in sink.events] == [" asked again in"] * 2
    with ScriptedCloud(refusing(429, "slow down")) as server:
        assert "still fails after 3 tries (HTTP 429: slow down)" in failing(server, api).message
        assert len(server.bodies) == 3


def test_a_long_wait_is_not_waited(api: str) -> None:
    with ScriptedCloud(refusing(429, Retry_After="3600")) as server:
        began = time.monotonic()
        error = failing(server, api, max_wait=60.0)
        assert time.monotonic() - began < SOON and len(server.bodies) == 1
    assert "asks to wait 3600 s, which is more than 60" in error.message and "--max-wait" in error.hint


def test_failures_of_the_server_pass(api: str) -> None:
    with ScriptedCloud(refusing(500), refusing(503), said("yes")) as server:
        assert ask(server, api).text == "yes" and len(server.bodies) == 3
    with ScriptedCloud(refusing(502)) as server:
        assert "still fails after 1 tries (HTTP 502: no)" in failing(server, api, retries=0).message
    with ScriptedCloud(Reply(then="cut"), Reply(then="error"), said("yes")) as server:
        assert ask(server, api).text == "yes", "nothing had come, so it is asked again"
        assert len(server.bodies) == 3


def test_a_server_that_is_not_there(api: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = ScriptedCloud(said("never"))
        server.url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        assert "does not answer: [Errno" in failing(server, api).message
    server._server.server_close()


@pytest.mark.parametrize(("then", "why"), [("cut", "in the middle"), ("error", "broke off: overloaded")])
def test_what_came_of_a_broken_stream_is_kept(api: str, then: str, why: str) -> None:
    with ScriptedCloud(said("half an", " answer", then=then)) as server:
        told = ask(server, api)
        assert len(server.bodies) == 1, "it is not asked again: what came is shown already"
    assert (told.text, told.finish_reason, told.whole) == ("half an answer", "cut", False)
    assert why in told.error and told.n_out is None


def test_a_stream_may_end_without_saying_so(api: str) -> None:
    with ScriptedCloud(said("whole", then="quiet")) as server:
        told = ask(server, api)
    assert (told.text, told.finish_reason, told.n_out) == ("whole", "stop", N_OUT)


def test_a_server_that_says_nothing_more(api: str) -> None:
    with ScriptedCloud(said("half", then="hang")) as server:
        told = ask(server, api, timeout=0.1)
        assert (told.text, told.finish_reason) == ("half", "cut") and "said nothing for 0.1 s" in told.error
        assert server.left.wait(SOON)
    with ScriptedCloud(Reply(then="silent")) as server:
        error = failing(server, api, timeout=0.1)
        assert "said nothing for 0.1 s" in error.message and error.hint == "raise --timeout"
        assert server.left.wait(SOON) and len(server.bodies) == 1


def test_a_key_does_not_follow_a_redirect(api: str) -> None:
    for status in (301, 302, 307, 308):
        with two(Reply(status=status, headers={"Location": "{other}/messages"}, body="{}")) as (one, other):
            error = failing(one, api)
            assert f"leads to {other.host}, where nothing is sent (HTTP {status}" in error.message
            assert len(one.bodies) == 1 and not other.asked


def test_a_redirect_of_the_list_of_models_is_not_followed_either() -> None:
    with two(said("never")) as (one, other):
        one._models = lambda handler: (  # type: ignore[method-assign]
            one._head(handler, Reply(status=302, headers={"Location": f"{other.url}/models"}), 0)
        )
        assert "where nothing is sent" in failing(one, model="").message
        assert not other.asked


def test_why_an_answer_says_nothing() -> None:
    with ScriptedCloud(
        said(finish="content_filter"), said(finish="length"), said("a", finish="length")
    ) as server:
        told = ask(server)
        assert told.finish_reason == "refused" and "content filter" in told.error
        told = ask(server)
        assert told.finish_reason == "length" and "no text came" in told.error
        told = ask(server)
        assert (told.finish_reason, told.error) == ("length", "")
    with ScriptedCloud(said(finish="refusal"), said("a", finish="max_tokens")) as server:
        told = ask(server, "anthropic")
        assert told.finish_reason == "refused" and "refuses" in told.error
        assert ask(server, "anthropic").finish_reason == "length"


def test_the_longest_answer_has_two_names() -> None:
    wrong = refusing(400, "Unsupported parameter: use 'max_completion_tokens' instead of 'max_tokens'")
    with ScriptedCloud(wrong, said("yes")) as server:
        assert ask(server, max_tokens=9).text == "yes"
    first, second = server.bodies
    assert first["max_tokens"] == second["max_completion_tokens"] == 9 and "max_tokens" not in second


def test_an_event_that_cannot_be_read(api: str) -> None:
    with ScriptedCloud(Reply(body="data: [1]\n\n")) as server:
        server._head = lambda handler, reply, n: ScriptedCloud._head(  # type: ignore[method-assign]
            server, handler, Reply(), n
        )
        assert "an event of the server cannot be read: [1]" in failing(server, api).message


def test_nothing_goes_out_before_a_yes(api: str) -> None:
    with ScriptedCloud(said("yes")) as server:
        cloud = open_cloud(target(server, api, model=""), Events())
        refused = Escalation(cloud, lambda preview: False)
        assert refused.tell([USER]) is None and not server.asked, "not even the list of models is asked for"
        told = Escalation(cloud, lambda preview: preview.host == server.host).tell([USER])
    assert told is not None and told.model == "only" and server.bodies[-1]["model"] == "only"
