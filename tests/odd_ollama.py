"""Bad and odd requests of three surfaces, and what each answers: a table for tests and for the docs.

`python tests/odd_ollama.py` writes docs/serve-requests-ollama.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "serve-requests-ollama.md"
HEAD = """# Odd requests, and what they answer: Ollama, Anthropic, Responses

Each row is a test (tests/unit/test_serve_ollama.py, test_serve_anthropic.py, test_serve_responses.py).
An error has the form of its surface: Ollama's is `{"error": "..."}`, Anthropic's `{"type": "error",
"error": {"type", "message"}}`, that of /v1/responses OpenAI's object. The answer column holds a part of
the message, or what a good answer shows. This page is written by `python tests/odd_ollama.py`. The
served models are `tiny`, which reasons and has a context of 128, and `base`, which fills in the middle.

Without effect, since every client may send them: Ollama's options of how a model is laid out (`num_ctx`,
`num_gpu`, `num_thread`, `num_batch`, `num_keep`, `use_mmap` and their like), `shift` and `truncate`
beside a prompt (one that does not fit is an error), levels of `think` (each is a yes); Anthropic's
`cache_control`, `effort`, `budget_tokens`, `context_management`, `service_tier`; of /v1/responses
`include` of what no answer here has, `verbosity`, `service_tier`, `prompt_cache_key`, `max_tool_calls`,
levels of `reasoning.effort` but "none" and "minimal". Keys that no surface knows are let pass, but for
Ollama's `options`.

