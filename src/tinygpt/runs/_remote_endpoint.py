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
from tinygpt.runs._openai import Client, Refused

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer

FATAL = (401, 403, 404, 405)  # what a server says to every prompt alike
ENOUGH = 5  # answers in a row that did not come, after which the others are not asked for
TEXTS = 32  # texts to embed in one request
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
        first = Client(url, seconds=min(seconds, SOON), tries=min(tries, 2)).model()
        self.model = self.name = model or first
        self.path, self.context, self.tokenizer = self._client.url, 0, tokenizer
        self.step: int | None = None
        self.model_hash: str | None = None
        self.facts: dict[str, Any] = {"batch_size": batch}
        self._batch, self._events = batch, events
        self._guard, self._lost, self._proved = threading.Lock(), 0, False

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
            return self._reply("/completions" if isinstance(prompt, str) else "/chat/completions", body)

        return self._at_once(ask, len(prompts))

    def token_logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """From the server's echo of a prompt; UnsupportedError where it does not echo log-probabilities."""

        def ask(number: int) -> list[float]:
            ids = list(rows[number])
            body = {"model": self.model, "prompt": ids, "max_tokens": 1, "temperature": 0, "logprobs": 1}
            found = self._answered("/completions", {**body, "echo": True})
            told = ((found.get("logprobs") or {}).get("token_logprobs") or [])[: len(ids)]
            if len(told) != len(ids) or told[0] is not None or not all(_is_number(one) for one in told[1:]):
                raise UnsupportedError(
                    f"{self.path} does not tell the log-probabilities of a prompt's tokens",
                    hint="losses need a server that echoes (echo and logprobs), as tinygpt serve does",
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
        body |= {"prompt": prompt} if isinstance(prompt, str) else {"messages": spelled(prompt)}
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
        message = choice.get("message") or {"role": "assistant", "content": choice.get("text")}
        text = message.get("content") or ""
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
        choice, message = choices[0], choices[0].get("message")
        if path.startswith("/chat") and not isinstance(message, dict):
            raise RemoteError(f"{self.path}{path} gave a choice without a message")
        if not path.startswith("/chat") and not isinstance(choice.get("text"), str):
            raise RemoteError(f"{self.path}{path} gave a choice without text")
        told = (found.get("usage") or {}).get("completion_tokens")
        return {**choice, "n_tokens": told if isinstance(told, int) else 0}


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
