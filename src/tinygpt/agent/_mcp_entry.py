"""One entry of "mcpServers": how a server is started or reached, and what its tools may do.

    {"command": "...", "args": [...], "env": {...}, "cwd": "..."}      a program of this machine
    {"url": "https://...", "headers": {...}, "type": "http" or "sse"}  a server; without type both are tried

`${NAME}` in a value of env and headers is that variable of the environment: no key stands in the file.
"effects": {"tool": ["read"], "*": ["network"]} says what tools do, whatever the server says of them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tinygpt.agent._mcp_text import line
from tinygpt.agent.tool import EFFECTS
from tinygpt.core.errors import ConfigError, RemoteError, nearest

STARTED, REACHED = ("command", "args", "env", "cwd"), ("url", "headers")
BOTH = ("type", "effects")
KINDS = {"stdio": "stdio", "http": "http", "streamable-http": "http", "streamableHttp": "http", "sse": "sse"}
VARIABLE = re.compile(r"\$\{(\w+)\}")
HEADER = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
OURS = (
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "accept",
    "accept-encoding",
)
LEAST = 6  # letters of a value that is worth hiding; shorter ones stand in every text


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A server as the file says it. kinds: how it may be spoken to, "stdio", "http", "sse", in the order in
    which that is tried; hidden: what was taken from the environment, and the variable's name."""

    name: str
    kinds: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str]
    cwd: str | None = None
    url: str = ""
    headers: Mapping[str, str]
    effects: Mapping[str, frozenset[str]]
    hidden: tuple[tuple[str, str], ...] = ()

    @property
    def who(self) -> str:
        return f"MCP server '{self.name}'"

    def fault(self, message: str, hint: str = "") -> ConfigError:
        """An error of the file, in one line that names the server."""
        return ConfigError(f"{self.who}: {line(self.hide(message))}", hint=hint)

    def failed(self, message: str, hint: str = "") -> RemoteError:
        """An error of the server, in one line that names it."""
        return RemoteError(f"{self.who} {line(self.hide(message))}", hint=hint)

    def hide(self, text: str) -> str:
        """A text without the values that came from the environment."""
        for value, name in self.hidden:
            text = text.replace(value, f"[{name}]")
        return text

    @property
    def place(self) -> str:
        """Scheme, host and path of the address, without what may be secret in it."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def read(name: str, given: Mapping[str, Any]) -> Entry:
    """The entry; ConfigError in one line where it is none."""
    name = line(name, 60)
    blank = Entry(name=name, env={}, headers={}, effects={})
    if ("command" in given) == ("url" in given):
        raise blank.fault(
            "it must have 'command' or 'url', and not both", hint='"command": "..." or "url": "https://..."'
        )
    local = "command" in given
    known = (*(STARTED if local else REACHED), *BOTH)
    if (odd := next((key for key in given if key not in known), None)) is not None:
        raise blank.fault(f"unknown key '{odd}'.{nearest(odd, known)}", hint=f"known: {', '.join(known)}")
    kind = given.get("type", "stdio" if local else "")
    if kind and (not isinstance(kind, str) or kind not in KINDS or (KINDS[kind] == "stdio") != local):
        raise blank.fault(f"its type is {kind!r}", hint="stdio for a command; http or sse for a url")
    hidden: list[tuple[str, str]] = []
    env = {key: _filled(blank, v, hidden) for key, v in _texts(blank, given, "env").items()}
    headers = _headers(blank, _texts(blank, given, "headers"), hidden)
    cwd = given.get("cwd")
    if cwd is not None and not (isinstance(cwd, str) and Path(cwd).is_dir()):
        raise blank.fault(f"its 'cwd' {cwd!r} is no folder")
    return Entry(
        name=name, kinds=(KINDS[kind],) if kind else ("http", "sse"), env=env, headers=headers, cwd=cwd,
        hidden=tuple(hidden),
        command=_command(blank, given, env, cwd) if local else (),
        url="" if local else _url(blank, given["url"]),
        effects=_effects(blank, given.get("effects", {})),
    )  # fmt: skip


def _texts(entry: Entry, given: Mapping[str, Any], key: str) -> dict[str, str]:
    found = given.get(key) or {}
    if not isinstance(found, Mapping) or not all(
        isinstance(v, str) and "\0" not in v for v in found.values()
    ):
        raise entry.fault(f"its '{key}' must be an object of texts")
    return dict(found)


def _filled(entry: Entry, text: str, hidden: list[tuple[str, str]]) -> str:
    """A value with its variables; what they hold is noted down as hidden."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise entry.fault(f"the environment has no {found[1]}", hint=f"export {found[1]}=...")
        if len(os.environ[found[1]]) >= LEAST:
            hidden.append((os.environ[found[1]], found[1]))
        return os.environ[found[1]]

    return VARIABLE.sub(value, text)


