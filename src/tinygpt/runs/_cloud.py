"""A stronger model: behind OpenAI's API, Anthropic's, a server that speaks as one of them, or here."""

from __future__ import annotations

import ipaddress
import os
import re
import threading
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tinygpt.agent.escalate import CANCELLED, CUT, Cloud, Message, OnText, Told, without
from tinygpt.core import hub
from tinygpt.core.config import changed, flag
from tinygpt.core.errors import ConfigError, RemoteError, nearest
from tinygpt.core.events import Events
from tinygpt.runs import _anthropic
from tinygpt.runs._openai import Client, Refused, Silent, keyed
from tinygpt.runs._streamed import Chunks, Heard
from tinygpt.runs._streamed import Events as Blocks
from tinygpt.runs._wire import Cancel, Cancelled, Stalled, Wire, pause, watched

# The models that are asked where none is named: of the middle class, as both makers listed it on 2026-11-22.
OPENAI_MODEL = "gpt-5.4-mini"
ANTHROPIC_MODEL = "claude-sonnet-5-5"
URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com/v1"}
MODELS = {"openai": OPENAI_MODEL, "anthropic": ANTHROPIC_MODEL}
KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
KEY = re.compile(r"[!-~]+")  # what a header can hold
PATIENCE = "timeout", "max_wait", "retries", "backoff"  # of servers
MOST = "max_tokens", "max_completion_tokens"  # names of one field: others', and that of OpenAI's newer models


@dataclass(frozen=True, kw_only=True)
class Target:
    """Who is asked, and how patiently."""

    provider: Annotated[
        str, "openai, anthropic, a server's address as http://127.0.0.1:8080/v1, or a model directory."
    ]
    model: Annotated[str, "The model's name; empty: the provider's usual one, or the first it lists."] = ""
    key_file: Annotated[
        Path | None, "File that holds the key; not given: OPENAI_API_KEY or ANTHROPIC_API_KEY."
    ] = None
    api: Annotated[Literal["auto", "openai", "anthropic"], "What an address speaks; auto: by its host."] = (
        "auto"
    )
    max_tokens: Annotated[int, "Longest answer in tokens."] = 1024
    timeout: Annotated[float, "Seconds without a word after which an answer is given up."] = 180.0
    max_wait: Annotated[float, "Seconds that a server may ask to wait before it is asked again."] = 60.0
    retries: Annotated[int, "How often a request is made again that failed before a word came."] = 3
    backoff: Annotated[float, "Seconds before that, doubled each time, less a random part."] = 1.0

    def __post_init__(self) -> None:
        for name in ("max_tokens", "timeout"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"--{name.replace('_', '-')} must be positive, got {getattr(self, name)}")
        for name in ("max_wait", "retries", "backoff"):
            if getattr(self, name) < 0:
                told = name.replace("_", "-")
                raise ConfigError(f"--{told} must not be negative, got {getattr(self, name)}")
        if not (self.provider in URLS or self.remote or self.local):
            raise ConfigError(
                f"--provider '{self.provider}' is no provider, address or directory."
                f"{nearest(self.provider, URLS)}",
                hint="openai, anthropic, an address as http://127.0.0.1:8080/v1, or a model directory",
            )
        if self.local and (self.model or self.key_file is not None or self.api != "auto"):
            raise ConfigError(
                "a model name, key or API says nothing to a model of this machine", hint="leave it out"
            )
        if self.local and (odd := changed(self, PATIENCE)):
            raise ConfigError(f"{flag(odd)} says nothing to a model of this machine", hint="leave it out")
        if self.provider in URLS and self.api not in ("auto", self.provider):
            raise ConfigError(f"--api {self.api}: {self.provider} speaks its own", hint="leave it out")
        if "@" in urllib.parse.urlsplit(self.url).netloc:
            raise ConfigError("--provider holds a name or key before the @", hint="use --key-file")

    @property
    def remote(self) -> bool:
        """Whether an address is given."""
        return self.provider.startswith(("http://", "https://"))

    @property
    def local(self) -> bool:
        """Whether it is a model of this machine."""
        known = self.provider in URLS or self.remote
        return not known and (hub.is_hub(self.provider) or Path(self.provider).is_dir())

    @property
    def url(self) -> str:
        return URLS.get(self.provider, self.provider if self.remote else "")

    @property
    def speaks(self) -> str:
        """The server's API."""
        if self.api != "auto" or self.provider in URLS:
            return self.provider if self.provider in URLS else self.api
        host = urllib.parse.urlsplit(self.url).hostname or ""
        return "anthropic" if f".{host}".endswith(".anthropic.com") else "openai"


def open_cloud(target: Target, events: Events) -> Cloud:
    """The stronger model. Nothing is asked of it yet. ConfigError: there is no key, or no such model."""
    if not target.local:
        return Remote(target, events)
    from tinygpt.runs._local_cloud import LocalCloud  # the engine: servers need none

    return LocalCloud(Path(target.provider), target.max_tokens, events)


