"""Times of a server under so many requests at once, over its OpenAI-compatible streams."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from tinygpt.core.errors import RemoteError, TinyGPTError
from tinygpt.runs._openai import Client
from tinygpt.runs._streams import Stream

WORDS = (
    "the", "of", "and", "to", "in", "is", "was", "for", "on", "that", "by", "this", "with", "you", "it",
    "or", "be", "are", "from", "at", "as", "all", "have", "new", "more", "an", "we", "will", "home", "can",
)  # fmt: skip
KNOWN = 0.1  # share of tokens in a server's cache from which times say little; less is its chat template


@dataclass
class Load:
    """What is asked of a server, and what went wrong with it."""

    client: Client
    model: str
    chat: bool
    ignore_eos: bool
    gen_tokens: int
    failed: list[str] = field(default_factory=list[str])
    n_early: int = 0
    n_without_usage: int = 0
    n_prompt: int = 0
    n_cached: int = 0

    def one(self, words: int, seed: int) -> Stream:
        """One streamed answer to random words; times are those of its pieces of text."""
        text = " ".join(random.Random(seed).choices(WORDS, k=words))
        body: dict[str, Any] = {
            "model": self.model, "max_tokens": self.gen_tokens, "temperature": 0, "stream": True,
            "stream_options": {"include_usage": True},
        }  # fmt: skip
        body |= {"messages": [{"role": "user", "content": text}]} if self.chat else {"prompt": text}
        body |= {"ignore_eos": True} if self.ignore_eos else {}
        began, times, usage = time.perf_counter(), list[float](), dict[str, Any]()
        for chunk in self.client.stream("/chat/completions" if self.chat else "/completions", body):
            usage = chunk.get("usage") or usage
            for choice in chunk.get("choices") or ():
                said = choice.get("delta") or {}
                if choice.get("text") or any(
                    said.get(k) for k in ("content", "reasoning_content", "reasoning")
                ):
                    times.append(time.perf_counter())
        tokens = usage.get("completion_tokens")
        if tokens is None:
            self.n_without_usage += 1
        elif tokens < self.gen_tokens:
            self.n_early += 1
        if tokens is not None:
            self.n_prompt += usage.get("prompt_tokens") or 0
            self.n_cached += (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        return Stream(
            began=began, times=times, tokens=len(times) if tokens is None else tokens,
            prompt_tokens=usage.get("prompt_tokens", words),
        )  # fmt: skip

    def at_once(self, concurrency: int, each: int, words: int, seed: int) -> list[Stream]:
        """So many clients, each of which makes its requests one after the other."""
        found: list[Stream] = []

        def ask(number: int) -> None:
            for i in range(each):
                try:
                    found.append(self.one(words, seed + number * each + i))
                except (TinyGPTError, ValueError, OSError) as error:
                    self.failed.append(str(error))

        threads = [threading.Thread(target=ask, args=(i,), daemon=True) for i in range(concurrency)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if not any(stream.times for stream in found):
            why = self.failed[0] if self.failed else "its streams hold no text"
            raise RemoteError(f"{self.client.url} answered nothing: {why}", hint="does it need --chat?")
        return found

    def warnings(self) -> list[str]:
        """What a reader of the figures must know."""
        told = {
            f"{len(self.failed)} requests failed: {self.failed[0] if self.failed else ''}": self.failed,
            f"{self.n_early} answers ended early: see --ignore-eos": self.n_early,
            f"{self.n_without_usage} answers came without usage: pieces were counted, not tokens": (
                self.n_without_usage
            ),
            f"the server knew {self.n_cached} of {self.n_prompt} tokens of prompts: try another --seed": (
                self.n_cached > KNOWN * self.n_prompt
            ),
        }
        return [text for text, there in told.items() if there]
