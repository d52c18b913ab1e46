"""Models of the hub by the real command line: inspected, loaded, trained on, refused; no token is shown."""

from __future__ import annotations

import importlib.util
import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fake_hub
import nano
from e2e.shell import NANO, good, process, refused, sums, tinygpt
from fake_hub import FakeHub
from tinygpt.cli._render import Output
from tinygpt.core import files
from tinygpt.core.backend import mx
from tinygpt.core.events import Events, MemorySink, Progress
from tinygpt.data.tokenizer import byte
from tinygpt.model import checkpoint, quantized
from tinygpt.model.quantized import Packing

nano.require("huggingface_hub")
CARD = "---\nlicense: apache-2.0\nbase_model:\n- org/parent\n---\n# A model\n"


def publish(hub: FakeHub, folder: Path, repo: str = "org/name", **more: bytes) -> str:
    """Put a model directory on the hub as another tool would have written it."""
    (folder / "tinygpt.json").unlink(missing_ok=True)
    (folder / "README.md").write_text(CARD)
    for name, content in more.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return hub.add_folder(repo, folder)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return checkpoint.save(
        tmp_path / "model", nano.model(vocab_size=300), write_tokenizer=byte.load(None).save, dtype="bfloat16"
    )


@pytest.fixture
def hub(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub.serving(FakeHub()) as found:
        publish(found, model)
        fake_hub.point_at(found, tmp_path / "cache", monkeypatch)
        yield found


def test_a_model_of_the_hub_is_inspected_by_its_headers(hub: FakeHub, model: Path) -> None:
    code = {"pytorch_model__bin": b"x" * 5000, "modeling_x__py": b"raise SystemExit"}
    data = json.loads((model / "config.json").read_text()) | {"auto_map": {"AutoModel": "modeling_x.X"}}
    (model / "config.json").write_text(json.dumps(data))
    publish(hub, model, **code, chat_template__jinja=b"{{ messages }} {{ tools }} {{ ''.__class__ }}")
    facts = good("hf-inspect", "hf://org/name", "--json").json
    asked = [r for r in hub.asked("model.safetensors")]
    assert asked and all(r[2].startswith("bytes=0-") for r in asked)
    local = good("hf-inspect", model, "--json").json
    for key in (
        "parameters",
        "groups",
        "dtypes",
        "memory",
        "tokenizer",
        "chat_template",
        "card",
        "suspicious",
    ):
        assert facts[key] == local[key], key
    lm = nano.model(vocab_size=300)
    count = sum(v.size for v in nano.flat(lm).values())
    assert facts["parameters"] == count == sum(g["parameters"] for g in facts["groups"])
    assert facts["memory"]["float32"] == 4 * count and facts["memory"]["bfloat16"] == 2 * count
    assert {g["group"] for g in facts["groups"]} == {"embeddings", "attention", "mlp", "norms"}
    assert set(facts["dtypes"]) == {"BF16"} and facts["layers"] == 2 and facts["kv_heads"] == 2
    assert facts["card"] == {"license": "apache-2.0", "base_model": "org/parent"}
    assert facts["chat_template"]["tools"] and facts["tokenizer"]["kind"] == "BPE"
    named = [s["file"] for s in facts["suspicious"]]
    assert named == ["modeling_x.py", "pytorch_model.bin", "config.json", "chat_template.jinja"]
    assert facts["pinned"].startswith("hf://org/name@") and len(facts["pinned"]) == 54
    shown = good("hf-inspect", "hf://org/name").out
    assert "apache-2.0" in shown and "a pickle" in shown and "4 bits" in shown


def test_what_opens_here_and_why_not(hub: FakeHub, model: Path) -> None:
    assert good("hf-inspect", model, "--json").json["opens"] == "native"
    config = json.loads((model / "config.json").read_text())

    def opens(**changes: object) -> tuple[str, str]:
        (model / "config.json").write_text(json.dumps(config | changes))
        facts = good("hf-inspect", model, "--json").json
        return facts["opens"], facts["why"]

    assert opens(model_type="no_such_thing")[0] == "no"
    assert "no_such_thing" in opens(model_type="no_such_thing")[1]
    assert opens(swiglu_limit=7.0) == ("no", opens(swiglu_limit=7.0)[1])
    assert "swiglu_limit" in opens(swiglu_limit=7.0)[1]
    there = importlib.util.find_spec("mlx_lm") is not None
    assert opens(model_type="helium")[0] == ("mlx-lm" if there else "no")
    assert opens(model_type="helium", model_file="x.py")[0] == "no"


def test_a_long_header_and_a_lying_one(hub: FakeHub, model: Path) -> None:
    content = (model / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = content[8 : 8 + length] + b" " * 200_000
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])
    publish(hub, model)
    assert good("hf-inspect", "hf://org/name", "--json").json["parameters"] > 1000
    assert [r[2] for r in hub.asked("model.safetensors")] == [
        "bytes=0-131071",
        f"bytes=131072-{len(header) + 7}",
    ]
    hub.ranges = False
    refused(tinygpt("hf-inspect", "hf://org/name"), "sends no parts of files")
    hub.ranges = True
    for bad in (struct.pack("<Q", 10**15), struct.pack("<Q", 20) + b"{" + b" " * 30, b"abc"):
        publish(hub, model, "org/bad", model__safetensors=bad + b"\0" * 5000 if bad != b"abc" else bad)
        refused(tinygpt("hf-inspect", "hf://org/bad"), "model.safetensors of hf://org/bad")