class Remote:
    """See Cloud. A key goes to the host that was named and nowhere else, and is in no error."""

    leaves = True

    def __init__(self, target: Target, events: Events) -> None:
        self._target, self._events = target, events
        self._key, self.key = _key_of(target, events)
        parts = urllib.parse.urlsplit(target.url)
        Client(target.url)  # refuses what is no address
        self.host, self.encrypted = parts.netloc, parts.scheme == "https" or _here(parts.hostname or "")
        self.model = target.model or MODELS.get(target.provider, "")
        self._heard: type[Chunks | Blocks] = Blocks if target.speaks == "anthropic" else Chunks
        self._most = MOST[target.speaks == "openai" and parts.hostname == "api.openai.com"]

    def ask(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]] = (),
        *,
        on_text: OnText = lambda text: None,
        cancel: Cancel | None = None,
    ) -> Told:
        """One answer. Requests that fail before a word came are made again; a broken stream is kept."""
        began, cancel, heard = time.monotonic(), cancel or threading.Event(), Heard()
        client = self._client(cancel)

        def once() -> str:
            nonlocal heard
            heard = self._heard()
            most = {self._most: self._target.max_tokens}
            body = heard.body(self.model, messages, tools, most)
            wire = Wire()
            source = client.events(heard.PATH, body, wire)
            try:
                for data in watched(source, wire, cancel, self._target.timeout):
                    if piece := heard.add(data):
                        on_text(piece)
                    if heard.ended:
                        return ""
            except RemoteError as error:
                if not heard.text:
                    raise
                return self._clean(error.message)
            except Stalled:
                if not heard.text:
                    raise
                return self._stalled
            if not heard.text and not heard.whole:
                raise RemoteError("the server ended its answer before it said anything")
            return "" if heard.whole else "the server ended its answer in the middle"

        try:
            if not self.model:
                listed = (client.model() for _ in range(1))  # asked on another thread, so that it can end
                self.model = next(watched(listed, Wire(), cancel, self._target.timeout))
            try:
                why = client.insisting(once)
            except Refused as error:
                if not self._other_name(error):
                    raise
                why = client.insisting(once)
        except Cancelled:
            return self._told(heard, CANCELLED, began, "it was cancelled")
        except Stalled:
            raise RemoteError(self._stalled, hint="raise --timeout") from None
        except RemoteError as error:
            raise self._explained(error) from None
        if why:
            return self._told(heard, CUT, began, why)
        ended = heard.finish_reason or "stop"
        if not heard.text:
            why = heard.why or f"no text came, and the answer ended with '{ended}'"
        return self._told(heard, ended, began, heard.why or why)

    def _client(self, cancel: Cancel) -> Client:
        target = self._target

        def wait(seconds: float) -> None:
            self._events.note(f"{self.host} does not answer now; asked again in {seconds:.1f} s", "warning")
            pause(seconds, cancel)

        headers = _anthropic.keyed(self._key) if target.speaks == "anthropic" else keyed(self._key)
        return Client(
            target.url, seconds=target.timeout + 5.0, tries=target.retries + 1, pause=wait,
            first=target.backoff, headers=headers, most=target.max_wait,
        )  # fmt: skip

    def _told(self, heard: Heard, finish_reason: str, began: float, why: str) -> Told:
        return Told(
            text=heard.text, finish_reason=finish_reason, model=self.model, n_in=heard.n_in,
            n_out=heard.n_out, seconds=time.monotonic() - began, error=self._clean(why),
        )  # fmt: skip

    def _other_name(self, error: Refused) -> bool:
        """Whether the server wants the longest answer by its other name, which it gets from now on."""
        other = MOST[self._most == MOST[0]]
        if error.status != 400 or self._heard is not Chunks or other not in error.said:
            return False
        self._most = other
        return True

    @property
    def _stalled(self) -> str:
        return f"{self.host} said nothing for {self._target.timeout:g} s"

    def _clean(self, text: str) -> str:
        """What a server said, on one line and without the key."""
        return " ".join(without(self._key, text).split())

    def _explained(self, error: RemoteError) -> RemoteError:
        """What went wrong, in one line of ours."""
        if not isinstance(error, Refused):
            return RemoteError(f"{self.host}: {self._clean(error.message)}", hint=error.hint)
        said = self._clean(error.said)
        told = f"HTTP {error.status}" + (f": {said}" if said else "")
        name = KEYS[self._target.speaks]
        match error.status:
            case 401 | 403:
                why, hint = (
                    f"does not take {self.key or 'a request without a key'}",
                    f"check {self.key or name}",
                )
            case 404:
                why, hint = (
                    f"has no model '{self.model}', or no such address",
                    "check the model and the address",
                )
            case 429 | 503 if error.after is not None and error.after > self._target.max_wait:
                why = f"asks to wait {error.after:.0f} s, which is more than {self._target.max_wait:g}"
                hint = "ask later, or raise --max-wait"
            case status if status == 429 or status >= 500:
                why, hint = f"still fails after {self._target.retries + 1} tries", "ask later"
            case status if 300 <= status < 400:
                where = urllib.parse.urlsplit(self._clean(error.to)).netloc or "elsewhere"
                why, hint = f"leads to {where}, where nothing is sent", "name the right address"
            case _ if isinstance(error, Silent):
                why, hint = "is no API that streams", "such as http://127.0.0.1:8080/v1"
            case _:
                why, hint = "refuses the request", ""
        return RemoteError(f"{self.host} {why} ({told})", hint=hint)


def _key_of(target: Target, events: Events) -> tuple[str, str]:
    """The key, and where it comes from. ConfigError where there is none and one is needed, or it is none."""
    name = KEYS[target.speaks]
    if target.key_file is None:
        found, where = os.environ.get(name, "").strip(), name
    else:
        where = str(target.key_file)
        try:
            found = target.key_file.read_text(encoding="utf-8").strip()
            open_to_all = target.key_file.stat().st_mode & 0o077
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"--key-file {where} cannot be read: {_why(error)}") from None
        if open_to_all:
            events.note(f"others of this machine can read the key: chmod 600 {where}", "warning")
    if not found and (target.provider in URLS or target.key_file is not None):
        said = f"{where} is empty" if target.key_file is not None else f"{name} is not set"
        raise ConfigError(
            f"there is no key for {target.provider}: {said}", hint=f"export {name}, or --key-file"
        )
    if found and not KEY.fullmatch(found):
        raise ConfigError(f"what {where} holds is no key: one word without spaces was expected")
    return found, where if found else ""


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or type(error).__name__)


def _here(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
