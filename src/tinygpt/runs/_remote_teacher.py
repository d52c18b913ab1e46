"""A teacher behind an OpenAI-compatible server: what it tells of a prompt's tokens fills the cache.

Every document of a row is a prompt of token ids to /v1/completions, with `echo` and `logprobs`: what is told
of token t + 1 is the distribution after t, and of the token that the server writes, the one after the last.
The likeliest tokens are wanted by id (`return_tokens_as_token_ids` of vLLM and of tinygpt: "token_id:17");
where a server names them by text, they are looked up, and a place is left out, and counted, when two ids have
a text or no id has it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import ConfigError, RemoteError, UnsupportedError
from tinygpt.core.events import Events
from tinygpt.distill.store import Places
from tinygpt.runs._openai import Client, Refused

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tinygpt.data.tokenizer._protocol import Tokenizer

AT_ONCE = 8  # requests
BY_ID = re.compile(r"token_id:(\d+)")
LOST = 0.5  # share of unknown places from which a server is of no use
FIRST = 64  # places that are looked at before that is said


class Endpoint:
    """Asks a server's model, which must have this tokenizer, for `k` tokens a place. The first answer is
    compared with the ids that were sent: RemoteError where it reads them as another text."""

    def __init__(self, url: str, model: str, tokenizer: Tokenizer, k: int, events: Events) -> None:
        self.client, self.tokenizer, self.k, self.events = Client(url), tokenizer, k, events
        self.model = model or self.client.model()
        self.asked, self.lost = 0, 0
        self._by_text: dict[str, int] | None = None
        self._proved = False

    def __call__(self, rows: Any, counts: NDArray[np.bool_]) -> list[Places]:
        """The places of each row; its documents are prompts. RemoteError, UnsupportedError: no use asking."""
        import numpy as np

        tokens, segments = (np.array(rows[name]) for name in ("tokens", "segments"))
        jobs = [
            (b, np.flatnonzero(segments[b] == number))
            for b in range(len(counts))
            for number in np.unique(segments[b][counts[b]])
        ]
        prompts = [tokens[b, at].tolist() for b, at in jobs]
        if not self._proved:
            self._prove(prompts[0])
        found = [np.zeros((*counts.shape, self.k), kind) for kind in (np.int32, np.float32)]
        known = np.zeros(counts.shape, bool)
        with ThreadPoolExecutor(AT_ONCE) as threads:
            answers = [threads.submit(self._ask, prompt) for prompt in prompts]
            try:
                for (b, at), answer in zip(jobs, answers, strict=True):
                    for t, told in zip(at.tolist(), answer.result(), strict=True):
                        if counts[b, t]:
                            known[b, t] = self._take(told, found[0][b, t], found[1][b, t])
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise
        self._refuse_deaf()
        return [Places(found[0][b][c], found[1][b][c], known[b][c]) for b, c in enumerate(counts)]

    def _prove(self, prompt: Sequence[int]) -> None:
        """Whether the server reads ids as this tokenizer does; control tokens may be left out of its text."""
        plain = [id for id in prompt if id not in self.tokenizer.special.values()]
        wanted = self.tokenizer.decode(plain)
        choice = self._choice({"prompt": plain or list(prompt), "echo": True, "max_tokens": 1})
        text = choice.get("text")
        # A last character may be half a one, which the next token completes.
        if not isinstance(text, str) or not text.lstrip().startswith(wanted.strip().rstrip("\ufffd")):
            raise ConfigError(
                f"{self.client.url} has another tokenizer than the student: it reads {wanted[:60]!r} as "
                f"{str(text)[:60]!r}",
                hint="choose a teacher of the same family, on a server that echoes",
            )
        self._proved = True

    def _ask(self, prompt: list[int]) -> list[dict[str, Any]]:
        """What is told of the distribution after each token of a prompt."""
        body = {
            "prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": self.k, "echo": True,
            "ignore_eos": True, "return_tokens_as_token_ids": True,
        }  # fmt: skip
        try:
            told = (self._choice(body).get("logprobs") or {}).get("top_logprobs") or []
        except Refused as error:
            if error.status != 400 or "logprobs" not in error.message:
                raise
            raise ConfigError(
                f"{self.client.url} does not tell {self.k} tokens of a place: {error.message}",
                hint="lower --top-k: many servers tell at most 20",
            ) from error
        if len(told) != len(prompt) + 1 or not all(isinstance(one, dict) for one in told[1:]):
            raise UnsupportedError(
                f"{self.client.url} does not tell the likeliest tokens at each place of a prompt",
                hint="a teacher needs echo and logprobs of /v1/completions, as tinygpt serve and vLLM have",
            )
        return told[1:]

    def _choice(self, body: dict[str, Any]) -> dict[str, Any]:
        choices = self.client.post("/completions", {"model": self.model, **body}).get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise RemoteError(f"{self.client.url}/completions gave no answer")
        return choices[0]

    def _take(self, told: dict[str, Any], ids: NDArray[Any], log_p: NDArray[Any]) -> bool:
        """Write a place's k likeliest tokens; False where fewer are known by their ids."""
        self.asked += 1
        if len(told) < self.k:
            raise UnsupportedError(
                f"{self.client.url} tells {len(told)} tokens at a place, not {self.k}",
                hint=f"--top-k {len(told)}, or start it with --max-logprobs {self.k}",
            )
        ranked = sorted(((self._number(value), name) for name, value in told.items()), reverse=True)
        found = [(self._id(name), value) for value, name in ranked[: self.k]]
        if any(id is None for id, _ in found):
            self.lost += 1
            return False
        for i, (id, value) in enumerate(found):
            ids[i], log_p[i] = id, value
        return True

    def _number(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise RemoteError(f"{self.client.url} tells no log-probability: {str(value)[:60]}")
        return float(value)

    def _id(self, name: str) -> int | None:
        if by_id := BY_ID.fullmatch(name):
            id = int(by_id[1])
            if id >= self.tokenizer.vocab_size:
                raise RemoteError(f"{self.client.url} tells of the id {id}, which the tokenizer has not")
            return id
        if self._by_text is None:
            self._by_text = texts(self.tokenizer)
        return self._by_text.get(name)

    def _refuse_deaf(self) -> None:
        if self.lost > LOST * self.asked and self.asked >= FIRST:
            raise UnsupportedError(
                f"{self.client.url} names tokens by texts that are not one token's: {self.lost} of "
                f"{self.asked} places are lost",
                hint="use a server that tells ids (return_tokens_as_token_ids), as tinygpt serve and vLLM do",
            )

    def end(self) -> None:
        """Tell of the places that were left out."""
        if self.lost:
            self.events.note(
                f"{self.lost} of {self.asked} places are left out: {self.client.url} names some of their "
                "tokens by texts that are not one token's",
                "warning",
            )


def texts(tokenizer: Tokenizer) -> dict[str, int]:
    """Ids by the texts that servers write for them: OpenAI's form for bytes that are no whole characters.
    A text of two ids is left out."""
    found, twice = dict[str, int](), set[str]()
    for id in range(tokenizer.vocab_size):
        raw = tokenizer.id_to_bytes(id)
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            name = "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
        if name in found:
            twice.add(name)
        found[name] = id
    return {name: id for name, id in found.items() if name not in twice}
