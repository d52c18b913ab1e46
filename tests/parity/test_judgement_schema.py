"""What the judgement suite calls an answer of the schema is what jsonschema calls one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nano
from tinygpt.eval.suites import judgement

SCHEMA = Path(__file__).parents[2] / "grammars" / "response_v11.json"
CALL = {"name": "move", "args": {"to": "b"}}
PAYLOADS: list[Any] = [
    {}, None, [], "x", {"args": {}}, {"args": []}, {"calls": []}, {"calls": [CALL]}, {"calls": [CALL] * 8},
    {"calls": [CALL] * 9}, {"calls": {}}, {"calls": [{"name": "move"}]}, {"calls": [{**CALL, "more": 1}]},
    {"calls": [{"name": "", "args": {}}]}, {"calls": [{"name": "a" * 101, "args": {}}]},
    {"calls": [{"name": "a", "args": 1}]}, {"calls": [{"name": 1, "args": {}}]}, {"mood": "good"},
    {"question": 1}, {"topic": None},
]  # fmt: skip


def test_answers_of_the_schema() -> None:
    jsonschema = nano.require("jsonschema")
    check = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    limits = json.loads(SCHEMA.read_text(encoding="utf-8"))["properties"]["payload"]["properties"]
    assert {key: one["maxLength"] for key, one in limits.items() if "maxLength" in one} == judgement.PAYLOAD
    texts = [{key: "x" * n} for key, most in judgement.PAYLOAD.items() for n in (0, most, most + 1)]
    given = [{"spokenText": "a", "intent": "action", "payload": payload} for payload in [*PAYLOADS, *texts]]
    for spoken in ("", "x" * 400, "x" * 401, None, 1):
        given.append({"spokenText": spoken, "intent": "clarify", "payload": {}})
    given += [
        {"spokenText": "a", "intent": intent, "payload": {}} for intent in (*judgement.INTENTS, "x", None)
    ]
    given += [
        {"spokenText": "a", "intent": "edit"},
        {"intent": "edit", "payload": {}},
        {},
        {**given[0], "m": 1},
    ]
    said = [judgement._fits(one) for one in given]
    assert said == [check.is_valid(one) for one in given] and {True, False} == set(said)
