"""Every command of docs/data.md is run, in its order, against a hub and a GitHub of this machine."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from random import Random
from typing import Any

import pytest

import fake_github
import fake_hub
import nano
from e2e.shell import good
from e2e.test_classify import ASKED, question
from e2e.test_readme import blocks
from fake_github import FakeGitHub
from fake_hub import FakeHub
from tinygpt.data import rows

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def answered(n: int, what: str) -> list[dict[str, Any]]:
    draw, names = Random(n), [f"{what} number {i}" for i in range(40)]
    asked = [f"Please tell me what you think of {draw.choice(names)}, and of {i}." for i in range(n)]
    return [{"instruction": text, "output": f"It is a very fine one: {text}"} for text in asked]


def test_every_command_of_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("huggingface_hub", "rensa", "py3langid", "phonenumbers", "sklearn", "matplotlib"):
        nano.require(package)
    text, draw = PAGE.read_text(encoding="utf-8"), Random(1)
    monkeypatch.chdir(tmp_path)
    [settings] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    Path("mix.toml").write_text(settings)
    asked = [{"prompt": question(name, draw), "reasoning_depth": name} for name in ASKED for _ in range(40)]
    rows.write(Path("labelled.jsonl"), asked)
    told = [{"instruction": row["prompt"], "output": "Write to jo@mail.example.org."} for row in asked]
    rows.write(Path("my.jsonl"), told)
    rows.write(Path("crawl.jsonl"), [{"text": f"buy cheap things now {i}"} for i in range(60)])
    with fake_hub.serving(FakeHub()) as hub, fake_github.serving(FakeGitHub()) as api:
        api.repository("psf/requests")
        card, data = b"---\nlicense: cc-by-4.0\n---\n", json.dumps(answered(300, "tree")).encode()
        hub.add("datasets/yahma/alpaca-cleaned", {"README.md": card, "alpaca_data_cleaned.json": data})
        fake_hub.point_at(hub, tmp_path / "cache", monkeypatch)
        commands = [shlex.split(line)[1:] for block in blocks(text) for line in block.commands]
        for words in commands:
            good(*words, *(["--api-url", api.endpoint] if words[0] == "fetch-github" else []))
    assert {words[0] for words in commands} >= {"download-dataset", "prep-data", "dedupe", "filter"}
    taken = [
        s["taken"] for s in good("prep-data", "--config", "mix.toml", "--dry-run", "--json").json["sources"]
    ]
    assert taken[0] == 2 * taken[1], "weights as the page says"
    assert "jo@" not in Path("kept.jsonl").read_text() and "[EMAIL]" in Path("kept.jsonl").read_text()
    assert "alpaca-cleaned" in Path("kept.card.md").read_text(), "origins are carried on"
    assert json.loads(Path("mix.card.json").read_text())["licences"] == ["CC-BY-4.0", "cc-by-4.0"]
