"""A request to one server, as a template: `"_http": {"method": "GET", "url": "https://host/v1/items/{id}"}`.

    url      scheme, host and port are fixed; {name} stands in the path alone, as a percent-encoded segment
    query    names and values; one whose argument is missing is left out; "{name...}" repeats a list
    headers  fixed; ${NAME} is a variable that `_env` names: keys are not written into the file
    body     JSON; a text that is "{name}" alone becomes the argument as it is
    private  true: the host's name may lead to a private address; an address, or localhost, says so itself

A redirect is followed on the same host only, and for GET alone. A name that leads to a private address which
the template does not name is refused, and the address that was checked is the one that is reached; a proxy is
not used. The answer is capped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from tinygpt.agent import _request
from tinygpt.agent._template import Field, Template, as_text, fill, given, names
from tinygpt.agent.builtin._job import Place
from tinygpt.agent.tool import Cancel, Outcome, Refusal, Tool
from tinygpt.agent.tools._entry import Entry
from tinygpt.core.errors import nearest
from tinygpt.data import secrets

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
KEYS = ("method", "url", "query", "headers", "body", "private")
OURS = ("host", "content-length", "transfer-encoding", "connection", "accept-encoding")
VARIABLE = re.compile(r"\$\{(\w+)\}")
HEADER = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
SAFE = "%:@!$&'()*+,;=~-._"  # of the fixed parts of a path


@dataclass(frozen=True, kw_only=True)
class _Form:
    """A request whose arguments are not filled in yet."""

    method: str
    server: _request.Server
    path: list[Template]
    fixed: str  # the query that the url has
    query: Mapping[str, Template]
    headers: Mapping[str, str]
    body: Any


def build(entry: Entry, place: Place) -> Tool:
    """The tool. Its effects are that of the network, of writing where the method is no GET or HEAD, and
    `_effects`."""
    form = _form(entry)
    entry.environment()
    if entry.text:
        raise entry.fault("'_text' means nothing for a request", hint="leave it out")

    def check(arguments: Mapping[str, Any]) -> None:
        _target(form, arguments)

    def call(arguments: Mapping[str, Any], seconds: float, cancel: Cancel) -> Outcome:
        body = None if form.body is None else _filled(form.body, arguments)
        headers = {
            name: VARIABLE.sub(lambda m: os.environ.get(m[1], ""), value)
            for name, value in form.headers.items()
        }
        request = _request.Request(
            method=form.method, target=_target(form, arguments), headers=headers, body=body
        )
        return _request.send(form.server, request, seconds, cancel)

    effects = {"network"} | ({"write"} if form.method not in ("GET", "HEAD") else set())
    return entry.tool(source="http", effects=effects | (entry.effects or set()), check=check, call=call)


def _form(entry: Entry) -> _Form:
    found = entry.given
    if not isinstance(found, Mapping) or not isinstance(found.get("url"), str):
        raise entry.fault("'_http' must be an object with a 'url'")
    if (odd := next((key for key in found if key not in KEYS), None)) is not None:
        raise entry.fault(f"'_http' has no '{odd}'.{nearest(odd, KEYS)}", hint=f"known: {', '.join(KEYS)}")
    method = str(found.get("method", "GET")).upper()
    if method not in METHODS:
        raise entry.fault(f"the method {method!r} is not known", hint=", ".join(METHODS))
    if method in ("GET", "HEAD") and found.get("body") is not None:
        raise entry.fault(f"a {method} has no body", hint='give "method": "POST"')
    server = _server(entry, found["url"], found.get("private", False))
    parts = urlsplit(found["url"])
    path = [entry.template(part) for part in parts.path.split("/")[1:]]
    query = _named(entry, found.get("query"), "query")
    body = None if found.get("body") is None else _compiled(entry, found["body"])
    for template in (*path, *query.values()):
        entry.spelled(template, lists=template in query.values())
    if (free := sorted(set[str]().union(*map(names, path)) - entry.required)) != []:
        raise entry.fault(f"'{free[0]}' may be missing, and the path needs it", hint="make it required")
    entry.used(set[str]().union(*map(names, path), *map(names, query.values()), _needed(body)))
    return _Form(
        method=method, server=server, path=path, fixed=parts.query, query=query,
        headers=_headers(entry, found.get("headers")), body=body,
    )  # fmt: skip


def _server(entry: Entry, url: str, private: Any) -> _request.Server:
    parts = urlsplit(url)
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise entry.fault(f"{url!r} is no address: {error}") from error
    if re.match(r"[^/?#]*(//[^/?#]*)?\{|[^/]*//[^/]*\{", url) or "{" in parts.query:
        raise entry.fault("an argument may only stand in the path of a url", hint="use 'query' or 'body'")
    if (
        parts.scheme not in ("http", "https")
        or not host
        or parts.fragment
        or re.search(r"[\s\x00-\x1f]", url)
    ):
        raise entry.fault(f"{url!r} is no address of a server", hint="such as https://host/path/{id}")
    if "@" in parts.netloc:
        raise entry.fault("the url holds a user or password", hint="send a header, with a ${NAME} of '_env'")
    if not isinstance(private, bool):
        raise entry.fault("'private' is true or false")
    tls = parts.scheme == "https"
    return _request.Server(host=host, port=port or (443 if tls else 80), tls=tls, private=private)


def _named(entry: Entry, given: Any, what: str) -> dict[str, Template]:
    if given is not None and not isinstance(given, Mapping):
        raise entry.fault(f"'{what}' must be an object of texts")
    return {str(name): entry.template(as_text(value)) for name, value in (given or {}).items()}


def _headers(entry: Entry, given: Any) -> dict[str, str]:
    if given is not None and not isinstance(given, Mapping):
        raise entry.fault("'headers' must be an object of texts")
    found = {str(name): value for name, value in (given or {}).items()}
    for name, value in found.items():
        if not HEADER.fullmatch(name) or name.lower() in OURS:
            raise entry.fault(f"the header {name!r} cannot be set")
        if not isinstance(value, str) or re.search(r"[^\x20-\x7e]", value):
            raise entry.fault(f"the header {name} must be one line of ASCII text")
        if secrets.find(f"{name}: {value}"):
            raise entry.fault(
                f"the header {name} holds a key", hint="write ${NAME} there, and NAME into '_env'"
            )
        for variable in VARIABLE.findall(value):
            if variable not in entry.names:
                raise entry.fault(f"${{{variable}}} is not in '_env'", hint=f'"_env": ["{variable}"]')
            if re.search(r"[^\x20-\x7e]", os.environ.get(variable, "")):
                raise entry.fault(f"the variable {variable} is no single line of ASCII text")
    return found


def _target(form: _Form, arguments: Mapping[str, Any]) -> str:
    """Path and query of a call. Refusal for a segment that would be another path."""
    segments = [_segment(template, arguments) for template in form.path]
    pairs: list[tuple[str, str]] = []
    for name, template in form.query.items():
        if not given(arguments, names(template)):
            continue
        first = template[0] if template else ""
        if isinstance(first, Field) and first.spread:
            pairs += [(name, as_text(one)) for one in arguments[first.name]]
        else:
            pairs.append((name, fill(template, arguments)))
    query = "&".join(part for part in (quote(form.fixed, safe=f"{SAFE}/?"), urlencode(pairs)) if part)
    return "/" + "/".join(segments) + (f"?{query}" if query else "")


def _segment(template: Template, arguments: Mapping[str, Any]) -> str:
    if not names(template):
        return quote(fill(template, {}), safe=SAFE)
    text = "".join(
        quote(piece, safe=SAFE) if isinstance(piece, str) else quote(as_text(arguments[piece.name]), safe="")
        for piece in template
    )
    said = fill(template, arguments)
    if not said or {".", ".."} & set(re.split(r"[/\\]", said)) or re.search(r"[\x00-\x1f\x7f]", said):
        raise Refusal("path-segment", f"{said[:60]!r} is no part of a path: give a plain name or number")
    return text


def _compiled(entry: Entry, node: Any) -> Any:
    """A body whose texts are templates."""
    if isinstance(node, str):
        return entry.template(node)
    if isinstance(node, Mapping):
        return {str(key): _compiled(entry, value) for key, value in node.items()}
    return [_compiled(entry, one) for one in node] if isinstance(node, list) else node


def _needed(node: Any) -> set[str]:
    if isinstance(node, tuple):
        return names(node)
    inner = list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []
    return set[str]().union(*map(_needed, inner))


def _filled(node: Any, arguments: Mapping[str, Any]) -> Any:
    """The body; what waits for a missing argument is left out, alone or with the key before it."""
    there: Callable[[Any], bool] = lambda one: not isinstance(one, tuple) or given(arguments, names(one))  # noqa: E731
    if isinstance(node, tuple):
        if len(node) == 1 and isinstance(node[0], Field):
            return arguments.get(node[0].name)
        return fill(node, arguments)
    if isinstance(node, dict):
        return {key: _filled(value, arguments) for key, value in node.items() if there(value)}
    return [_filled(one, arguments) for one in node if there(one)] if isinstance(node, list) else node
