"""lm-eval's clients of OpenAI-compatible servers, so made that what did not come is no score.

They are `local-completions` and `local-chat-completions`. lm-eval's own add up what a server did not send to
0, so that one without `echo` has perplexity 1.0000. Here every answer is checked; one that fails is noted
with its example, and enough of them end the run.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tinygpt.core.errors import ConfigError, RemoteError, UnsupportedError
from tinygpt.core.events import Events, Progress
from tinygpt.data.template import _choice
from tinygpt.runs._lm_eval_model import Noted, answered, chat_text, example
from tinygpt.runs._lm_eval_words import Words
from tinygpt.runs._openai import Client, Refused, another, withheld
from tinygpt.runs._remote_endpoint import ENOUGH, FATAL

FAILED = (-math.inf, False)  # the log-likelihood that did not come: never the best one


class Answer(str):
    """What a server wrote. cut: not to its end; error: why there is none."""

    cut: bool = False
    error: str = ""

    @classmethod
    def of(cls, text: str, *, cut: bool = False, error: str = "") -> Answer:
        made = cls(text)
        made.cut, made.error = cut, error
        return made


class Served:
    """What differs from lm-eval's clients; goes before one of them in a class (see `client`)."""

    def __init__(
        self,
        client: Client,
        path: str,
        *,
        words: Words | None,
        think_end: str,
        events: Events | None,
        **more: Any,
    ) -> None:
        super().__init__(base_url=client.url + path, **more)  # type: ignore[call-arg]
        self.client, self.path, self.words = client, path, words
        self.think_end, self.events, self.noted = think_end, events, Noted()
        self._guard, self._lost, self._done, self._total = threading.Lock(), 0, 0, 0
        self._why, self._times = "", Counter[str]()
        self._named = False  # it was said that another model answers
        if words is not None:
            self.tokenizer, self.tokenized_requests = words.tokenizer, True

    # Text and ids, where the tokenizer is here

    def tok_encode(self, string: Any, add_special_tokens: bool | None = None, **how: Any) -> Any:
        if self.words is None:
            return super().tok_encode(string, **how)  # type: ignore[misc]
        if isinstance(string, str):
            return self.words.encode(string, add_special_tokens)
        return [self.words.encode(one) for one in string]

    @property
    def eot_token_id(self) -> int | None:
        return self.words.eot if self.words else _id(self, "eos_token_id")

    @property
    def prefix_token_id(self) -> int | None:
        return self.words.prefix if self.words else _id(self, "bos_token_id") or _id(self, "eos_token_id")

    @property
    def eos_string(self) -> str | None:
        if self.words is not None:
            return self.words.tokenizer.decode([self.words.eot])
        return getattr(self.tokenizer, "eos_token", None)

    def apply_chat_template(self, chat_history: Any, add_generation_prompt: bool = True) -> Any:
        if self.path.startswith("/chat"):
            return super().apply_chat_template(chat_history, add_generation_prompt)  # type: ignore[misc]
        if self.words is None:
            raise ConfigError(
                "the chat template is not known here", hint="give --tokenizer DIR, or ask with --kind chat"
            )
        return chat_text(_choice.of(self.words.tokenizer), chat_history, add_generation_prompt)

    # Requests

    def model_call(
        self, messages: Any, *, generate: bool = True, gen_kwargs: dict[str, Any] | None = None, **_: Any
    ) -> dict[str, Any]:
        """The server's answer, checked; {"error"} for one that did not come. RemoteError where no other will
        come either."""
        wanted = dict(gen_kwargs or {})
        if self.think_end:
            wanted.pop("until", None)  # a stop text may stand in a thought
        with self._guard:
            turn = self._times[f"{generate} {messages}"]
            self._times[f"{generate} {messages}"] += 1
        body = self._create_payload(  # type: ignore[attr-defined]
            self.create_message(messages),  # type: ignore[attr-defined]
            generate=generate, gen_kwargs=wanted, eos=self.eos_string,
            seed=self._seed + turn,  # type: ignore[attr-defined]
        )  # fmt: skip
        try:
            found = self.client.post(self.path, body)
            checked(found, messages, generate, self.path)
        except RemoteError as error:
            status = error.status if isinstance(error, Refused) else 0
            this_one = 400 <= status < 500 and status not in FATAL
            with self._guard:
                self._lost, self._why = self._lost + (not this_one), error.message
                if status in FATAL or self._lost >= ENOUGH:
                    raise
            return {"error": error.message, "rows": len(messages)}
        with self._guard:
            self._lost, self._done = 0, self._done + len(messages)
            if self.events is not None:
                if not self._named and (told := another(body["model"], found)):
                    self._named = True
                    self.events.note(told, "warning")
                total = max(self._total, self._done)  # a long text is several requests
                self.events.emit(Progress(task="ask", done=self._done, total=total, unit="requests"))
        return found

    async def amodel_call(
        self, session: Any, sem: asyncio.Semaphore, messages: Any, *, generate: bool = True,
        ctxlens: Any = None, gen_kwargs: dict[str, Any] | None = None, **_: Any,
    ) -> list[Any]:  # fmt: skip
        """The same in a thread of its own, as many at once as `sem` lets."""
        async with sem:
            found = await asyncio.to_thread(
                self.model_call, messages, generate=generate, gen_kwargs=gen_kwargs
            )
        return self.parse_generations(found) if generate else self.parse_logprobs(found, ctxlens=ctxlens)

    def parse_generations(self, outputs: Any, **_: Any) -> list[Answer]:
        """The texts of an answer, in the order of its prompts."""
        outputs = outputs[0] if isinstance(outputs, list) else outputs
        if "error" in outputs:
            return [Answer.of("", error=outputs["error"])] * outputs["rows"]
        chosen = sorted(outputs["choices"], key=lambda choice: choice.get("index") or 0)
        return [
            Answer.of(
                (choice["message"].get("content") if "message" in choice else choice["text"]) or "",
                cut=choice.get("finish_reason") == "length",
                error=withheld(choice),
            )
            for choice in chosen
        ]

    def parse_logprobs(self, outputs: Any, ctxlens: Any = None, **more: Any) -> list[tuple[float, bool]]:
        """log p of the tokens after the contexts, and whether each was the likeliest."""
        outputs = outputs[0] if isinstance(outputs, list) else outputs
        if "error" in outputs:
            return [FAILED] * outputs["rows"]
        return super().parse_logprobs(outputs, ctxlens=ctxlens)  # type: ignore[misc]

    # Scores

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        self._total += len(requests)
        found = super().generate_until(requests)  # type: ignore[misc]
        texts: list[str] = []
        for request, answer in zip(requests, found, strict=True):
            until = request.args[1].get("until") or []
            until = [until] if isinstance(until, str) else until
            prompt = "" if self.path.startswith("/chat") else request.args[0]
            text, whole = (answered(str(answer), ends, self.think_end, prompt) for ends in (until, ()))
            if answer.error:
                self.noted.failed[example(request)] = answer.error
            elif answer.cut and text == whole:
                self.noted.cut.add(example(request))
            texts.append(text)
        return texts

    def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        self._total += len(requests)
        found = super().loglikelihood(requests, disable_tqdm=True)  # type: ignore[misc]
        for request, (value, _greedy) in zip(requests, found, strict=True):
            if value == -math.inf:
                self.noted.failed[example(request)] = self._why
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        self._total += len(requests)
        found = super().loglikelihood_rolling(requests, disable_tqdm=True)  # type: ignore[misc]
        for request, value in zip(requests, found, strict=True):
            if value == -math.inf:
                self.noted.failed[example(request)] = self._why
        return found


