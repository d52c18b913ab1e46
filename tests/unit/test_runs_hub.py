"""Models of the hub, from a fake one: whole or absent, pinned, resumed, checked, offline; no token shown."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fake_hub
import nano
from fake_hub import FakeHub
from tinygpt.core import files, hub
from tinygpt.core.config import from_dict, to_dict
from tinygpt.core.errors import ConfigError, RemoteError, TinyGPTError
from tinygpt.core.events import Events, MemorySink, Note, Progress
from tinygpt.runs import _hub, _hub_take, _transfer
from tinygpt.runs.generate import Config

nano.require("huggingface_hub")
WEIGHTS = bytes(range(256)) * 400  # 102,400 bytes: the hub keeps them as LFS
REPO = {
    "config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}", "model.safetensors": WEIGHTS,
    "README.md": b"# card", "pytorch_model.bin": b"pickle" * 1000, "modeling_x.py": b"print()",
    "onnx/model.onnx": b"x", "original/model.safetensors": b"x" * 5000,
}  # fmt: skip
NEEDED = ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
NAME = Path("hf://org/name")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub.serving(FakeHub()) as found:
        found.add("org/name", REPO)
        fake_hub.point_at(found, tmp_path / "hub", monkeypatch)
        yield found


def taken(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def leftovers(cache: Path) -> list[Path]:
    return [p for p in cache.rglob("*") if p.name.endswith((_transfer.PART, ".lock"))]


@pytest.mark.parametrize("text", ["hf://org/name", "hf:/org/name"])
def test_both_spellings_are_one_name(text: str) -> None:
    assert str(hub.parse(Path(text))) == "hf://org/name" == hub.spelled(Path(text))
    assert hub.parse("runs/name") is None and hub.spelled("runs/hf:/x") == "runs/hf:/x"
    found = hub.parse(f"{text}@refs/pr/1")
    assert found is not None and (found.repo, found.revision) == ("org/name", "refs/pr/1")
    config = from_dict(Config, {"model": text})
    assert to_dict(config)["model"] == "hf://org/name"
    assert from_dict(Config, to_dict(config)) == config


@pytest.mark.parametrize(
    "text", ["hf://", "hf://name", "hf://a/b/c", "hf://a/../b", "hf://a/b@", "hf://a--b/c", "hf://a/b c"]
)
def test_a_malformed_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not the name of a model on the hub"):
        hub.parse(Path(text))


def test_only_what_is_needed_is_fetched_once(fake: FakeHub, tmp_path: Path) -> None:
    sink = MemorySink()
    folder = _hub.fetch(NAME, Events(sink))
    assert taken(folder) == NEEDED and (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.of_snapshot(folder) == hub.HubName("org/name", folder.name)
    bar = sink.of(Progress)
    assert bar[-1].done == bar[-1].total == len(WEIGHTS)
    asked = len(fake.log)
    assert _hub.fetch(NAME) == folder and len(fake.log) == asked + 1  # is it still this commit?
    assert _hub.fetch(Path(f"hf://org/name@{folder.name}")) == folder and len(fake.log) == asked + 1
    assert not leftovers(tmp_path / "hub")


@pytest.mark.wide
def test_a_branch_that_moved_is_fetched_anew_and_a_pin_is_not(fake: FakeHub) -> None:
    old = _hub.fetch(NAME)
    fake.add("org/name", REPO | {"config.json": b'{"model_type": "qwen3"}'})
    new = _hub.fetch(NAME)
    assert new != old and (new / "model.safetensors").resolve() == (old / "model.safetensors").resolve()
    assert _hub.fetch(Path(f"hf://org/name@{old.name}")) == old


@pytest.mark.wide
def test_shards_are_those_of_the_index(fake: FakeHub) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    shards = {"model-00001-of-00002.safetensors": b"1" * 5000, "model-00002-of-00002.safetensors": b"2" * 50}
    repo = {"config.json": b"{}", "model.safetensors.index.json": json.dumps(index).encode(), **shards}
    fake.add("org/sharded", repo | {"consolidated.safetensors": b"3" * 5000})
    folder = _hub.fetch(Path("hf://org/sharded"))
    assert taken(folder) == sorted(repo)
    fake.add("org/hole", {n: c for n, c in repo.items() if "00002-of" not in n})
    with pytest.raises(TinyGPTError, match="lacks model-00002-of-00002.safetensors"):
        _hub.fetch(Path("hf://org/hole"))


def test_a_cut_transfer_is_resumed_with_a_range(fake: FakeHub) -> None:
    fake.cuts["model.safetensors"] = [1000, 40_000]
    folder = _hub.fetch(NAME)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert [r[2] for r in fake.asked("resolve") if "model.saf" in r[1]] == ["", "bytes=1000-", "bytes=41000-"]


def test_another_process_goes_on_where_one_died(fake: FakeHub, tmp_path: Path) -> None:
    fake.cuts["model.safetensors"] = [5000, *[0] * 10]
    with pytest.raises(RemoteError, match="does not arrive|cannot be reached") as told:
        _hub.fetch(NAME)
    assert told.value.exit_code == 2
    assert not (tmp_path / "hub/models--org--name/snapshots").joinpath("model.safetensors").exists()
    fake.cuts.clear()
    fake.log.clear()
    assert (_hub.fetch(NAME) / "model.safetensors").read_bytes() == WEIGHTS
    assert [r[2] for r in fake.asked("resolve") if "model.saf" in r[1]] == ["bytes=5000-"]


@pytest.mark.wide
def test_a_server_without_ranges_sends_all_of_it_again(fake: FakeHub) -> None:
    fake.ranges = False
    fake.cuts["model.safetensors"] = [1000]
    assert (_hub.fetch(NAME) / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.wide
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("lie", ["other", "longer", "shorter"])
def test_a_lie_is_refused_and_nothing_of_it_stays(name: str, lie: str, fake: FakeHub, tmp_path: Path) -> None:
    true = REPO[name]
    fake.lies[name] = {"other": true[:-1] + b"!", "longer": true + b"!", "shorter": true[:-1]}[lie]
    with pytest.raises(RemoteError, match=f"{name} of hf://org/name"):
        _hub.fetch(NAME)
    shown = [p for p in (tmp_path / "hub").rglob(name)]
    assert not shown and not [p for p in leftovers(tmp_path / "hub") if p.stat().st_size == len(true)]
    fake.lies.clear()
    assert (_hub.fetch(NAME) / name).read_bytes() == true


@pytest.mark.wide
def test_a_wrong_part_of_an_earlier_day_is_begun_again(fake: FakeHub, tmp_path: Path) -> None:
    blobs = tmp_path / "hub/models--org--name/blobs"
    blobs.mkdir(parents=True)
    blob = blobs / fake_hub.etag_of(WEIGHTS)
    _transfer.part_of(blob).write_bytes(b"?" * 3000)
    assert (_hub.fetch(NAME) / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.wide
def test_a_damaged_file_of_another_tool_is_fetched_again(fake: FakeHub, tmp_path: Path) -> None:
    blob = tmp_path / "hub/models--org--name/blobs" / fake_hub.etag_of(WEIGHTS)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(WEIGHTS[:-1] + b"?")
    sink = MemorySink()
    assert (_hub.fetch(NAME, Events(sink)) / "model.safetensors").read_bytes() == WEIGHTS
    assert "model.safetensors of hf://org/name is damaged in the cache" in sink.of(Note)[0].text


def test_a_redirect_does_not_carry_the_token_to_another_host(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fake.token = "hf_secret"
    with fake_hub.serving(FakeHub(repos=fake.repos, commits=fake.commits)) as cdn:
        fake.cdn = cdn.endpoint
        cdn.cuts["model.safetensors"] = [100]
        assert (_hub.fetch(NAME) / "model.safetensors").read_bytes() == WEIGHTS
        assert len(cdn.log) == 2 and not any(given for *_, given in cdn.log)
    assert all(given == "Bearer hf_secret" for *_, given in fake.log)


def refused(path: Path, pattern: str, hint: str = "") -> TinyGPTError:
    with pytest.raises(TinyGPTError, match=pattern) as told:
        _hub.fetch(path)
    assert "\n" not in str(told.value) and hint in told.value.hint and told.value.exit_code == 2
    return told.value


def test_each_refusal_of_the_hub_is_one_line(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(Path("hf://org/nothing"), "the hub has no model org/nothing, or it is private", "HF_TOKEN")
    refused(Path("hf://org/name@v9"), "org/name has no revision 'v9'", "/tree/main")
    fake.gated = {"org/name"}
    refused(NAME, "is gated", f"visit {fake.endpoint}/org/name, then set HF_TOKEN")
    fake.gated, fake.token = set(), "hf_right"
    refused(NAME, "no model org/name, or it is private", "set HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong_secret")
    told = refused(NAME, "does not accept the token", "settings/tokens")
    assert "secret" not in str(told)
    monkeypatch.setenv("HF_TOKEN", "hf_sécret")
    assert "cret" not in str(refused(NAME, "letters that no token has"))
    monkeypatch.delenv("HF_TOKEN")
    fake.token, fake.status = "", 429
    refused(NAME, "too many requests")
    fake.status = 503
    refused(NAME, "not in the cache, and the hub is out of order")


def test_a_repository_without_safetensors(fake: FakeHub) -> None:
    fake.add("org/pickles", {"config.json": b"{}", "pytorch_model.bin": b"x" * 9000})
    refused(Path("hf://org/pickles"), r"only pickled weights \(pytorch_model.bin\)", "safetensors")
    fake.add("org/gguf", {"README.md": b"", "m.gguf": b"x" * 9000})
    refused(Path("hf://org/gguf"), r"GGUF files only \(m.gguf\)")
    fake.add("org/empty", {"a.txt": b""})
    refused(Path("hf://org/empty"), "no model that could be opened")


@pytest.mark.wide
@pytest.mark.parametrize("name", ["../../evil.json", "/etc/evil.json", "a\\..\\evil.json"])
def test_a_list_that_leads_out_of_its_folder(name: str, fake: FakeHub) -> None:
    fake.extra = [{"rfilename": name, "size": 1, "blobId": "0" * 40}]
    refused(NAME, "makes no sense")
    fake.extra = [{"rfilename": "config.json", "size": 1, "blobId": "../x"}]
    refused(NAME, "makes no sense")


def test_too_small_a_disk_is_seen_before(
    fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=_hub_take.SPARE + 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    refused(NAME, "needs 0.0 GB more", "HF_HUB_CACHE")
    assert not [r for r in fake.asked("resolve") if "model.saf" in r[1]] and not leftovers(tmp_path)


@pytest.mark.wide
def test_a_silent_hub(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.05)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    fake.silent = threading.Event()
    refused(NAME, "not in the cache, and the hub at .* does not answer in time")


def test_without_a_network_the_cache_is_used_and_said(fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    folder = _hub.fetch(NAME)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    sink = MemorySink()
    assert _hub.fetch(NAME, Events(sink)) == folder
    assert "cannot be reached" in sink.of(Note)[0].text and folder.name in sink.of(Note)[0].text
    refused(Path("hf://org/other"), "hf://org/other is not in the cache, and the hub at .* cannot be reached")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert _hub.fetch(NAME) == folder
    refused(Path("hf://org/other"), "HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE")
    (folder / "model.safetensors").resolve().write_bytes(b"cut")
    refused(NAME, "is not in the cache")


@pytest.mark.wide
def test_what_huggingface_hub_fetched_is_found_offline_and_ours_is_found_by_it(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub
    from huggingface_hub import constants

    theirs = [
        huggingface_hub.hf_hub_download("org/name", n, cache_dir=constants.HF_HUB_CACHE) for n in NEEDED
    ]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert [str(_hub.fetch(NAME) / n) for n in NEEDED] == theirs
    blob = Path(theirs[2]).resolve()
    blob.write_bytes(WEIGHTS[:-1] + b"?")
    shutil.rmtree(files.cache_dir("hub"))
    refused(NAME, "is not in the cache")  # its hash is wrong
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "second"))
    folder = _hub.fetch(NAME)
    found = huggingface_hub.hf_hub_download(
        "org/name", "model.safetensors", cache_dir=constants.HF_HUB_CACHE, local_files_only=True
    )
    assert Path(found) == folder / "model.safetensors"


def test_a_run_is_pinned_and_a_resumed_one_stays(fake: FakeHub, tmp_path: Path) -> None:
    from tinygpt.runs.sft import Config as Sft

    config = from_dict(
        Sft, {"base": "hf://org/name", "data": "x.jsonl", "out": str(tmp_path / "run"), "steps": 1}
    )
    first = _hub.pinned(config, Events())
    commit = _hub.fetch(NAME).name
    assert to_dict(first)["base"] == f"hf://org/name@{commit}"
    files.write_json(tmp_path / "run/run.json", {"config": to_dict(first)})
    fake.add("org/name", REPO | {"README.md": b"# new"})
    assert to_dict(_hub.pinned(config, Events()))["base"] != to_dict(first)["base"]
    again: Any = from_dict(Sft, to_dict(config) | {"resume": True})
    assert to_dict(_hub.pinned(again, Events()))["base"] == to_dict(first)["base"]
    with pytest.raises(ConfigError, match=r"--out hf://org/name: only models"):
        _hub.pinned(from_dict(Sft, to_dict(config) | {"out": "hf://org/name"}), Events())


def test_a_tokenizer_needs_no_weights(fake: FakeHub) -> None:
    assert taken(_hub.fetch("hf://org/name", part="tokenizer")) == ["config.json", "tokenizer.json"]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(TinyGPTError, match="needs the package 'huggingface_hub'"):
        _hub.fetch(NAME)


@pytest.mark.wide
def test_the_disk_is_told_when_it_cannot_be_written(fake: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "hub").write_text("a file")
    refused(NAME, "cannot write .*hub")
    assert os.path.isfile(tmp_path / "hub")
