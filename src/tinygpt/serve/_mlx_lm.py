"""mlx_lm's parsers of tool calls, for model families whose form is not one of ours."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import DataError
from tinygpt.data.message import to_call

if TYPE_CHECKING:
    from tinygpt.serve.calls import Form

# What a template writes before a call, and the parser of that form.
PARSERS = {
    "<minimax:tool_call>": "minimax_m2",
    "<|tool_call>": "gemma4",
    "<start_function_call>": "function_gemma",
    "<longcat_tool_call>": "longcat",
    "<|tool_calls_section_begin|>": "kimi_k2",
}


def form(source: str) -> Form | None:
    """The form of the calls that a Jinja template writes; None where it is none of these, or mlx_lm is not
    there (then nothing runs such a model)."""
    from tinygpt.serve.calls import Form

    for begin, name in PARSERS.items():
        if begin in source:
            try:
                module: Any = importlib.import_module(f"mlx_lm.tool_parsers.{name}")
            except ImportError:
                return None
            return Form(module.tool_call_start, module.tool_call_end, _reader(module.parse_tool_call))
    return None


def _reader(parse: Any) -> Any:
    def read(body: str, tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        try:
            found = parse(body, list(tools))
        except Exception as error:  # theirs raise whatever the text makes them raise
            raise ValueError(f"the calls cannot be read: {error}") from error
        calls = found if isinstance(found, list) else [found]
        if not calls or not all(isinstance(call.get("arguments"), dict) for call in calls):
            raise DataError("there is no call with an object of arguments")
        return [to_call({"name": call["name"], "arguments": call["arguments"]}) for call in calls]

    return read