def _id(served: Served, name: str) -> int | None:
    return getattr(served.tokenizer, name, None)


def checked(found: dict[str, Any], messages: Sequence[Any], generate: bool, path: str) -> None:
    """RemoteError where an answer lacks something: lm-eval would take what is missing for a score."""
    choices = found.get("choices")
    if not isinstance(choices, list) or len(choices) != len(messages):
        raise RemoteError(f"{path} gave no answer: {str(found)[:200]}")
    for choice, asked in zip(sorted(choices, key=_index), messages, strict=True):
        if not generate:
            told(choice, len(asked) if not isinstance(asked, str) else None, path)
        elif path.startswith("/chat"):
            if not isinstance(choice.get("message"), dict):
                raise RemoteError(f"{path} gave a choice without a message")
        elif not isinstance(choice.get("text"), str):
            raise RemoteError(f"{path} gave a choice without text")


def _index(choice: Any) -> int:
    if not isinstance(choice, dict):
        raise RemoteError(f"a server's choice is no object: {str(choice)[:100]}")
    return choice.get("index") or 0


def told(choice: dict[str, Any], n: int | None, path: str) -> list[float]:
    """The log-probabilities of a prompt's tokens but the first. A server with `echo` sends one for each of
    the `n` tokens and one for the token that it wrote after them; UnsupportedError where it does not."""
    logs = choice.get("logprobs") or {}
    values, tops = logs.get("token_logprobs") or [], logs.get("top_logprobs") or []
    whole = len(values) == len(tops) > 1 and (n is None or len(values) == n + 1)
    numbers = all(isinstance(v, int | float) and math.isfinite(v) and v <= 1e-4 for v in values[1:])
    if not whole or values[0] is not None or not numbers or not all(isinstance(t, dict) for t in tops[1:]):
        raise UnsupportedError(
            f"{path} does not tell the log-probabilities of a prompt's tokens: it ignores echo",
            hint="log-likelihoods need a server with echo and logprobs, as tinygpt serve",
        )
    return values[1:]


