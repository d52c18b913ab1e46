"""The OpenAPI document: what each operation takes, and every status, kind of content and form of its answers.

The gate stands before all operations, so what it refuses is said of each. A status that is not listed is not
sent, but for 500, which is always a mistake of the server's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]
ERRORS = {
    400: "The request is wrong; the message says where.",
    401: "A key is needed.",
    403: "It was sent to another name (Host), or from a page that may not use this server (Origin).",
    404: "There is no such model or thing.",
    408: "The request did not come in time.",
    413: "The request is too large.",
    431: "The headers are too large.",
    503: "Too much is asked for at once, or the server is ending; Retry-After says when to come again.",
}


def shape(**fields: str) -> Schema:
    """An object that has these fields, each of a type of JSON Schema, or of several with "|". It may have
    others."""
    properties = {name: {"type": kinds.split("|")} for name, kinds in fields.items()}
    return {"type": "object", "properties": properties, "required": list(fields)}


_LIST = shape(object="string", data="array")
_WRITTEN = shape(
    id="string", object="string", created="integer", model="string", choices="array", usage="object"
)
_RESPONSE = shape(
    id="string", object="string", created_at="integer", status="string", model="string", output="array",
    usage="object|null", error="object|null",
)  # fmt: skip
_TOKENS = shape(tokens="array", count="integer", max_model_len="integer")
_OPENAI = {
    "type": "object",
    "properties": {"error": shape(message="string", type="string", param="string|null", code="string|null")},
    "required": ["error"],
}
_ANTHROPIC = {
    "type": "object",
    "properties": {"type": {"const": "error"}, "error": shape(type="string", message="string")},
    "required": ["type", "error"],
}
# Errors of each surface (see app.SURFACES), and whole answers of each operation; not of streams.
FORMS = {
    "openai": "OpenAIError",
    "responses": "OpenAIError",
    "anthropic": "AnthropicError",
    "ollama": "OllamaError",
}
SCHEMAS = {"OpenAIError": _OPENAI, "AnthropicError": _ANTHROPIC, "OllamaError": shape(error="string")}
ANSWERS: dict[str, Schema] = {
    "POST /v1/chat/completions": _WRITTEN,
    "POST /v1/completions": _WRITTEN,
    "POST /v1/fim/completions": _WRITTEN,
    "POST /v1/embeddings": shape(object="string", data="array", model="string", usage="object"),
    "POST /tokenize": _TOKENS,
    "POST /v1/tokenize": _TOKENS,
    "POST /detokenize": shape(prompt="string", content="string"),
    "POST /v1/detokenize": shape(prompt="string", content="string"),
    "GET /v1/models": _LIST,
    "GET /v1/models/{name}": shape(id="string", object="string", created="integer", owned_by="string"),
    "GET /tokenizer_info": shape(tokenizer_class="string", chat_template="string|null"),
    "GET /v1/tokenizer_info": shape(tokenizer_class="string", chat_template="string|null"),
    "POST /v1/responses": _RESPONSE,
    "GET /v1/responses/{response_id}": _RESPONSE,
    "DELETE /v1/responses/{response_id}": shape(id="string", object="string", deleted="boolean"),
    "GET /v1/responses/{response_id}/input_items": _LIST,
    "POST /v1/responses/input_tokens": shape(object="string", input_tokens="integer"),
    "POST /v1/messages": shape(
        id="string", type="string", role="string", model="string", content="array",
        stop_reason="string|null", stop_sequence="string|null", usage="object",
    ),
    "POST /v1/messages/count_tokens": shape(input_tokens="integer"),
    "GET /api/version": shape(version="string"),
    "GET /api/tags": shape(models="array"),
    "GET /api/ps": shape(models="array"),
    "POST /api/show": shape(details="object", model_info="object", capabilities="array", template="string"),
    "POST /api/chat": shape(model="string", created_at="string", message="object", done="boolean"),
    "POST /api/generate": shape(model="string", created_at="string", response="string", done="boolean"),
    "POST /api/embed": shape(model="string", embeddings="array"),
    "POST /api/embeddings": shape(embedding="array"),
    "POST /api/pull": shape(status="string"),
    "GET /health": shape(status="string", uptime_seconds="number", version="string", loading="array"),
    "GET /ready": shape(ready="boolean", status="string"),
}  # fmt: skip


def described(api: Any, surface: Callable[[str], str]) -> Schema:
    """The document of a FastAPI application. surface: the name of the one that a path belongs to."""
    from fastapi.openapi.utils import get_openapi

    found = get_openapi(title=api.title, version=api.version, description=api.description, routes=api.routes)
    for path, operations in found.get("paths", {}).items():
        error = {"application/json": {"schema": {"$ref": f"#/components/schemas/{FORMS[surface(path)]}"}}}
        for method, operation in operations.items():
            answers = operation["responses"]
            answers.pop("422", None)  # FastAPI's own, which is a 400 here
            for status, text in ERRORS.items():
                answers.setdefault(str(status), {"description": text, "content": error})
            whole = ANSWERS.get(f"{method.upper()} {path}")
            if whole is not None:
                answers["200"]["content"]["application/json"] = {"schema": whole}
    keys = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    found["components"] = {"schemas": SCHEMAS, "securitySchemes": keys}
    found["security"] = [{}, {"bearer": []}, {"key": []}]  # none where the server was given no key
    return found
