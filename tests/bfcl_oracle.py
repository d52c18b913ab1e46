"""A server that plays BFCL's reference answers back, in the order in which its runner asks with one thread.

What it plays is read from the harness's own files, by its interpreter. As an anti-oracle it does the
opposite: no call where one is right, a call where none is."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path
from typing import Any

from fake_openai import FakeOpenAI, Reply, chat

READ = """
import json, sys, types
registry = types.ModuleType("bfcl_eval.constants.model_config"); registry.MODEL_CONFIG_MAPPING = {}
sys.modules[registry.__name__] = registry
from bfcl_eval import utils
asked = json.loads(sys.argv[1])
found = []
for category, ids in asked.items():
    entries = utils.load_dataset_entry(category, include_language_specific_hint=False)
    scored = [one for one in entries if "prereq" not in one["id"]]
    gold = {}
    if not utils.is_relevance_or_irrelevance(category):
        gold = dict(zip((one["id"] for one in scored), utils.load_ground_truth_entry(category)))
    found += [
        {**one, "category": category, "gold": gold.get(one["id"], {}).get("ground_truth")}
        for one in entries if one["id"] in ids
    ]
print(json.dumps(sorted(found, key=utils.sort_key), default=str))
"""
DONE = "That is done."


def examples(python: Path, asked: dict[str, list[str]]) -> list[dict[str, Any]]:
    """The examples with these ids of each category, with their references, as the runner asks them."""
    done = subprocess.run(
        [python, "-I", "-c", READ, json.dumps(asked)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


class Oracle(FakeOpenAI):
    """`right`: the references; else an anti-oracle. `native`: calls of the API, else in the text. `lost`: ids
    whose first request the server does not answer."""

    def __init__(
        self, found: list[dict[str, Any]], *, right: bool = True, native: bool = True, lost: frozenset[str]
        = frozenset(),
    ) -> None:  # fmt: skip
        super().__init__(self._said)
        self._left = list(found)
        self._right, self._native, self._lost, self._at = right, native, lost, dict[str, Any]()

    def _said(self, path: str, body: dict[str, Any]) -> Reply:
        if path.endswith("/models"):
            return {"data": [{"id": "oracle"}]}
        messages = body["messages"]
        if body.get("max_tokens") == 1:  # the question whether it answers; BFCL asks "hi", too
            return chat("hello")
        users = [m for m in messages if m["role"] == "user"]
        told = sum(m["role"] == "assistant" for m in messages)
        if self._left and (_said_by_user(self._left[0]), _shown(self._left[0])) == (
            [m["content"] for m in users],
            told,
        ):
            self._at = self._left.pop(0)  # a conversation begins
        assert [m["content"] for m in users][: len(_said_by_user(self._at))] == _said_by_user(self._at)
        if self._at["id"] in self._lost:
            return 400, {}, {"error": {"message": "no answer today"}}
        if not self._native:
            users = [m for m in users if not m["content"].startswith("[{'role': 'tool'")]
        turn = len(users) - len(_said_by_user(self._at))
        answered = messages[-1]["role"] == "tool" or messages[-1]["content"].startswith("[{'role': 'tool'")
        return self._answer(turn, answered)

    def _answer(self, turn: int, answered: bool) -> Reply:
        category, gold = self._at["category"], self._at["gold"]
        calls: list[tuple[str, dict[str, Any]]] = []
        if "irrelevance" in category or category == "live_relevance":
            if ("irrelevance" in category) != self._right:
                calls = [(self._at["function"][0]["name"], {})]
        elif category.startswith("memory"):
            return chat(gold[0] if gold and self._right else DONE)
        elif not self._right:
            calls = []
        elif category.startswith("multi_turn"):
            calls = [] if answered else [_parsed(text, self._at) for text in gold[turn]]
        else:
            functions = {one["name"]: one for one in self._at["function"]}
            calls = [
                (name, chosen(values, functions[name]["parameters"], category))
                for one in gold
                for name, values in one.items()
            ]
        if not calls:
            return chat(DONE)
        if not self._native:
            told = (f"{name}({', '.join(f'{k}={v!r}' for k, v in given.items())})" for name, given in calls)
            return chat(f"[{', '.join(told)}]")
        said = [
            {"id": f"call{i}", "type": "function",
             "function": {"name": name.replace(".", "_"), "arguments": json.dumps(given)}}
            for i, (name, given) in enumerate(calls)
        ]  # fmt: skip
        return chat("", tool_calls=said)


def _said_by_user(example: dict[str, Any]) -> list[str]:
    return [m["content"] for m in example["question"][0] if m["role"] == "user"]


def _shown(example: dict[str, Any]) -> int:
    """Answers that a question itself shows."""
    return sum(m["role"] == "assistant" for m in example["question"][0])


def chosen(values: dict[str, list[Any]], schema: dict[str, Any], category: str) -> dict[str, Any]:
    """One of the values that a reference takes for each parameter; those that may be left out are, where
    nothing else is taken, or the function has no such parameter."""
    found: dict[str, Any] = {}
    for name, taken in values.items():
        kind: dict[str, Any] = schema["properties"].get(name, {})
        value = _first(taken)
        optional = name not in schema.get("required", ())
        if optional and (value == "" or ("" in taken and name not in schema["properties"])):
            continue
        nested = kind.get("items", {}).get("type")
        if isinstance(value, dict) and kind.get("type") in ("dict", "HashMap"):
            value = _filled(value)
        elif isinstance(value, list) and nested == "dict":
            value = [_filled(one) if isinstance(one, dict) else one for one in value]
        if category == "simple_java":
            value = _java(value, kind["type"], nested)
        elif category == "simple_javascript":
            value = _javascript(value, kind["type"])
        found[name] = value
    return found


def _first(taken: list[Any]) -> Any:
    return next((value for value in taken if value != ""), "")


def _filled(value: dict[str, Any]) -> dict[str, Any]:
    found = {k: _first(v) if isinstance(v, list) else v for k, v in value.items()}
    return {k: v for k, v in found.items() if v != ""}


def _parsed(text: str, example: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A call written in Python, its arguments by name."""
    call: Any = ast.parse(text, mode="eval").body
    known = [*example["function"], *sum(example.get("missed_function", {}).values(), [])]
    names = next(list(one["parameters"]["properties"]) for one in known if one["name"] == call.func.id)
    given = dict(zip(names, map(ast.literal_eval, call.args)))
    return call.func.id, given | {one.arg: ast.literal_eval(one.value) for one in call.keywords}


def _java(value: Any, kind: str, nested: str | None) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        if kind == "Array":
            return f"new Object[]{{{', '.join(_java(v, nested or 'any', None) for v in value)}}}"
        inside = [f'"{v}"' if isinstance(v, str) else _java(v, nested or "any", None) for v in value]
        return f"new ArrayList<>(Arrays.asList({', '.join(inside)}))" if value else "new ArrayList<>()"
    if isinstance(value, dict):
        puts = (f'put("{k}", {json.dumps(v)});' for k, v in value.items())
        return f"new HashMap<String, Object>() {{{{ {' '.join(puts)} }}}}"
    return f"{value}{ {'float': 'f', 'long': 'L'}.get(kind, '') }"


def _javascript(value: Any, kind: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return json.dumps(value)
    return json.dumps(value) + ("n" if kind == "Bigint" else "")
