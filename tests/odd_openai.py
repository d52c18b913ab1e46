"""Bad and odd requests of OpenAI's surface and their answers: the table of docs/serve-requests.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CHAT, TEXT, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
FIM, TOKENIZE, DETOKENIZE = "/v1/fim/completions", "/v1/tokenize", "/v1/detokenize"
FIXED, FIX = "/v1/corrections", {"intent": "light on", "original": "off", "corrected": "on"}
HI = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "light", "parameters": {"type": "object"}}}
OTHER = {"type": "function", "function": {"name": "door"}}


@dataclass(frozen=True)
class Odd:
    """A request. `param`: the field that a refusal names; where `status` is 200, `gives` is in the reply."""

    path: str
    what: str
    body: Any
    status: int = 400
    param: str | None = None
    gives: str = ""
    method: str = "POST"

    @property
    def row(self) -> str:
        """Its line in the table."""
        answer = f"{self.status}" + (f", param `{self.param}`" if self.param else "")
        return f"| `{self.method} {self.path}` | {self.what} | {answer} |"


def _chat(what: str, status: int = 400, param: str | None = None, gives: str = "", **fields: Any) -> Odd:
    return Odd(CHAT, what, {"messages": [HI], **fields}, status, param, gives)


def _said(
    what: str, *messages: Any, status: int = 400, param: str | None = None, gives: str = "Hello."
) -> Odd:
    return Odd(CHAT, what, {"messages": list(messages)}, status, param, gives if status == 200 else "")


def _text(what: str, status: int = 400, param: str | None = None, gives: str = "", **fields: Any) -> Odd:
    return Odd(TEXT, what, {"prompt": "hi", **fields}, status, param, gives)


CALL = {"id": "a", "type": "function", "function": {"name": "light", "arguments": '{"on": true}'}}
BROKEN = {"id": "a", "type": "function", "function": {"name": "light", "arguments": '{"on": tr'}}
SCHEMA = {"type": "object", "properties": {"on": {"type": "boolean"}}}

LONG = {"title": "x" * 300_000}

ODD = [
    # the body
    Odd(CHAT, "no body", b""),
    Odd(CHAT, "a body that is no JSON", b'{"messages": [}'),
    Odd(CHAT, "a body that is a list", b"[]"),
    Odd(CHAT, "a body that is a string", b'"hi"'),
    Odd(CHAT, "a body that is no UTF-8", b'{"messages": "\xff\xfe"}'),
    Odd(CHAT, "NaN, which JSON has not", b'{"messages": [], "temperature": NaN}'),
    Odd(CHAT, "half of a surrogate pair", b'{"messages": [{"role": "user", "content": "\\ud800"}]}'),
    Odd(CHAT, "a number of 5,000 digits", b'{"seed": ' + b"9" * 5000 + b"}"),
    Odd(CHAT, "a million brackets", b"[" * 1_000_000),
    Odd(CHAT, "keys that nobody knows", {"messages": [HI], "service_tier": "auto", "x": {}}, 200, None,
        "Hello."),
    Odd(CHAT, "every optional field null", {
        "messages": [HI], **dict.fromkeys((
            "model", "temperature", "top_p", "n", "stop", "max_tokens", "stream", "tools", "tool_choice",
            "seed", "response_format", "logit_bias", "logprobs", "top_logprobs", "user", "stream_options",
            "functions", "metadata", "guided_json", "reasoning_effort", "max_completion_tokens",
        )),
    }, 200, None, "Hello."),
    # messages
    Odd(CHAT, "no `messages`", {"model": "tiny"}, 400, "messages"),
    Odd(CHAT, "`messages` is empty", {"messages": []}, 400, "messages"),
    Odd(CHAT, "`messages` is a string", {"messages": "hi"}, 400, "messages"),
    Odd(CHAT, "a message is a string", {"messages": ["hi"]}, 400, "messages[0]"),
    _said("a message without role", {"content": "hi"}, param="messages[0].role"),
    _said("an unknown role", {"role": "wizard", "content": "hi"}, param="messages[0].role"),
    _said("a user without content", {"role": "user"}, param="messages[0].content"),
    _said("content is a number", {"role": "user", "content": 5}, param="messages[0].content"),
    _said("content is a list of strings", {"role": "user", "content": ["hi"]},
          param="messages[0].content[0]"),
    _said("an image", {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
          param="messages[0].content[0].type"),
    _said("a part without text", {"role": "user", "content": [{"type": "text"}]},
          param="messages[0].content[0].text"),
    _said("text parts", {"role": "user", "content": [{"type": "text", "text": "hi"}]}, status=200),
    _said("a developer's message", {"role": "developer", "content": "Be brief."}, HI, status=200),
    _said("an assistant's calls without content, with fields of other vendors", HI,
          {"role": "assistant", "tool_calls": [CALL | {"name": "light"}], "provider_specific_fields": {}},
          {"role": "tool", "tool_call_id": "a", "name": "light", "content": "done"}, status=200),
    _said("an assistant's `content` and `tool_calls` null", HI,
          {"role": "assistant", "content": None, "tool_calls": None, "refusal": None}, HI, status=200),
    _said("arguments of an earlier call that are broken JSON", HI,
          {"role": "assistant", "content": None, "tool_calls": [BROKEN]},
          {"role": "tool", "tool_call_id": "a", "content": "what?"}, status=200),
    _said("a call without a function", HI, {"role": "assistant", "tool_calls": [{"id": "a"}]},
          param="messages[1].tool_calls[0].function"),
    _said("a function's message of old", HI,
          {"role": "assistant", "content": None, "function_call": {"name": "light", "arguments": "{}"}},
          {"role": "function", "name": "light", "content": "done"}, status=200),
    # sampling
    _chat("temperature above 2", 400, "temperature", temperature=2.5),
    _chat("temperature below 0", 400, "temperature", temperature=-1),
    _chat("temperature is text", 400, "temperature", temperature="hot"),
    _chat("temperature is true", 400, "temperature", temperature=True),
    _chat("top_p above 1", 400, "top_p", top_p=1.5),
    _chat("top_k -1, which vLLM's clients say for all", 200, None, "Hello.", top_k=-1),
    _chat("top_k is half a number", 400, "top_k", top_k=1.5),
    _chat("min_p above 1", 400, "min_p", min_p=3),
    _chat("repetition_penalty 0", 400, "repetition_penalty", repetition_penalty=0),
    _chat("presence_penalty above 2", 400, "presence_penalty", presence_penalty=2.1),
    _chat("frequency_penalty is a list", 400, "frequency_penalty", frequency_penalty=[1]),
    _chat("logit_bias is a list", 400, "logit_bias", logit_bias=[[1, 2]]),
    _chat("logit_bias names a word", 400, "logit_bias.the", logit_bias={"the": 1}),
    _chat("logit_bias above 100", 400, "logit_bias.5", logit_bias={"5": 101}),
    _chat("seed is negative", 200, None, "Hello.", seed=-1),
    _chat("seed of 128 bits", 400, "seed", seed=2**127),
    _chat("max_tokens 0", 400, "max_tokens", max_tokens=0),
    _chat("max_tokens is text", 400, "max_tokens", max_tokens="many"),
    _chat("max_completion_tokens below 0", 400, "max_completion_tokens", max_completion_tokens=-5),
    _chat("max_tokens beyond the context", 200, None, "Hello.", max_tokens=10_000_000),
    _chat("n 0", 400, "n", n=0),
    _chat("n of a million", 400, "n", n=1_000_000),
    _chat("stop holds an empty text", 400, "stop", stop=[""]),
    _chat("stop holds a number", 400, "stop[0]", stop=[5]),
    _chat("1,000 stop texts", 400, "stop", stop=["a"] * 1000),
    _chat("beam search", 400, "use_beam_search", use_beam_search=True),
    _chat("the shortest answer, as vLLM has it", 400, "min_tokens", min_tokens=5),
    _chat("log-probabilities of a chat's prompt", 400, "prompt_logprobs", prompt_logprobs=1),
    _chat("best_of in a chat", 400, "best_of", best_of=3),
    _chat("echo in a chat", 400, "echo", echo=True),
    _chat("fields of vLLM and llama.cpp that change nothing", 200, None, "Hello.", min_tokens=0, best_of=1,
          length_penalty=1.0, bad_words=[], use_beam_search=False, n_predict=-1, mirostat=0, echo=False,
          structured_outputs={"structural_tag": None, "disable_any_whitespace": False}),
    _chat("top_n_sigma below 0", 400, "top_n_sigma", top_n_sigma=-1),
    # reports and streams
    _chat("top_logprobs without logprobs", 400, "top_logprobs", top_logprobs=2),
    _chat("top_logprobs of 50", 400, "top_logprobs", logprobs=True, top_logprobs=50),
    _chat("logprobs is a number", 400, "logprobs", logprobs=3),
    _chat("stream is text", 400, "stream", stream="yes"),
    _chat("stream_options without stream", 400, "stream_options", stream_options={"include_usage": True}),
    # tools
    _chat("tool_choice required, no tools", 400, "tool_choice", tool_choice="required"),
    _chat("tool_choice of an unknown word", 400, "tool_choice", tools=[TOOL], tool_choice="must"),
    _chat("tool_choice names no tool", 400, "tool_choice", tools=[TOOL],
          tool_choice={"type": "function", "function": {"name": "window"}}),
    _chat("tool_choice auto, no tools", 200, None, "Hello.", tool_choice="auto", parallel_tool_calls=False),
    _chat("tools is an object", 400, "tools", tools=TOOL),
    _chat("a tool without a function", 400, "tools[0].function", tools=[{"type": "function"}]),
    _chat("a tool of another type", 400, "tools[0].type", tools=[{"type": "web_search"}]),
    _chat("a tool whose name is empty", 400, "tools[0].function.name",
          tools=[{"type": "function", "function": {"name": ""}}]),
    _chat("two tools of one name", 400, "tools", tools=[TOOL, TOOL]),
    _chat("a tool whose parameters are a list", 400, "tools[0].function.parameters",
          tools=[{"type": "function", "function": {"name": "a", "parameters": []}}]),
    _chat("description and strict null", 200, None, "Hello.",
          tools=[{"type": "function", "function": {"name": "a", "description": None, "strict": None}}]),
    _chat("allowed_tools names another tool", 400, "tool_choice.allowed_tools.tools", tools=[TOOL],
          tool_choice={"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [OTHER]}}),
    # what the answer must be
    _chat("response_format is a string", 400, "response_format", response_format="json"),
    _chat("response_format of an unknown type", 400, "response_format.type", response_format={"type": "xml"}),
    _chat("json_schema without a schema object", 400, "response_format.json_schema",
          response_format={"type": "json_schema"}),
    _chat("json_schema without a name", 400, "response_format.json_schema.name",
          response_format={"type": "json_schema", "json_schema": {"schema": SCHEMA}}),
    _chat("json_schema whose schema is a list", 400, "response_format.json_schema.schema",
          response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": []}}),
    _chat("a schema of 300 kB", 400, "response_format",
          response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": LONG}}),
    _chat("guided_regex beside response_format", 400, "guided_regex", guided_regex="a+",
          response_format={"type": "json_object"}),
    _chat("guided_json as text", 200, None, "true", guided_json='{"type": "object"}'),
    _chat("structured_outputs of a kind that is not here", 400, "structured_outputs.structural_tag",
          structured_outputs={"structural_tag": "{}"}),
    _chat("guided_choice is empty", 400, "guided_choice", guided_choice=[]),
    _chat("a reasoning_effort that is none", 400, "reasoning_effort", reasoning_effort="enormous"),
    _chat("chat_template_kwargs that nobody reads", 400, "chat_template_kwargs.shout",
          chat_template_kwargs={"shout": True}),
    _chat("continue_final_message after a user", 400, "continue_final_message", continue_final_message=True),
    _chat("audio is asked for", 400, "modalities", modalities=["text", "audio"]),
    # models and jobs
    _chat("an unknown model", 404, "model", model="gpt-9"),
    _chat("model is a number", 400, "model", model=5),
    _chat("no memory for the model", 503, None, model="busy"),
    _said("a job that the model cannot do", {"role": "user", "content": "fail"}),
    Odd(CHAT, "a job that the model cannot do, streamed",
        {"messages": [HI | {"content": "fail"}], "stream": True}),
    _said("a conversation beyond the context", HI | {"content": "endless " * 600}, param="messages"),
    Odd("/v1/models/none", "an unknown model", None, 404, "model", method="GET"),
    Odd("/v1/models/", "no name after the slash", None, 200, None, '"object":"list"', method="GET"),
    Odd("/v1/models/org/tiny", "a name with a slash", None, 200, None, "org/tiny", method="GET"),
    Odd("/v1/models/tiny+poet", "a model with an adapter", None, 200, None, "tiny+poet", method="GET"),
    # completions
    Odd(TEXT, "no prompt", {"max_tokens": 3}, 400, "prompt"),
    _text("prompt is an empty list", 400, "prompt", prompt=[]),
    _text("prompt is a number", 400, "prompt", prompt=5),
    _text("prompt mixes ids and text", 400, "prompt[0]", prompt=[104, "hi"]),
    _text("prompt holds an empty list of ids", 400, "prompt[1]", prompt=[[104], []]),
    _text("prompt holds a negative id", 400, "prompt[0]", prompt=[-1]),
    _text("prompt as one text in a list", 200, None, "Hello.", prompt=["hi"]),
    _text("prompt as lists of ids that differ in length", 200, None, "Hello.", prompt=[[104], [104, 105]]),
    _text("a prompt beyond the context", 400, "prompt", prompt="endless " * 600),
    _text("max_tokens 0 without echo", 400, "max_tokens", max_tokens=0),
    _text("max_tokens 0 with echo", 200, None, "hi", max_tokens=0, echo=True),
    _text("logprobs of 50", 400, "logprobs", logprobs=50),
    _text("max_completion_tokens, which is of chats", 400, "max_completion_tokens", max_completion_tokens=3),
    _text("best_of below n", 400, "best_of", n=3, best_of=2),
    _text("best_of of a stream", 400, "best_of", n=1, best_of=2, stream=True),
    _text("suffix with echo", 400, "suffix", suffix="end", echo=True),
    _text("suffix, seed and logprobs null", 200, None, "Hello.", suffix=None, seed=None, logprobs=None),
    Odd(FIM, "no prompt", {"suffix": "x"}, 400, "prompt"),
    Odd(FIM, "log-probabilities", {"prompt": "a", "logprobs": 1}, 400, "logprobs"),
    Odd(FIM, "prompt is a list", {"prompt": ["a"]}, 400, "prompt"),
    # the rest
    Odd(EMBED, "no input", {"model": "tiny"}, 400, "input"),
    Odd(EMBED, "an empty input", {"input": ""}, 400, "input"),
    Odd(EMBED, "another encoding_format", {"input": "a", "encoding_format": "int8"}, 400, "encoding_format"),
    Odd(EMBED, "dimensions that the model has not", {"input": "a", "dimensions": 2}, 400, "dimensions"),
    Odd(EMBED, "dimensions that it has", {"input": "a", "dimensions": 4}, 200, None, "embedding"),
    Odd(EMBED, "an input that is an object", {"input": {"text": "a"}}, 400, "input"),
    Odd(TOKENIZE, "no prompt", {}, 400, "prompt"),
    Odd(TOKENIZE, "messages", {"messages": [HI]}, 400, "messages"),
    Odd(TOKENIZE, "texts of the tokens", {"prompt": "a", "return_token_strs": True}, 400,
        "return_token_strs"),
    Odd(TOKENIZE, "llama.cpp's `content`", {"content": "hi"}, 200, None, "[104,105]"),
    Odd(DETOKENIZE, "tokens are text", {"tokens": "hi"}, 400, "tokens"),
    Odd(DETOKENIZE, "tokens hold true", {"tokens": [True]}, 400, "tokens"),
    Odd(FIXED, "no corrected", {"intent": "a", "original": "b"}, 400, "corrected"),
    Odd(FIXED, "corrected is blank", FIX | {"corrected": " "}, 400, "corrected"),
    Odd(FIXED, "original is empty", FIX | {"original": ""}, 200, None, '"ok":true'),
    Odd(FIXED, "intent is a list", FIX | {"intent": ["a"]}, 400, "intent"),
    Odd(FIXED, "a field that no correction has", FIX | {"rating": "good"}, 400, "rating"),
    Odd(FIXED, "an input of 300 kB", FIX | {"input": "x" * 300_000}, 400, "input"),
    Odd(FIXED, "model is null", FIX | {"model": None}, 200, None, '"ok":true'),
]  # fmt: skip
UNIQUE = {"type": "object", "properties": {"a": {"uniqueItems": True}}}
STRICT = {"type": "function", "function": {"name": "a", "parameters": UNIQUE, "strict": True}}

# What no surface sees by itself: a model refuses it, of 260 tokens and without tokens for gaps.
OF_MODELS = [
    _chat("logit_bias of an id that the model has not", 400, "logit_bias", logit_bias={"260": 1}),
    _chat("stop_token_ids that the model has not", 400, "stop_token_ids", stop_token_ids=[1, 260]),
    _chat("json_schema with a rule that cannot be enforced", 400, "response_format",
          response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": UNIQUE}}),
    _chat("guided_regex that is none", 400, "guided_regex", guided_regex="("),
    _chat("structured_outputs with a regex that is none", 400, "structured_outputs.regex",
          structured_outputs={"regex": "("}),
    _chat("a grammar beside tools", 400, "grammar", tools=[TOOL], grammar='start: "a"'),
    _chat("a strict tool with a rule that cannot be enforced", 400, "tools", tools=[STRICT]),
    _text("logit_bias of an id that the model has not", 400, "logit_bias", logit_bias={"260": 1}),
    _text("stop_token_ids that the model has not", 400, "stop_token_ids", stop_token_ids=[260]),
    _text("prompt holds an id that the model has not", 400, "prompt", prompt=[[104], [260]]),
    _text("guided_grammar that is none", 400, "guided_grammar", guided_grammar="root ::= other"),
    _text("suffix", 400, "suffix", suffix="end"),
    Odd(FIM, "suffix", {"prompt": "a", "suffix": "b"}, 400, "suffix"),
    Odd(EMBED, "input holds an id that the model has not", {"input": [260]}, 400, "input"),
    Odd(EMBED, "dimensions that the model has not", {"input": "a", "dimensions": 3}, 400, "dimensions"),
    Odd(DETOKENIZE, "tokens hold an id that the model has not", {"tokens": [260]}, 400, "tokens"),
]  # fmt: skip
