"""What goes to OpenAI and Anthropic is what their makers' packages know, and the script of tests is, too."""

from __future__ import annotations

from typing import Any

import pytest

import nano
from scripted_cloud import N_IN, N_OUT, ScriptedCloud, said
from tinygpt.agent.escalate import outgoing
from tinygpt.core.events import Events
from tinygpt.runs import _cloud
from tinygpt.runs._cloud import Target, open_cloud
from unit.test_runs_cloud import TALK

pytestmark = pytest.mark.parity
KEY = "the-key-of-this-test-4711"
PIECES = ("Be", "cause", " of \u00e9.")


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, KEY)


def ours(server: ScriptedCloud, api: str) -> Any:
    out = outgoing(TALK, reason="it is hard")
    cloud = open_cloud(Target(provider=server.url, api=api, model="m"), Events())
    return cloud.ask(out.messages, out.tools)


def fields(kind: Any, body: dict[str, Any]) -> None:
    """Each field of a request is one of the maker's, of its type; unknown ones in messages, too."""
    import pydantic
    from typing_extensions import get_type_hints

    hints = get_type_hints(kind)
    for name, value in body.items():
        if name != "stream":  # it stands in a type of its own
            pydantic.TypeAdapter(hints[name]).validate_python(value)


def test_the_script_is_what_the_makers_clients_read() -> None:
    openai, anthropic = nano.require("openai"), nano.require("anthropic")
    with ScriptedCloud(said(*PIECES)) as server:
        told = ours(server, "openai")
        client = openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0)
        with client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "a"}]) as stream:
            final = stream.get_final_completion()
        assert final.choices[0].message.content == told.text == "".join(PIECES)
        assert final.choices[0].finish_reason == told.finish_reason == "stop"
        assert (final.usage.prompt_tokens, final.usage.completion_tokens) == (told.n_in, told.n_out)
        told = ours(server, "anthropic")
        client = anthropic.Anthropic(base_url=server.url.removesuffix("/v1"), api_key=KEY, max_retries=0)
        given = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]}
        with client.messages.stream(**given) as stream:
            final = stream.get_final_message()
        assert final.content[0].text == told.text and final.stop_reason == "end_turn"
        assert (told.n_in, told.n_out) == (N_IN, N_OUT) and final.usage.output_tokens == N_OUT
        first, second, third, fourth = server.headers
    assert first["authorization"] == second["authorization"] == f"Bearer {KEY}"
    assert "anthropic-version" in third and "anthropic-version" in fourth


def test_requests_have_the_makers_types() -> None:
    openai, anthropic = nano.require("openai"), nano.require("anthropic")
    with ScriptedCloud(said("ok")) as server:
        ours(server, "openai")
        ours(server, "anthropic")
    first, second = server.bodies
    fields(openai.types.chat.completion_create_params.CompletionCreateParamsBase, first)
    fields(anthropic.types.message_create_params.MessageCreateParamsBase, second)
    assert len(first["messages"]) == 7 and len(second["messages"]) == 5


def test_the_models_that_are_asked_unnamed_are_still_offered() -> None:
    from typing import get_args

    openai, anthropic = nano.require("openai"), nano.require("anthropic")
    assert _cloud.OPENAI_MODEL in get_args(openai.types.ChatModel)
    offered = get_args(get_args(anthropic.types.Model)[0])
    assert _cloud.ANTHROPIC_MODEL in offered
    assert _cloud.ANTHROPIC_MODEL not in anthropic.resources.messages.messages.DEPRECATED_MODELS