def preflight(served: Any, scores: bool, generates: bool) -> None:
    """Whether the server does what is asked of it later, before anything is measured."""
    if scores:
        ids = list(served.tok_encode("The quick brown fox jumps over the lazy dog."))
        body = served._create_payload([ids], generate=False)
        found = served.client.post(served.path, body)
        checked(found, [ids], False, served.path)
        if not any(told(found["choices"][0], len(ids), served.path)[:-1]):
            raise UnsupportedError(
                f"{served.path} says that every token is certain, which is perplexity 1.0000",
                hint="log-likelihoods need a server that computes them",
            )
    if generates:
        chat = served.path.startswith("/chat")
        asked: Any = [{"role": "user", "content": "Hello"}] if chat else "Hello"
        body = served._create_payload(asked, generate=True, gen_kwargs={"max_gen_toks": 1})
        checked(served.client.post(served.path, body), ["Hello"], True, served.path)


def client(
    served: Client,
    model: str,
    *,
    chat: bool,
    scores: bool,
    words: Words | None,
    batch: int,
    max_length: int,
    think_end: str,
    seed: int,
    events: Events | None,
) -> Any:
    """lm-eval's client of a server, checked. scores: log-likelihoods are wanted, which need a tokenizer."""
    from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI
    from lm_eval.utils import check_remote_tokenizer_support

    path = "/chat/completions" if chat else "/completions"
    remote = not chat and words is None and check_remote_tokenizer_support(served.url + path, max_retries=1)
    if scores and words is None and not remote:
        raise ConfigError("log-likelihoods need the model's tokenizer", hint="give --tokenizer DIR")
    base: Any = LocalChatCompletion if chat else LocalCompletionsAPI
    made = type("ServedLM", (Served, base), {})
    return made(
        served, path, words=words, think_end=think_end, events=events, model=model, seed=seed,
        tokenizer_backend="remote" if remote else "none", num_concurrent=batch, max_retries=1,
        max_length=max_length,
    )  # fmt: skip
