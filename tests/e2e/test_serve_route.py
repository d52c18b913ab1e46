"""`tinygpt serve --route`: requests go to the specialist whose router claims them, if its gate passed."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import gates
from e2e.shell import good, refused, tinygpt
from serving import Live, serve, tiny_chat_model
from tinygpt.core.backend import mx
from tinygpt.core.config import to_dict
from tinygpt.data import atraj
from tinygpt.data.requests import NOTHING
from tinygpt.data.tokenizer import byte
from tinygpt.model import checkpoint
from tinygpt.model.config import ModelConfig
from tinygpt.router import encoder, linear, router
from tinygpt.router.calibrate import Calibration
from tinygpt.router.neighbours import Neighbours

ASKED = {"rm": "delete file7 for good", NOTHING: "sing of file7"}


def made(path: Path) -> None:
    """A router that tells the two apart: its head looks from the one to the other."""
    config = ModelConfig(
        vocab_size=260, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=48, initializer_range=0.3,
    )  # fmt: skip
    facts = encoder.Facts(labels=(NOTHING, "rm"), model=to_dict(config))
    found = encoder.build(config, facts, 1)

    def pooled(text: str) -> mx.array:
        tokens_BL = mx.array([list(text.encode())])
        return found.pooled(tokens_BL, mx.ones(tokens_BL.shape, mx.int32))[0]

    rm_D, none_D = pooled(ASKED["rm"]), pooled(ASKED[NOTHING])
    way_D = rm_D - none_D
    way_D = way_D * 10 / (way_D * way_D).sum()
    found.router_head.weight = mx.stack([mx.zeros_like(way_D), way_D])
    found.router_head.bias = mx.array([(way_D * (rm_D + none_D) / 2).sum().item(), 0.0])
    others = linear.learned(["a", "b"], [0, 1], [1.0, 1.0], grams=1, most=9), Neighbours([], facts.labels)
    alone = Calibration(trust=(1.0, 0.0, 0.0))
    router.save(path, router.Router(found, *others, byte.load(), alone))


def asked(live: Live, path: str, text: str, **more: Any) -> str | None:
    """The header of an answer."""
    body = {"model": "big", "messages": [{"role": "user", "content": text}], "max_tokens": 4, **more}
    request = urllib.request.Request(live.url + path, json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as reply:
        assert reply.status == 200 and reply.read()
        return reply.headers.get("x-tinygpt-route")


def test_requests_go_where_they_are_claimed(tmp_path: Path) -> None:
    tiny_chat_model(tmp_path, seed=4).rename(tmp_path / "files")
    big = tiny_chat_model(tmp_path).rename(tmp_path / "big")
    made(tmp_path / "router")
    own = checkpoint.identity(tmp_path / "files")
    for name, right in (("old", 100), ("new", 180)):
        gates.write(tmp_path / f"{name}.jsonl", [gates.measured(right, model_hash=own)])
    line = ("eval-gate", "--candidate", tmp_path / "new.jsonl", "--baseline", tmp_path / "old.jsonl")
    good(*line, "--out", tmp_path / "gate.json")
    route = {"router": "router", "labels": ["rm"], "threshold": 0.6}
    registry = tmp_path / "registry.json"
    routes = [{**route, "model": "files", "report": "gate.json"}, {**route, "model": "again=files"}]
    registry.write_text(json.dumps({"general": "big", "routes": routes}))
    traces = tmp_path / "traces"
    with serve(big, tmp_path, "--no-lock", "--route", registry, "--trace-dir", traces) as live:
        log = live.log.read_text()
        assert "route to files: armed: the gate passed" in log
        assert "route to again: not armed: it has no report" in log
        for path in ("/v1/chat/completions", "/v1/messages", "/api/chat"):
            for more in ({"stream": False}, {"stream": True}):
                told = asked(live, path, ASKED["rm"], **more)
                assert told and told.startswith("model=files; reason=claimed; label=rm; p=0."), path
        told = asked(live, "/v1/chat/completions", ASKED[NOTHING])
        assert told and told.startswith("model=big; reason=not-claimed; label=none")
        assert asked(live, "/v1/chat/completions", ASKED["rm"], model="files") is None
        with urllib.request.urlopen(f"{live.url}/v1/models") as reply:
            assert [one["id"] for one in json.loads(reply.read())["data"]] == ["big", "files", "again"]
        assert "delete file7" not in live.log.read_text()
    names = [atraj.read(path).header.model["name"] for path in sorted(traces.iterdir())]
    assert names == ["files"] * 6 + ["big", "files"]
    registry.write_text(json.dumps({"routes": [{**routes[0], "labels": ["move"]}]}))
    done = tinygpt("serve", big, "--no-lock", "--port", 0, "--route", registry)
    assert done.code == 2 and "unknown label 'move'" in done.err
    refused(tinygpt("serve", big, "--no-lock", "--route", tmp_path / "none.json"), "cannot read")