def _headers(entry: Entry, given: Mapping[str, str], hidden: list[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in given.items():
        if not HEADER.fullmatch(name) or name.lower() in OURS or name.lower().startswith("mcp-"):
            raise entry.fault(f"the header {name!r} cannot be set")
        found[name] = _filled(entry, value, hidden)
        if re.search(r"[^\x20-\x7e]", found[name]):
            raise entry.fault(f"the header {name} must be one line of ASCII text")
    return found


def _command(
    entry: Entry, given: Mapping[str, Any], env: Mapping[str, str], cwd: str | None
) -> tuple[str, ...]:
    """The program and its arguments. The program is found now, so that a start later on is of the same."""
    command, args = given["command"], given.get("args", [])
    if not isinstance(command, str) or not command or "\0" in command:
        raise entry.fault("its 'command' must be the name of a program", hint='arguments are "args": [...]')
    if not isinstance(args, list) or not all(isinstance(one, str) and "\0" not in one for one in args):
        raise entry.fault("its 'args' must be a list of texts")
    if "/" in command:
        found = str((Path(cwd or ".") / command).resolve())
        if not os.access(found, os.X_OK) or not os.path.isfile(found):
            raise entry.fault(f"{command} is no program", hint="is it installed, and executable?")
        return (os.path.abspath(Path(cwd or ".") / command), *args)
    path = env.get("PATH", os.environ.get("PATH", os.defpath))
    if (found := shutil.which(command, path=path)) is None:
        hint = "install it, or give its whole path"
        if " " in command:
            hint = 'the program alone stands there; its arguments are "args": [...]'
        raise entry.fault(f"there is no program '{command}' on the PATH", hint=hint)
    return (os.path.abspath(found), *args)


def _url(entry: Entry, url: Any) -> str:
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fits = False
    if not fits or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise entry.fault(f"{str(url)[:80]!r} is no address", hint="such as https://host/mcp")
    if "@" in urlsplit(url).netloc:
        raise entry.fault("its url holds a user or password", hint="send a header, with ${NAME} in it")
    return url


def _effects(entry: Entry, given: Any) -> dict[str, frozenset[str]]:
    if not isinstance(given, Mapping) or not all(isinstance(v, Sequence) for v in given.values()):
        raise entry.fault(
            "its 'effects' must be an object of lists", hint='{"tool": ["read"], "*": ["network"]}'
        )
    for name, effects in given.items():
        odd = next((one for one in effects if one not in EFFECTS), None)
        if isinstance(effects, str) or odd is not None:
            raise entry.fault(
                f"unknown effect {odd or effects!r} of '{name}'.{nearest(str(odd or effects), EFFECTS)}",
                hint=", ".join(EFFECTS),
            )
    return {name: frozenset(effects) for name, effects in given.items()}


def files(given: Mapping[str, Any]) -> list[Path]:
    """Files that the start of a server names, as its program and its script: what a model must not change."""
    args = given.get("args")
    words = [given.get("command"), *(args if isinstance(args, list) else [])]
    here = Path(str(given.get("cwd") or "."))
    paths = [here / word for word in words if isinstance(word, str) and word and "\0" not in word]
    return [path for path in paths if path.is_file()]
