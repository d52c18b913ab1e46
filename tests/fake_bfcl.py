"""A stand-in for the interpreter of BFCL's environment, for tests that need no more than its files.

An example is right when the server says "good"; there are five in each category. Run as that interpreter is:
`-I -c CODE` and `-I SCRIPT ACTION SETTINGS`."""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

N = 5
FAILED = "Error during inference"


def interpreter(path: Path) -> Path:
    """An executable file that does as this module."""
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return path


def ids(settings: dict[str, Any], category: str) -> list[str]:
    return [f"{category}_{i}" for i in range(settings["limit"] or N)]


def group(category: str) -> str:
    return "multi_turn" if category.startswith("multi") else "non_live"


def place(root: Path, kind: str, settings: dict[str, Any], category: str) -> Path:
    path = root / kind / settings["name"] / group(category) / f"BFCL_v4_{category}_{kind}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def generate(root: Path, settings: dict[str, Any]) -> None:
    for category in settings["categories"]:
        path = place(root, "result", settings, category)
        there = {json.loads(line)["id"] for line in path.read_text().splitlines()} if path.exists() else set()
        for one in ids(settings, category):
            if one not in there:
                with path.open("a") as file:
                    file.write(json.dumps({"id": one, **said(settings, one)}) + "\n")


def said(settings: dict[str, Any], one: str) -> dict[str, Any]:
    body = {"model": settings["model"], "messages": [{"role": "user", "content": one}], "max_tokens": 2}
    request = urllib.request.Request(
        f"{settings['url']}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=settings["seconds"]) as reply:
            choice = json.loads(reply.read())["choices"][0]
    except Exception as error:
        return {"result": f"{FAILED}: {error}"}
    told = {"latency": 0.5, "output_token_count": 3, "finish_reasons": [choice["finish_reason"]]}
    return {"result": choice["message"]["content"], **told}


def evaluate(root: Path, settings: dict[str, Any]) -> None:
    for category in settings["categories"]:
        lines = place(root, "result", settings, category).read_text().splitlines()
        wrong = [one for one in map(json.loads, lines) if "good" not in one["result"]]
        head = {"accuracy": 0.0, "correct_count": len(lines) - len(wrong), "total_count": len(lines)}
        told = [{"id": one["id"], "error": ["not good"], "error_type": "fake:wrong"} for one in wrong]
        text = "".join(json.dumps(one) + "\n" for one in [head, *told])
        place(root, "score", settings, category).write_text(text)
    (root / "score" / "data_overall.csv").write_text("Rank,Overall Acc,Multi Turn Acc\n1,12.50%,N/A\n")


def main() -> None:
    if sys.argv[2] == "-c":
        print("2026.3.23")
        return
    action, path = sys.argv[3], Path(sys.argv[4])
    settings = json.loads(path.read_text())
    if action == "plan":
        plans = {
            c: {
                "ids": ids(settings, c),
                "before": [],
                "n_all": N,
                "group": group(c),
                "data_version": f"v-{c}",
            }
            for c in settings["categories"]
        }
        print(json.dumps({"version": "2026.3.23", "categories": plans}))
    else:
        {"generate": generate, "evaluate": evaluate}[action](path.parent, settings)


if __name__ == "__main__":
    main()
