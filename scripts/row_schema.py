"""The JSON Schema of eval rows and of the records beside them, from the code; scripts/docs.py writes it."""

from __future__ import annotations

import inspect
import json
import types
import typing
from typing import Any

from tinygpt.core import rows
from tinygpt.core.config import fields
from tinygpt.eval.pooled import STATISTICS

NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", type(None): "null"}
MEANINGS = {
    "run_id": "One call of an evaluator; its records have the same.",
    "baseline": "What others are compared with: a rule, an untrained model, a reference.",
    "subtask": "A part of the task with a row of its own; null: the task as a whole.",
    "score": "The metric over n_examples; a share lies between 0 and 1.",
    "protocol": "Passes and budget of a gate, in rows of the original.",
    "pass_stats": "Mean and spread over passes, in rows of the original.",
    "data_version": "A hash of what was asked: rows of other data are not compared.",
    "interval": "95 % interval of the score: low, high.",
    "decoding": "How answers were drawn: temperature, top_p.",
    "settings": "The suite's own settings.",
    "n_failed": "Answers that did not come; a gate takes no row that has any.",
    "n_truncated": "Answers that were cut off at the longest length.",
}
NOT_NEGATIVE = ("n_examples", "n_failed", "n_truncated", "wall_seconds")
RECORD: dict[str, Any] = {
    "type": "object",
    "description": "What became of one example; NAME.examples.jsonl lies beside NAME.jsonl.",
    "required": ["run_id", "id"],
    "properties": {
        "run_id": {"type": "string", "description": "That of its rows."},
        "id": {"type": ["string", "integer"], "description": "The example's name: the same in every run."},
        "task": {"type": "string"},
        "subtasks": {
            "type": "array", "items": {"type": ["string", "null"]}, "description": "In which rows it counts.",
        },
        "scores": {
            "type": "object", "additionalProperties": {"type": "number"},
            "description": "What it counts there, by metric.",
        },
        "weights": {
            "type": "object", "additionalProperties": {"type": "number"},
            "description": "How much, where not all count the same.",
        },
        "pooled": {
            "type": "object",
            "additionalProperties": {
                "type": "object", "required": ["how", "part"], "properties": {"how": {"enum": [*STATISTICS]}}
            },
            "description": "What it brings to figures over all examples, by metric.",
        },
        "suite": {"type": "string"},
        "model": {"type": "string"},
        "correct": {"type": "boolean"},
        "finish_reason": {"type": "string", "description": "stop, length or error."},
        "n_tokens": {"type": "integer", "minimum": 0, "description": "Tokens of the answer."},
        "error": {"type": "string", "description": "Why there is no answer; such an example is never right."},
    },
}  # fmt: skip


def schema() -> dict[str, Any]:
    """The row's schema, with the record's under $defs."""
    made = {f.name: _type(f.type) for f in fields(rows.EvalRow)}
    for name, meaning in MEANINGS.items():
        made[name]["description"] = meaning
    for name in NOT_NEGATIVE:
        made[name]["minimum"] = 0
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Made by `make docs`: edit the code, not this file.",
        "title": "eval row",
        "description": inspect.getdoc(rows.EvalRow),
        "type": "object",
        "required": list(rows.REQUIRED),
        "properties": made,
        "$defs": {"record": RECORD},
    }


def _type(kind: Any) -> dict[str, Any]:
    origin, of = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        parts = [_type(one) for one in of]
        joined = {key: value for part in parts for key, value in part.items()}
        return joined | {"type": [part["type"] for part in parts]}
    if origin is tuple:
        return {"type": "array", "items": _type(of[0]), "minItems": len(of), "maxItems": len(of)}
    return {"type": NAMES[origin or kind]}


def page() -> str:
    return json.dumps(schema(), indent=2, ensure_ascii=False)
