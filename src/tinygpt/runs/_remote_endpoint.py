"""A model behind an OpenAI-compatible server as suites see it: ours, Ollama, llama.cpp, mlx-lm."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import RemoteError, UnsupportedError
from tinygpt.core.events import Events, Progress
from tinygpt.eval.endpoint import GREEDY, Message, Prompt, Reply, Sampling
from tinygpt.runs._openai import Client, Refused, another, withheld

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer

FATAL = (401, 403, 404, 405)  # what a server says to every prompt alike
ENOUGH = 5  # answers in a row that did not come, after which the others are not asked for
TEXTS = 32  # texts to embed in one request
SURE = 8  # tokens of which a model is never wholly certain, all of them
SOON = 20.0  # seconds in which a server tells its models


class RemoteEndpoint:
    """A server's model. A server that does not list its models, or whose first answers do not come, is an
    error and no score; later ones that do not come are counted.

    model: the server's name for it; "": the first that it lists. tokenizer: the model's own, where token
    log-probabilities are wanted."""

    baseline = False

    def __init__(
        self,
        url: str,
        model: str = "",
        *,
        batch: int = 8,
        seconds: float = 600.0,
        tries: int = 4,
        tokenizer: Tokenizer | None = None,
        events: Events | None = None,
    ) -> None:
        self._client = Client(url, seconds=seconds, tries=tries)
        listed = Client(url, seconds=min(seconds, SOON), tries=min(tries, 2)).models()
        self.model = self.name = model or listed[0]
        alike = [one for one in listed if one.partition(":")[0] == model.partition(":")[0]]  # Ollama's tags
        if events is not None and model and not alike:
            told = ", ".join(listed[:5]) + ", ..." * (len(listed) > 5)
            events.note(
                f"the server lists no model '{model}', so another may answer; it lists: {told}", "warning"
            )
        self.path, self.context, self.tokenizer = self._client.url, 0, tokenizer
        self.step: int | None = None
        self.model_hash: str | None = None
        self.facts: dict[str, Any] = {"batch_size": batch}
        self._batch, self._events = batch, events
        self._guard, self._lost, self._proved = threading.Lock(), 0, False
        self._named = False  # it was said that another model answers

    def complete(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        tools: Sequence[dict[str, Any]] | None = None,
        sampling: Sampling = GREEDY,
    ) -> list[Reply]:
        """One reply a prompt, some at once. What a server refuses every time is a RemoteError."""

        def ask(number: int) -> Reply:
            prompt = prompts[number]
            body = self._body(prompt, max_tokens, stop, tools)
            body |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
            body["seed"] = sampling.seed + number
            return self._reply("/chat/completions" if isinstance(prompt, list) else "/completions", body)

        return self._at_once(ask, len(prompts))

    def token_logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """From the server's echo of a prompt; UnsupportedError where it does not echo log-probabilities."""

        def ask(number: int) -> list[float]:
            ids = list(rows[number])
            body = {"model": self.model, "prompt": ids, "max_tokens": 1, "temperature": 0, "logprobs": 1}
            found = self._answered("/completions", {**body, "echo": True})
            logprobs = found.get("logprobs")
            told = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
            told = told[: len(ids)] if isinstance(told, list) else []
            if len(told) != len(ids) or told[0] is not None or not all(_is_number(one) for one in told[1:]):
                raise UnsupportedError(
                    f"{self.path} does not tell the log-probabilities of a prompt's tokens",
                    hint="losses need a server that echoes (echo and logprobs), as tinygpt serve does",
                )
            if any(one > 1e-3 for one in told[1:]) or (len(ids) > SURE and not any(told[1:])):
                raise UnsupportedError(
                    f"{self.path} says that every token is certain, or more than that: its log-probabilities "
                    "are none",
                    hint="losses need a server that computes them",
                )
            return [float(one) for one in told[1:]]

        return self._at_once(ask, len(rows))

    def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """A vector for each text; RemoteError where the server gives none. None is cut here."""
        parts = [list(texts[at : at + TEXTS]) for at in range(0, len(texts), TEXTS)]

        def ask(number: int) -> list[list[float]]:
            body = {"model": self.model, "input": parts[number], "encoding_format": "float"}
            data = self._client.post("/embeddings", body).get("data")
            listed = [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
            told: list[Any] = [
                one.get("embedding") for one in sorted(listed, key=lambda one: one.get("index") or 0)
            ]
            if len(told) != len(parts[number]) or not all(
                isinstance(vector, list) and vector and all(map(_is_number, vector)) for vector in told
            ):
                raise RemoteError(f"{self.path}/embeddings gave no vector for each text")
            return told

        return [vector for part in self._at_once(ask, len(parts)) for vector in part], 0

    def _at_once(self, ask: Any, n: int) -> list[Any]:
        """`ask` of every number, in order; what it raises ends all."""
        found = []
        with ThreadPoolExecutor(self._batch) as threads:
            jobs = [threads.submit(ask, number) for number in range(n)]
            try:
                for job in jobs:
                    found.append(job.result())
                    if self._events is not None:
                        told = Progress(task="ask", done=len(found), total=n, unit="prompts")
                        self._events.emit(told)
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise
        return found

    def _body(
        self, prompt: Prompt, max_tokens: int, stop: Sequence[str], tools: Sequence[dict[str, Any]] | None
    ) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "max_tokens": max_tokens}
        if isinstance(prompt, list):
            body["messages"] = spelled(prompt)
        else:
            body["prompt"] = prompt if isinstance(prompt, str) else list(prompt)
        return body | ({"stop": list(stop)} if stop else {}) | ({"tools": list(tools)} if tools else {})

    def _reply(self, path: str, body: dict[str, Any]) -> Reply:
        with self._guard:
            if self._lost >= ENOUGH:
                return Reply.failed(f"not asked: {ENOUGH} answers in a row did not come")
        try:
            choice = self._answered(path, body)
        except RemoteError as error:
            status = error.status if isinstance(error, Refused) else 0
            this_one = 400 <= status < 500 and status not in FATAL  # other prompts may still be answered
            with self._guard:
                if not (self._proved or this_one) or status in FATAL:
                    raise
                self._lost += not this_one
            return Reply.failed(error.message)
        with self._guard:
            self._lost, self._proved = 0, True
        if why := withheld(choice):
            return Reply.failed(why)
        message = choice["message"]
        text = message["content"] or ""
        return Reply(
            message={**message, "content": text}, text=text, n_tokens=choice["n_tokens"],
            finish_reason="length" if choice.get("finish_reason") == "length" else "stop",
        )  # fmt: skip

    def _answered(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The first choice of an answer, and its number of tokens; RemoteError where there is none."""
        found = self._client.post(path, body)
        choices = found.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise RemoteError(f"{self.path}{path} gave no answer: {json.dumps(found)[:200]}")
        if found.get("error") or choices[0].get("finish_reason") == "error":
            raise RemoteError(f"{self.path}{path} broke off: {json.dumps(found)[:200]}")
        self._check_name(found)
        choice, message = choices[0], choices[0].get("message")
        if path.startswith("/chat"):
            if not isinstance(message, dict):
                raise RemoteError(f"{self.path}{path} gave a choice without a message")
            if (wrong := _wrong(message)) is not None:
                raise RemoteError(f"{self.path}{path} gave {wrong}")
        elif not isinstance(choice.get("text"), str):
            raise RemoteError(f"{self.path}{path} gave a choice without text")
        else:
            message = {"role": "assistant", "content": choice["text"]}
        usage = found.get("usage")
        told = usage.get("completion_tokens") if isinstance(usage, dict) else None
        message = {**message, "content": message.get("content")}
        return {**choice, "message": message, "n_tokens": told if isinstance(told, int) else 0}

    def _check_name(self, found: dict[str, Any]) -> None:
        told = another(self.model, found)
        with self._guard:
            first, self._named = bool(told) and not self._named, self._named or bool(told)
        if first and self._events is not None:
            self._events.note(told, "warning")


def _wrong(message: Message) -> str | None:
    """What a message has that no suite could read; None where it is well."""
    if not isinstance(message.get("content"), str | None):
        return f"a content that is no text: {json.dumps(message['content'])[:100]}"
    calls = message.get("tool_calls") or []
    named = isinstance(calls, list) and all(
        isinstance(call, dict)
        and isinstance(call.get("function"), dict)
        and isinstance(call["function"].get("name"), str)
        for call in calls
    )
    return None if named else f"tool calls that are none: {json.dumps(calls)[:100]}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def spelled(messages: Sequence[Message]) -> list[Message]:
    """Messages as OpenAI's API has them: calls have an id and their arguments as text, results name them."""
    told: list[Message] = []
    open_calls: list[str] = []
    for message in messages:
        one = dict(message)
        if calls := message.get("tool_calls"):
            open_calls = [str(call.get("id") or f"call_{len(told)}_{i}") for i, call in enumerate(calls)]
            one["tool_calls"] = [_call(call, id_) for call, id_ in zip(calls, open_calls)]
        if message["role"] == "tool" and "tool_call_id" not in one and open_calls:
            one["tool_call_id"] = open_calls.pop(0)
        told.append(one)
    return told


def _call(call: dict[str, Any], id_: str) -> dict[str, Any]:
    function = call.get("function") or call
    arguments = function.get("arguments", {})
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"id": id_, "type": "function", "function": {"name": function["name"], "arguments": text}}
