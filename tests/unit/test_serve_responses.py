"""/v1/responses over a desk with a script, asked by the real client and by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

import fake_desk
import nano
import odd_ollama
from fake_desk import FakeDesk, app, calls, served, text, token
from tinygpt.core.errors import BusyError
from tinygpt.serve import responses as surface
from tinygpt.serve.job import Chat, Delta, Format
from tinygpt.serve.responses_store import Store

PATH = "/v1/responses"
TOOL = {"type": "function", "name": "get", "parameters": {"type": "object"}, "strict": False}


def ask(client: TestClient, **body: Any) -> Any:
    reply = client.post(PATH, json={"model": "tiny", "input": "hi"} | body)
    assert reply.status_code == 200, reply.text
    return reply


def job(**body: Any) -> Chat:
    """The job that a request becomes."""
    desk = FakeDesk()
    ask(TestClient(app(surface, desk)), **body)
    return desk.jobs[-1]


def events(desk: FakeDesk, **body: Any) -> list[dict[str, Any]]:
    """The events of a stream, named and numbered one by one."""
    found = []
    for block in ask(TestClient(app(surface, desk)), stream=True, **body).text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


@pytest.mark.parametrize("odd", odd_ollama.RESPONSES, ids=lambda odd: f"{odd.request} {str(odd.body)[:60]}")
def test_odd_requests_answer_as_the_table_says(odd: odd_ollama.Odd):
    method, path = odd.request.split()
    content = odd.body if isinstance(odd.body, bytes) else json.dumps(odd.body or {}).encode()
    reply = fake_desk.client(surface).request(method, path, content=content)
    assert reply.status_code == odd.status, reply.text
    said = reply.json()
    if odd.status != 200:
        assert said["error"]["type"] == "invalid_request_error" and set(said["error"]) >= {"param", "code"}
    assert odd.says in (said["error"]["message"] if odd.status != 200 else json.dumps(said))


def test_an_error_names_its_field():
    reply = fake_desk.client(surface).post(PATH, json={"model": "tiny", "input": "hi", "top_p": 2})
    assert reply.json()["error"]["param"] == "top_p"
    reply = fake_desk.client(surface).post(
        PATH, json={"model": "tiny", "input": "hi", "previous_response_id": "resp_x"}
    )
    error = reply.json()["error"]
    assert (error["param"], error["code"]) == ("previous_response_id", "previous_response_not_found")


def test_settings_reach_the_job():
    found = job(
        temperature=0,
        top_p=0.5,
        max_output_tokens=7,
        instructions="s",
        reasoning={"effort": "low"},
        text={"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}},
        parallel_tool_calls=False,
        top_logprobs=2,
        safety_identifier="u",
    )
    assert (found.config.temperature, found.config.top_p, found.config.max_tokens) == (0, 0.5, 7)
    assert found.messages == [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]
    assert found.format == Format(kind="schema", value={"type": "object"}) and found.think is True
    assert found.format.param == "text.format"
    assert (found.parallel, found.logprobs, found.user) == (False, 2, "u")
    assert job(text={"format": {"type": "json_object"}}).format == Format(kind="json")
    assert job(reasoning={"effort": "none"}).think is False and job().think is None
    assert job(reasoning={"effort": "minimal"}).think is False  # as in a chat
    assert job().config.temperature == 1.0  # OpenAI's, as in a chat
    more = job(seed=3, stop=["END"], top_k=5, frequency_penalty=1, logit_bias={"7": 2}).config
    assert (more.seed, more.stop, more.top_k, more.frequency_penalty) == (3, ("END",), 5, 1.0)
    assert more.logit_bias == ("7=2.0",)
    assert job().config.max_tokens == fake_desk.CARD.context
    assert job(include=["message.output_text.logprobs"]).logprobs == 0


@pytest.mark.parametrize(
    "choice, wanted, names",
    [
        (None, "auto", ["get", "put"]),
        ("none", "none", ["get", "put"]),
        ("required", "required", ["get", "put"]),
        ({"type": "function", "name": "put"}, {"name": "put"}, ["get", "put"]),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "put"}]},
            "required",
            ["put"],
        ),
    ],
)
def test_choices_of_tools(choice: Any, wanted: Any, names: list[str]):
    found = job(tools=[TOOL, TOOL | {"name": "put"}], tool_choice=choice)
    assert found.tool_choice == wanted and [tool["function"]["name"] for tool in found.tools] == names
    assert found.closed == (isinstance(choice, dict) and choice["type"] == "allowed_tools")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "clock"}], ids=str)
def test_a_choice_may_be_of_the_servers_tools(choice: Any):
    desk = FakeDesk(own=("clock",))
    ask(TestClient(app(surface, desk)), tool_choice=choice)
    assert desk.jobs[-1].tool_choice in ("required", {"name": "clock"}) and not desk.jobs[-1].tools


def test_items_become_what_templates_take():
    found = job(
        input=[
            {"role": "developer", "content": "d"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "Well."}]},
            {"type": "function_call", "call_id": "c1", "name": "get", "arguments": '{"a": 1}'},
            {
                "type": "function_call_output",
                "call_id": "c1",
                "output": [{"type": "input_text", "text": "5"}],
            },
        ],
        instructions="s",
    ).messages
    call = {"type": "function", "id": "c1", "function": {"name": "get", "arguments": {"a": 1}}}
    assert found == [
        {"role": "system", "content": "s\n\nd"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "Well.", "reasoning_content": "hm", "tool_calls": [call]},
        {"role": "tool", "content": "5", "name": "get", "tool_call_id": "c1"},
    ]


def test_a_response_is_gone_on_with():
    desk = FakeDesk(lambda job: calls(("get", '{"a": 1}'), before="Well.") if job.tools else text("five"))
    client = TestClient(app(surface, desk))
    first = ask(client, tools=[TOOL], instructions="s").json()
    call = first["output"][1]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "5"}
    second = ask(client, input=[output], previous_response_id=first["id"]).json()
    roles = [message["role"] for message in desk.jobs[-1].messages]
    assert roles == ["user", "assistant", "tool"]  # instructions do not carry over
    referred = [{"type": "item_reference", "id": call["id"]}, output]
    ask(client, input=referred)
    assert desk.jobs[-1].messages[0]["tool_calls"][0]["function"] == {"name": "get", "arguments": {"a": 1}}
    assert client.get(f"{PATH}/{second['id']}").json() == second
    listed = client.get(f"{PATH}/{first['id']}/input_items").json()["data"]
    assert listed[0]["content"] == [{"type": "input_text", "text": "hi"}]
    assert client.delete(f"{PATH}/{second['id']}").json()["deleted"] is True
    assert client.get(f"{PATH}/{second['id']}").status_code == 404
    assert client.post(f"{PATH}/{first['id']}/cancel").status_code == 400


def test_what_is_not_to_be_stored_is_not():
    client = TestClient(app(surface, FakeDesk()))
    assert client.get(f"{PATH}/{ask(client, store=False).json()['id']}").status_code == 404


def test_the_store_keeps_the_latest():
    store = Store(most=2)
    for id in "abc":
        store.put({"id": id, "output": []}, [], [])
    assert store.get("a") is None and store.get("c") is not None and len(store) == 2
    small = Store(n_bytes=100)
    small.put({"id": "a", "output": []}, [], [])
    small.put({"id": "b", "output": [], "text": "x" * 50}, [], [])
    assert small.get("a") is None and small.get("b") is not None
    assert small.drop("b") and not small.drop("b") and small._used == 0


def test_a_stream_says_what_the_whole_says():
    script = [Delta(reasoning="hm"), Delta(text="A", tokens=(token("A", -0.5),)), *calls(("get", '{"a": 1}'))]
    found = events(FakeDesk(lambda _: script), top_logprobs=1)
    names = [event["type"].removeprefix("response.") for event in found]
    assert names == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    response = found[-1]["response"]
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert response["output"] == done and response["status"] == "completed"
    whole = ask(TestClient(app(surface, FakeDesk(lambda _: script))), top_logprobs=1).json()

    def bare(output: list[Any]) -> Any:
        return [{key: value for key, value in item.items() if key != "id"} for item in output]

    assert bare(whole["output"]) == bare(done) and whole["usage"] == response["usage"]
    other = {"token": "B", "logprob": -2.0, "bytes": [66]}
    report = [{"token": "A", "logprob": -0.5, "bytes": [65], "top_logprobs": [other]}]
    assert done[1]["content"][0]["logprobs"] == found[10]["logprobs"] == report


def test_an_answer_that_is_cut_off_is_incomplete():
    desk = FakeDesk(lambda _: text("a", reason="length"))
    last = events(desk)[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["response"]["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize(
    "error, says",
    [
        (BusyError("the server is ending"), "the server is ending"),
        (ZeroDivisionError("x"), "the server failed while it wrote this answer"),
    ],
    ids=("expected", "mistake"),
)
def test_an_error_in_the_middle_fails_the_response(error: Exception, says: str):
    def script(_: Any) -> Any:
        yield Delta(text="a")
        raise error

    found = events(FakeDesk(script))
    assert (found[-2]["type"], found[-2]["message"]) == ("error", says)
    assert (found[-1]["type"], found[-1]["response"]["status"]) == ("response.failed", "failed")
    assert found[-1]["response"]["error"] == {"code": "server_error", "message": says}


@pytest.mark.wide  # the client alone takes seconds to import
def test_openais_own_client():
    openai, pydantic = nano.require("openai"), nano.require("pydantic")
    Answer = pydantic.create_model("Answer", a=(int, ...))
    desk = FakeDesk(lambda job: calls(("get", '{"a": 1}')) if job.tools else text('{"a"', ": 3}"))
    with served(app(surface, desk)) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        whole = client.responses.create(model="tiny", input="hi", metadata={"k": "v"})
        assert (
            whole.output_text == '{"a": 3}'
            and whole.metadata == {"k": "v"}
            and whole.usage.total_tokens == 16
        )
        assert client.responses.parse(model="tiny", input="hi", text_format=Answer).output_parsed.a == 3
        assert desk.jobs[-1].format.value["required"] == ["a"]
        with client.responses.stream(model="tiny", input="hi", tools=[TOOL]) as stream:
            assert len(list(stream)) == 8
            final = stream.get_final_response()
        assert json.loads(final.output[0].arguments) == {"a": 1}
        output = {"type": "function_call_output", "call_id": final.output[0].call_id, "output": "5"}
        again = client.responses.create(model="tiny", input=[output], previous_response_id=final.id)
        assert client.responses.retrieve(again.id).output_text == '{"a": 3}'
        assert client.responses.input_items.list(again.id).data[0].output == "5"
        assert client.responses.delete(again.id) is None
        assert client.responses.input_tokens.count(model="tiny", input="hi").input_tokens == 3
        with pytest.raises(openai.NotFoundError, match="there is no response"):
            client.responses.retrieve(again.id)
