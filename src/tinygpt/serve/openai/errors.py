"""OpenAI's error object, and which status stands for which of our errors."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import (
    BusyError,
    ConfigError,
    DataError,
    DependencyError,
    TinyGPTError,
    UnknownModel,
    UnsupportedError,
)
from tinygpt.data.masking import masked

if TYPE_CHECKING:
    from fastapi import Response

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}
CODES = {401: "invalid_api_key", 413: "request_too_large"}
ASKERS = (ConfigError, DataError, UnsupportedError, DependencyError)  # who asks can do something about it
RETRY_SECONDS = 1


def body(
    status: int, message: str, *, code: str | None = None, param: str | None = None
) -> dict[str, dict[str, Any]]:
    """The error object."""
    type = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {
        "error": {
            "message": masked(message),
            "type": type,
            "param": param,
            "code": code or CODES.get(status),
        },
    }


def error(status: int, message: str, *, code: str | None = None, param: str | None = None) -> Response:
    """The error object as a response; 429 and 503 say when to come again."""
    from fastapi import Response

    text = json.dumps(body(status, message, code=code, param=param), ensure_ascii=False)
    headers = {"Retry-After": str(RETRY_SECONDS)} if status in (429, 503) else {}
    content = text.encode("utf-8", "replace")  # a message may quote what no UTF-8 has
    return Response(content, status, headers, "application/json")


def facts(problem: TinyGPTError) -> dict[str, Any]:
    """What `body` and `error` need to know about one of our errors: status, message, code and param."""
    match problem:
        case UnknownModel():
            status, code = 404, "model_not_found"
        case BusyError():
            status, code = 503, "busy"
        case _:
            status = 400 if isinstance(problem, ASKERS) else 500
            code = getattr(problem, "code", None)
    param = "model" if status == 404 else getattr(problem, "param", None)
    return {"status": status, "message": str(problem), "code": code, "param": param}


def broken(problem: Exception) -> dict[str, Any]:
    """`facts` of what ended a stream. What is our own mistake is for the log, which has it all; the reader
    hears that there was one."""
    if isinstance(problem, TinyGPTError):
        return facts(problem)
    told = {"message": "a stream failed", "exception": problem}
    asyncio.get_running_loop().call_exception_handler(told)
    return {"status": 500, "message": "the server failed while it wrote this answer"}