def test_what_cannot_be_unpacked_does_not_open(model: Path) -> None:
    data = json.loads((model / "config.json").read_text())
    for table, why in (({"quant_method": "bitsandbytes"}, "bitsandbytes"), ("4bit", "is not a table")):
        (model / "config.json").write_text(json.dumps(data | {"quantization_config": table}))
        facts = good("hf-inspect", model, "--json").json
        assert facts["opens"] == "no" and why in facts["why"]


def test_packed_weights_are_counted_as_weights(tmp_path: Path) -> None:
    lm = nano.model(vocab_size=300, hidden_size=64)
    count = sum(v.size for v in nano.flat(lm).values())
    how, _ = quantized.choose(lm, Packing(bits=4))
    dense = {n: dict(lm.named_modules())[n].weight for n in how}
    quantized.place(lm, how, mx.float32)
    for name, one in how.items():
        dict(lm.named_modules())[name].update(dict(zip(quantized.PARTS, one.pack(dense[name]))))
    path = checkpoint.save(tmp_path / "packed", lm, write_tokenizer=byte.load(None).save)
    facts = good("hf-inspect", path, "--json").json
    assert facts["parameters"] == count and facts["quantisation"]["bits"] == 4
    assert facts["weights_bytes"] < count
    loaded = good("hf-load", path, "--out", tmp_path / "out", "--json").json
    assert loaded["same_logits"] and loaded["quantisation"] == "4 bits, affine, groups of 64"
    assert loaded["parameters"] == count


