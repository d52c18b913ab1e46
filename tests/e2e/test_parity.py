"""What our commands write opens elsewhere as it lies: same logits, same ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nano
from e2e.shell import NANO, good, sentences, sums
from tinygpt.core.backend import mx
from tinygpt.runs import _pieces

pytestmark = pytest.mark.parity
# Accents, digits, line ends and a name of a control token, which is plain text in a corpus.
TEXT = "The cat sat 1234 times.\n\n  Déjà vu, naïve dogs & rain <b>"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parity")
    (folder / "corpus.txt").write_text(sentences(300), encoding="utf-8")
    sums(folder / "rows.jsonl")
    good("tokenize-train", "--corpus", folder / "corpus.txt", "--out", folder / "tok", "--vocab-size", 320)
    return folder


def trained(root: Path, preset: str, tokenizer: str) -> Path:
    out = root / f"{preset}-{tokenizer}"
    if not out.exists():
        chosen = tokenizer if tokenizer == "byte" else root / tokenizer
        good(
            "train", "--corpus", root / "corpus.txt", "--tokenizer", chosen, "--preset", preset, "--out", out,
            "--steps", 4, "--lr", 0.01, "--seed", 1, *NANO, "--context", 64,
        )  # fmt: skip
    return out / "final"


@pytest.fixture(params=["tiny", "gpt2-tiny"])
def preset(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["byte", "tok"])
def tokenizer(request: pytest.FixtureRequest) -> str:
    return request.param


def ours(model: Path) -> tuple[list[int], np.ndarray]:
    """The ids of the text, and the logits after each of them."""
    loaded, tokenizer = _pieces.open_model(model)
    ids = tokenizer.encode(TEXT)[:60]
    return ids, np.array(loaded.model(mx.array([ids])))[0]


def torch_logits(model: Any, ids: list[int]) -> np.ndarray:
    torch = nano.require("torch")
    with torch.no_grad():
        return model.eval()(torch.tensor([ids])).logits.numpy()[0]


def test_a_trained_model_opens_in_transformers(root: Path, preset: str, tokenizer: str) -> None:
    torch, transformers = nano.require("torch"), nano.require("transformers")
    path = trained(root, preset, tokenizer)
    ids, logits = ours(path)
    model, facts = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, output_loading_info=True
    )
    assert not facts["missing_keys"] and not facts["unexpected_keys"], facts
    nano.close(torch_logits(model, ids), logits, 1e-4)
    theirs = transformers.AutoTokenizer.from_pretrained(path)
    whole = _pieces.open_tokenizer(str(path)).encode(TEXT)
    assert theirs.encode(TEXT, add_special_tokens=False) == whole
    assert theirs.decode(whole) == TEXT
    assert model.config.eos_token_id == theirs.eos_token_id


def test_a_trained_model_opens_in_mlx_lm(root: Path, preset: str, tokenizer: str) -> None:
    loader = nano.require("mlx_lm")
    path = trained(root, preset, tokenizer)
    ids, logits = ours(path)
    model, theirs = loader.load(str(path))[:2]
    nano.close(np.array(model(mx.array([ids])))[0], logits, 1e-4)
    assert theirs.encode(TEXT, add_special_tokens=False)[:60] == ids
    assert theirs.decode(ids) == _pieces.open_tokenizer(str(path)).decode(ids)


def test_a_conversation_is_written_the_same(root: Path) -> None:
    """The chat template that travels with a model gives the text that tuning learned from."""
    transformers = nano.require("transformers")
    path = trained(root, "tiny", "tok")
    messages = [
        {"role": "system", "content": "Add."},
        {"role": "user", "content": "1+2"},
        {"role": "assistant", "content": "3"},
        {"role": "user", "content": "2+2"},
    ]
    theirs = transformers.AutoTokenizer.from_pretrained(path)
    text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    template = _pieces.template_of(_pieces.open_tokenizer(str(path)))
    assert text == "".join(span.text for span in template.render(messages, add_generation_prompt=True))


def test_a_tuned_adapter_opens_in_peft(root: Path) -> None:
    torch, transformers, peft = (nano.require(name) for name in ("torch", "transformers", "peft"))
    base, out = trained(root, "tiny", "tok"), root / "adapter"
    good(
        "sft", base, "--data", root / "rows.jsonl", "--out", out, "--steps", 12, "--lr", 0.05, "--batch", 4,
        "--seed", 1, "--no-compile", "--set", "adapter.targets=all-linear",
    )  # fmt: skip
    loaded, tokenizer = _pieces.open_model(base, out)
    ids = tokenizer.encode(TEXT)[:60]
    expected = np.array(loaded.model(mx.array([ids])))[0]
    plain = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    before = torch_logits(plain, ids)
    opened = peft.PeftModel.from_pretrained(plain, out / "final")
    nano.close(torch_logits(opened, ids), expected, 1e-4)
    assert np.abs(before - expected).max() > 0.01, "the adapter says something"