"""


@dataclass(frozen=True)
class Odd:
    """`says` is in the error's message, or in the answer's JSON."""

    request: str
    body: Any
    status: int
    says: str


def _ollama() -> list[Odd]:
    chat, generate = "POST /api/chat", "POST /api/generate"
    hi = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": False}
    text = {"model": "tiny", "prompt": "hi", "stream": False}

    def options(**found: Any) -> dict[str, Any]:
        return hi | {"options": found}

    def message(**found: Any) -> dict[str, Any]:
        return hi | {"messages": [found]}

    return [
        Odd(chat, b"", 400, "the request has no body"),
        Odd(chat, b"{'model': 1}", 400, "the body is not valid JSON"),
        Odd(chat, b"\xff\xfe", 400, "the body is not valid JSON"),
        Odd(chat, b"[1]", 400, "the body must be a JSON object, got a list"),
        Odd(chat, b'{"model": "tiny", "options": {"temperature": NaN}}', 400, "NaN is no JSON number"),
        Odd(chat, b'{"model": "tiny", "options": {"temperature": 1e999}}', 400, "too large"),
        Odd(
            chat, b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}', 400, "surrogate"
        ),
        Odd(chat, {}, 400, "'model' is required"),
        Odd(chat, {"model": 7}, 400, "'model' must be a string, got a number"),
        Odd(chat, hi | {"model": "nope"}, 404, "model 'nope' not found"),
        Odd(chat, hi | {"model": "tiny:latest"}, 200, '"model": "tiny:latest"'),
        Odd(chat, {"model": "tiny"}, 200, '"done_reason": "load"'),
        Odd(chat, {"model": "tiny", "messages": []}, 200, '"done_reason": "load"'),
        Odd(chat, {"model": "tiny", "keep_alive": 0}, 200, '"done_reason": "unload"'),
        Odd(chat, {"model": "tiny", "keep_alive": "0"}, 200, '"done_reason": "unload"'),
        Odd(chat, hi | {"keep_alive": "1h30m"}, 200, '"done_reason": "stop"'),
        Odd(chat, hi | {"keep_alive": -1}, 200, '"done_reason": "stop"'),
        Odd(chat, hi | {"keep_alive": "soon"}, 400, "'keep_alive' must be seconds or a duration"),
        Odd(chat, hi | {"keep_alive": True}, 400, "'keep_alive' must be a number or a duration"),
        Odd(chat, hi | {"messages": "hi"}, 400, "'messages' must be a list of objects, got a string"),
        Odd(chat, hi | {"messages": ["hi"]}, 400, "'messages[0]' must be an object, got a string"),
        Odd(chat, message(content="hi"), 400, "'messages[0].role' is required"),
        Odd(chat, message(role="judge", content="hi"), 400, "'messages[0].role' must be one of"),
        Odd(
            chat,
            message(role="user", content=["hi"]),
            400,
            "'messages[0].content' must be a string, got a list",
        ),
        Odd(chat, message(role="user", content="hi", images=["aGk="]), 400, "read text only"),
        Odd(chat, message(role="user", content="hi", images=[]), 200, '"content": "Hello"'),
        Odd(
            chat,
            message(role="assistant", tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]),
            400,
            "arguments' must be an object, got a string",
        ),
        Odd(chat, message(role="user", tool_calls=[{"function": {"name": "f"}}]), 400, "are an assistant's"),
        Odd(chat, hi | {"stream": "no"}, 400, "'stream' must be true or false, got a string"),
        Odd(chat, hi | {"format": "xml"}, 400, '\'format\' must be "json" or a JSON schema, got "xml"'),
        Odd(chat, hi | {"format": ""}, 200, '"content": "Hello"'),
        Odd(chat, hi | {"format": 3}, 400, "'format' must be \"json\" or a JSON schema, got a number"),
        Odd(chat, hi | {"think": "hard"}, 400, "'think' must be true, false or one of"),
        Odd(chat, hi | {"model": "base", "think": True}, 400, '"base" does not support thinking'),
        Odd(chat, hi | {"tools": [{"type": "web_search"}]}, 400, "'tools[0].type' must be 'function'"),
        Odd(chat, hi | {"tools": [{"type": "function"}]}, 400, "'tools[0].function' is required"),
        Odd(chat, hi | {"tools": [{"function": {"name": "f"}}] * 2}, 400, "two tools have the name 'f'"),
        Odd(chat, hi | {"logprobs": True, "top_logprobs": 21}, 400, "'top_logprobs' must be from 0 to 20"),
        Odd(chat, hi | {"top_logprobs": 2}, 400, "'top_logprobs' needs 'logprobs': true"),
        Odd(chat, options(temperature="hot"), 400, "'options.temperature' must be a number, got a string"),
        Odd(chat, options(temperature=-1), 400, "'options.temperature' must be at least 0"),
        Odd(chat, options(top_p=2), 400, "'options.top_p' must be from 0 to 1"),
        Odd(chat, options(num_predict=-3), 400, "'options.num_predict' must be at least -2"),
        Odd(chat, options(num_predict=1.5), 400, "'options.num_predict' must be a whole number"),
        Odd(chat, options(stop=["a", ""]), 400, "'options.stop' holds an empty text"),
        Odd(chat, options(stop="a"), 200, '"content": "Hello"'),
        Odd(chat, options(mirostat=2), 400, "'options.mirostat' cannot be done by this server"),
        Odd(chat, options(mirostat=0, tfs_z=1, typical_p=1), 200, '"content": "Hello"'),
        Odd(
            chat,
            options(repeat_penalty=1.1, repeat_last_n=64),
            400,
            "'options.repeat_last_n' cannot be 64 beside",
        ),
        Odd(
            chat, options(temprature=1), 400, "'options.temprature' is not known. Did you mean 'temperature'?"
        ),
        Odd(chat, options(temperature=None, num_ctx=None, seed=None, stop=None), 200, '"content": "Hello"'),
        Odd(chat, options(num_ctx=8192, num_gpu=1, use_mmap=True), 200, '"content": "Hello"'),
        Odd(chat, options(seed=-1), 200, '"content": "Hello"'),
        Odd(chat, hi | {"options": [1]}, 400, "'options' must be an object, got a list"),
        Odd(generate, {"model": "tiny", "prompt": ""}, 200, '"done_reason": "load"'),
        Odd(generate, text | {"raw": True, "system": "s"}, 400, "raw mode does not support"),
        Odd(generate, text | {"template": "{{ .Prompt }}"}, 400, "'template' cannot be given"),
        Odd(generate, text | {"suffix": "x"}, 400, '"tiny" does not support insert'),
        Odd(generate, text | {"model": "base", "suffix": "x"}, 200, '"response": "Hello"'),
        Odd(
            generate, text | {"model": "base", "suffix": "x", "system": "s"}, 400, "cannot be given together"
        ),
        Odd(generate, text | {"context": ["a"]}, 400, "'context' must be the list of ids"),
        Odd(generate, text | {"images": ["aGk="]}, 400, "read text only"),
        Odd(generate, text | {"prompt": ["hi"]}, 400, "'prompt' must be a string, got a list"),
        Odd("POST /api/embed", {"model": "tiny", "input": ""}, 200, '"embeddings": []'),
        Odd(
            "POST /api/embed",
            {"model": "tiny", "input": [1]},
            400,
            "'input[0]' must be a string, got a number",
        ),
        Odd(
            "POST /api/embed",
            {"model": "tiny", "input": "a" * 200, "truncate": False},
            400,
            "exceeds the context length: 201",
        ),
        Odd("POST /api/embed", {"model": "tiny", "input": "a", "dimensions": 9}, 400, "the model has 4"),
        Odd("POST /api/embed", {"model": "tiny", "input": "a", "dimensions": 1}, 200, "[[1.0]]"),
        Odd("POST /api/embeddings", {"model": "tiny"}, 200, '"embedding": []'),
        Odd("POST /api/show", {"name": "tiny"}, 200, '"capabilities"'),
        Odd("POST /api/show", {"model": "", "name": ""}, 400, "'model' is required"),
        Odd("POST /api/pull", {"model": "llama3"}, 404, "start `tinygpt serve` with the model's path"),
        Odd("POST /api/pull", {"name": "tiny", "stream": False}, 200, '"status": "success"'),
        Odd("POST /api/push", {"model": "tiny"}, 400, "models are not pushed from here"),
        Odd(
            "POST /api/create", {"model": "mine", "from": "tiny"}, 400, "models are not made over the network"
        ),
        Odd("DELETE /api/delete", {"model": "tiny"}, 400, "is not deleted over the network"),
        Odd("DELETE /api/delete", {"name": "nope"}, 404, "model 'nope' not found"),
        Odd("POST /api/copy", {"source": "tiny"}, 400, "'destination' is required"),
        Odd("POST /api/blobs/sha256:00", b"x", 400, "no files are taken over the network"),
    ]


def _anthropic() -> list[Odd]:
    path, count = "POST /v1/messages", "POST /v1/messages/count_tokens"
    hi = {"model": "tiny", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    tool = {"name": "f", "input_schema": {"type": "object"}}
    use = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}

    def turns(*found: tuple[str, Any]) -> dict[str, Any]:
        return hi | {"messages": [{"role": role, "content": content} for role, content in found]}

    return [
        Odd(path, b"{", 400, "the body is not valid JSON"),
        Odd(path, {}, 400, "'model' is required"),
        Odd(path, hi | {"model": "nope"}, 404, "does not exist"),
        Odd(path, hi | {"max_tokens": None}, 400, "'max_tokens' is required"),
        Odd(path, hi | {"max_tokens": 0}, 400, "'max_tokens' must be at least 1"),
        Odd(path, hi | {"messages": []}, 400, "'messages' is required"),
        Odd(path, turns(("tool", "hi")), 400, "'messages[0].role' must be one of"),
        Odd(path, turns(("user", 5)), 400, "'messages[0].content' must be a string or a list of blocks"),
        Odd(
            path,
            turns(("user", [{"type": "image", "source": {}}])),
            400,
            "the models of this server read text",
        ),
        Odd(path, turns(("user", [{"type": "text"}])), 400, "'messages[0].content[0].text' is required"),
        Odd(path, turns(("user", "a"), ("user", "b")), 200, '"text": "Hello"'),
        Odd(path, turns(("user", "a"), ("assistant", "He")), 200, '"text": "Hello"'),
        Odd(
            path,
            turns(("user", [{"type": "tool_result", "tool_use_id": "t9"}])),
            400,
            "is 't9', which no tool_use before it has",
        ),
        Odd(
            path, turns(("user", "a"), ("assistant", [use, use])), 400, "'t1' is that of an earlier tool_use"
        ),
        Odd(path, hi | {"system": 3}, 400, "'system' must be a string or a list of blocks"),
        Odd(
            path,
            hi | {"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]},
            200,
            '"text": "Hello"',
        ),
        Odd(path, turns(("user", "a" * 200)), 400, "prompt is too long: 201 tokens > 128 maximum"),
        Odd(path, hi | {"temperature": 3}, 400, "'temperature' must be from 0 to 2"),
        Odd(path, hi | {"top_k": 1.5}, 400, "'top_k' must be a whole number"),
        Odd(path, hi | {"stop_sequences": "x"}, 400, "'stop_sequences' must be a list of strings"),
        Odd(path, hi | {"stop_sequences": [""]}, 400, "'stop_sequences' holds an empty text"),
        Odd(
            path,
            hi | {"tools": [{"type": "bash_20250124", "name": "bash"}]},
            400,
            "this server runs no tools",
        ),
        Odd(path, hi | {"tools": [{"name": "f"}]}, 400, "'tools[0].input_schema' is required"),
        Odd(path, hi | {"tool_choice": {"type": "any"}}, 400, "asks for a call, but there are no tools"),
        Odd(
            path,
            hi | {"tool_choice": {"type": "tool", "name": "g"}, "tools": [tool]},
            400,
            "none of the tools: f",
        ),
        Odd(path, hi | {"tool_choice": "any", "tools": [tool]}, 400, "'tool_choice' must be an object"),
        Odd(path, hi | {"thinking": {"type": "enabled"}}, 400, "'thinking.budget_tokens' is required"),
        Odd(
            path,
            hi | {"thinking": {"type": "enabled", "budget_tokens": 9}},
            400,
            "must be less than max_tokens",
        ),
        Odd(path, hi | {"thinking": {"type": "deep"}}, 400, "'thinking.type' must be one of"),
        Odd(path, hi | {"model": "base", "thinking": {"type": "adaptive"}}, 200, '"text": "Hello"'),
        Odd(path, hi | {"mcp_servers": [{}]}, 400, "'mcp_servers' cannot be done by this server"),
        Odd(
            path,
            hi | {"output_config": {"format": {"type": "json_schema"}}},
            400,
            "format.schema' is required",
        ),
        Odd(count, {"model": "tiny", "messages": []}, 400, "'messages' is required"),
        Odd(
            count,
            {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]},
            200,
            '"input_tokens": 3',
        ),
    ]


def _responses() -> list[Odd]:
    path = "POST /v1/responses"
    hi = {"model": "tiny", "input": "hi"}
    tool = {"type": "function", "name": "f"}
    output = {"type": "function_call_output", "call_id": "c", "output": "1"}

    def items(*found: Any) -> dict[str, Any]:
        return {"model": "tiny", "input": list(found)}

    return [
        Odd(path, b"nope", 400, "the body is not valid JSON"),
        Odd(path, {"input": "hi"}, 400, "'model' is required"),
        Odd(path, {"model": "nope", "input": "hi"}, 404, "does not exist"),
        Odd(path, {"model": "tiny"}, 400, "'input' is required"),
        Odd(path, {"model": "tiny", "input": ""}, 400, "'input' is required"),
        Odd(path, {"model": "tiny", "input": 5}, 400, "'input' must be a string or a list of items"),
        Odd(path, items("hi"), 400, "'input[0]' must be an object, got a string"),
        Odd(path, items({"role": "tool", "content": "x"}), 400, "'input[0].role' must be one of"),
        Odd(path, items({"role": "user", "content": [{"type": "input_image"}]}), 400, "read text only"),
        Odd(path, items({"type": "computer_call"}), 400, "is nothing that this server takes"),
        Odd(path, items(output), 400, "is 'c', which no function_call before it has"),
        Odd(
            path,
            items({"type": "function_call", "call_id": "c", "name": "f", "arguments": "["}, output),
            200,
            "Hello",
        ),
        Odd(path, items({"type": "item_reference", "id": "msg_x"}), 400, "is no item of a stored response"),
        Odd(
            path,
            items({"role": "developer", "content": "d"}, {"role": "user", "content": "hi"}),
            200,
            "Hello",
        ),
        Odd(path, hi | {"input": "a" * 200}, 400, "maximum context length is 128 tokens"),
        Odd(path, hi | {"tools": [{"type": "web_search"}]}, 400, "this server runs no tools"),
        Odd(path, hi | {"tool_choice": "required"}, 400, "asks for a call, but there are no tools"),
        Odd(
            path,
            hi | {"tool_choice": {"type": "function", "name": "g"}, "tools": [tool]},
            400,
            "none of the tools",
        ),
        Odd(path, hi | {"tool_choice": "always"}, 400, "'tool_choice' must be one of"),
        Odd(path, hi | {"max_output_tokens": 0}, 400, "'max_output_tokens' must be at least 1"),
        Odd(path, hi | {"temperature": "warm"}, 400, "'temperature' must be a number, got a string"),
        Odd(path, hi | {"top_logprobs": 21}, 400, "'top_logprobs' must be from 0 to 20"),
        Odd(path, hi | {"text": {"format": {"type": "yaml"}}}, 400, "'text.format.type' must be one of"),
        Odd(
            path, hi | {"text": {"format": {"type": "json_schema", "name": "a"}}}, 400, "schema' is required"
        ),
        Odd(path, hi | {"reasoning": {"effort": "huge"}}, 400, "'reasoning.effort' must be one of"),
        Odd(path, hi | {"background": True}, 400, "'background' cannot be done by this server"),
        Odd(path, hi | {"background": False, "truncation": "disabled"}, 200, "Hello"),
        Odd(path, hi | {"n": 2}, 400, "'n' must be 1"),
        Odd(path, hi | {"max_tokens": 5}, 400, "'max_tokens' is of chats: here it is 'max_output_tokens'"),
        Odd(path, hi | {"guided_regex": "a"}, 400, "'guided_regex' is of chats: here it is 'text.format'"),
        Odd(path, hi | {"stop": [5]}, 400, "'stop[0]' must be a string, got a number"),
        Odd(path, hi | {"truncation": "auto"}, 400, "'truncation' must be 'disabled'"),
        Odd(path, hi | {"include": ["reasoning.encrypted_content"]}, 200, "Hello"),
        Odd(path, hi | {"include": ["everything"]}, 400, "'include[0]' must be one of"),
        Odd(path, hi | {"previous_response_id": "resp_x"}, 400, "names no kept response"),
        Odd(path, hi | {"metadata": {"a": 1}}, 400, "'metadata.a' must be a string, got a number"),
        Odd(path, hi | {"stream": 1}, 400, "'stream' must be true or false, got a number"),
        Odd("GET /v1/responses/resp_x", None, 404, "there is no response with the id 'resp_x'"),
        Odd("DELETE /v1/responses/resp_x", None, 404, "there is no response with the id 'resp_x'"),
        Odd("GET /v1/responses/resp_x?stream=true", None, 400, "is not streamed again"),
    ]


OLLAMA, ANTHROPIC, RESPONSES = _ollama(), _anthropic(), _responses()


def _row(odd: Odd) -> str:
    if isinstance(odd.body, bytes):
        shown = odd.body.decode("latin-1").encode("unicode_escape").decode() if odd.body else "(nothing)"
    else:
        shown = "" if odd.body is None else json.dumps(odd.body)
    shown = shown if len(shown) <= 150 else shown[:147] + "..."
    cells = odd.request, f"`{shown}`" if shown else "", str(odd.status), f"`{odd.says}`"
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page() -> str:
    """The docs' page."""
    parts = [HEAD.rstrip()]
    for title, rows in (("Ollama", OLLAMA), ("Anthropic", ANTHROPIC), ("Responses", RESPONSES)):
        table = ["| request | body | status | answer |", "|---|---|---|---|", *map(_row, rows)]
        parts += [f"## {title} ({len(rows)})", "\n".join(table)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