def test_load_writes_the_same_model(hub: FakeHub, tmp_path: Path, model: Path) -> None:
    out = tmp_path / "base.tinygpt"
    made = good("hf-load", "hf://org/name", "--out", out, "--json").json
    assert made["same_logits"] and made["logits_apart"] == 0 and made["opens"] == "native"
    assert made["next"] == made["next_after"] and len(made["next"]) == 5
    sealed = json.loads((out / "tinygpt.json").read_text())
    assert sealed["imported"]["path"] == made["from"] and "@" in made["from"]
    old, new = (checkpoint.read_tensors(p, "model") for p in (model, out))
    assert set(old) == set(new) and all(mx.array_equal(old[n], new[n]) for n in old)
    good("validate", out)
    wide = good("hf-load", model, "--out", tmp_path / "wide", "--dtype", "f32", "--json").json
    assert wide["same_logits"]  # every bfloat16 is a float32
    full = checkpoint.save(
        tmp_path / "full", nano.model(vocab_size=300), write_tokenizer=byte.load(None).save
    )
    half = good("hf-load", full, "--out", tmp_path / "half", "--dtype", "bf16", "--json").json
    assert 0 < half["logits_apart"] < 0.05 and not half["same_logits"]
    assert {t.dtype for t in checkpoint.read_tensors(tmp_path / "wide", "model").values()} == {mx.float32}
    shown = good("hf-load", "hf://org/name").out
    assert "hf://org/name@" in shown and "next token" in shown
    refused(tinygpt("hf-load", model, "--dtype", "f16"), "--dtype means nothing without --out")
    refused(tinygpt("hf-load", model, "--out", out), "exists", hint="--force")
    good("hf-load", model, "--out", out, "--force")
    (model / "tokenizer.json").unlink()
    refused(tinygpt("hf-load", model, "--out", tmp_path / "none"), "no tokenizer.json at")
    assert not (tmp_path / "none").exists()


def test_an_adapter_on_a_model_of_the_hub(hub: FakeHub, tmp_path: Path) -> None:
    run, commit = tmp_path / "run", fake_hub.commit_of(hub.repos["org/name"]["main"])
    line = (
        "sft", "hf://org/name", "--data", sums(tmp_path / "rows.jsonl"), "--out", run, "--save-every", 2,
        "--seed", 1, *NANO[4:],
    )  # fmt: skip
    good(*line, "--steps", 4)
    assert json.loads((run / "run.json").read_text())["config"]["base"] == f"hf://org/name@{commit}"
    manifest = json.loads((run / "final/tinygpt.json").read_text())
    assert (manifest["base"]["id"], manifest["base"]["revision"]) == ("org/name", commit)
    peft = json.loads((run / "final/adapter_config.json").read_text())
    assert (peft["base_model_name_or_path"], peft["revision"]) == ("org/name", commit)
    # The branch moves on; a resumed run and the adapter's reader stay with the commit.
    hub.add("org/name", hub.repos["org/name"]["main"] | {"README.md": b"# moved"})
    shutil.rmtree(run / "steps/000004")
    good(*line, "--steps", 4, "--resume")
    assert json.loads((run / "run.json").read_text())["config"]["base"] == f"hf://org/name@{commit}"
    shutil.rmtree(tmp_path / "cache")  # another machine: the base is fetched by what the adapter says
    shutil.rmtree(files.cache_dir("hub"))
    assert len(good("debug-names", run / "final").out) > 1
    assert (tmp_path / f"cache/models--org--name/snapshots/{commit}").is_dir()
    baked = good(
        "bake-lora", "hf://org/name@" + commit, run / "final", "--out", tmp_path / "baked", "--json"
    ).json
    assert baked["base"]["path"] == f"hf://org/name@{commit}"


def test_a_tokenizer_a_merge_and_an_evaluation(hub: FakeHub, tmp_path: Path, model: Path) -> None:
    """Wherever a model is taken, one of the hub is."""
    sums(tmp_path / "rows.jsonl")
    text = tmp_path / "t.txt"
    text.write_text("a small text, and another. " * 60)
    good(
        "train", "--corpus", text, "--tokenizer", "hf://org/name", "--out", tmp_path / "run", "--steps", 1,
        "--seed", 1, *NANO,
    )  # fmt: skip
    assert not hub.asked("model.safetensors")
    tokenizer = json.loads((tmp_path / "run/run.json").read_text())["config"]["tokenizer"]
    assert tokenizer.startswith("hf://org/name@")
    merged = good(
        "merge", "hf://org/name", model, "--method", "linear", "--out", tmp_path / "m", "--json"
    ).json
    assert merged["models"][0]["path"].startswith("hf://org/name@")
    rows = good("eval", "hf://org/name", "--corpus", text, "--json").json
    assert rows and len(good("inspect", "hf://org/name").out) > 1


def test_every_refusal_is_one_line_and_the_token_is_nowhere(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hf_verysecrettoken"
    monkeypatch.setenv("HF_TOKEN", secret)
    told = []

    def ask(*words: object) -> object:
        done = tinygpt(*words)
        told.append(done.out + done.err)
        return done

    sample = ("sample", "hf://org/name", "--prompt", "a", "--tokens", 2, "--seed", 1)
    hub.gated = {"org/name"}
    for command in (sample, ("hf-inspect", "hf://org/name"), ("hf-load", "hf://org/name")):
        refused(ask(*command), "hf://org/name is gated", hint=f"visit {hub.endpoint}/org/name")
    hub.gated, hub.token = set(), "another"
    refused(ask(*sample), "does not accept the token")
    hub.token = secret
    assert len(good(*sample).out) > 1
    hub.token = ""
    refused(ask("sample", "hf://org/none", "--prompt", "a"), "the hub has no model org/none")
    refused(ask("sample", "hf://org/name@v2", "--prompt", "a"), "has no revision 'v2'")
    refused(ask("sample", "hf://name", "--prompt", "a"), "is not the name of a model", hint="hf://org/name")
    refused(ask("hf-inspect", "hf://a/b/c"), "is not the name of a model")
    hub.status = 500
    refused(ask("sample", "hf://org/other", "--prompt", "a"), "the hub is out of order")
    refused(
        ask("train", "--corpus", "hf://org/data", "--out", tmp_path / "r"),
        "--corpus hf://org/data: only models",
    )
    text = "".join(told) + "".join(p.read_text() for p in tmp_path.rglob("*.json*") if p.is_file())
    assert secret not in text


def test_in_processes_of_their_own(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a person has it: the environment says where the hub is, and whether there is a network."""
    there = fake_hub.environment(hub, tmp_path / "elsewhere")
    line = ("sample", "hf://org/name", "--prompt", "a", "--tokens", 2, "--seed", 1, "--json")
    first = process(*line, **there)
    assert first.code == 0, first.err
    offline = process(*line, **there | {"HF_HUB_OFFLINE": "1"})
    assert offline.code == 0 and offline.json == first.json
    gone = process("hf-load", "hf://org/new", **there | {"HF_ENDPOINT": "http://127.0.0.1:9"})
    refused(gone, "hf://org/new is not in the cache, and the hub at http://127.0.0.1:9 cannot be reached")
    seen = process("hf-inspect", "hf://org/name", "--json", **there | {"HF_HUB_OFFLINE": "1"})
    assert seen.code == 0 and seen.json["pinned"].startswith("hf://org/name@"), seen.err
    away = process("hf-load", "hf://org/new", **there | {"HF_HUB_OFFLINE": "1"})
    refused(away, "HF_HUB_OFFLINE is set", hint="unset HF_HUB_OFFLINE")


def test_only_numbers_are_compared(model: Path) -> None:
    """The probe's logits are those of the model, not of something that is near."""
    lm = checkpoint.load(model).model
    facts = good("hf-load", model, "--probe", "abc", "--json").json
    tokenizer = byte.load(None)
    z = np.array(lm(mx.array([[tokenizer.eos_id, *tokenizer.encode("abc")]]))[0, -1])
    assert facts["next"][0]["id"] == int(z.argmax())


def test_the_originals_way_to_sample_is_pointed_at() -> None:
    for flag in ("--sample", "--prompt", "--tokens", "--temperature", "--lora"):
        refused(tinygpt("hf-load", "m", flag), f"no option {flag}", hint="tinygpt sample DIR --prompt TEXT")


@pytest.mark.parametrize("command", ["inspect", "validate", "debug-names"])
def test_commands_that_look_tell_of_their_download(
    command: str, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = MemorySink()
    monkeypatch.setattr(Output, "events", lambda self: Events(sink))
    tinygpt(command, "hf://org/name")
    assert "download org/name" in {e.task for e in sink.events if isinstance(e, Progress)}
