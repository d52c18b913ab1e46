"""Traps of supervised tuning: the naive form that trainers have is written out and is wrong, ours is right.

Each was read in a peer (mlx-lm 0.32, its forks, trl's threads). The naive form is here to show that the test
would notice it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import DataError
from tinygpt.data import rows
from tinygpt.data.batch import Batch
from tinygpt.data.source import chat
from tinygpt.data.template import chatml
from tinygpt.data.template._spans import encode
from tinygpt.data.tokenizer import byte
from tinygpt.model.lm import LM
from tinygpt.train.objective import response
from tinygpt.train.optim import sgd
from tinygpt.train.state import arrays
from tinygpt.train.update import Gradient

TOKENIZER = byte.load()
MODES = ("none", "sequential", "best_fit", "bucket")
SIZES = (3, 41, 8, 90, 17, 2, 60, 33, 5, 12)  # letters of the answers: batches do not come out even


@pytest.fixture(scope="module")
def model() -> LM:
    return nano.model(vocab_size=TOKENIZER.vocab_size, max_position_embeddings=256)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows.write(
        tmp_path / "a.jsonl",
        [{"prompt": f"{n}?", "completion": chr(97 + n) * n_} for n, n_ in enumerate(SIZES)],
    )
    return tmp_path / "a.jsonl"


def source(file: Path, pack: str = "best_fit", batch: int = 4, **more: Any) -> Any:
    config = chat.Config(paths=(file,), held_out=0, pack=pack, **more)  # type: ignore[arg-type]
    return chat.build(config, TOKENIZER, length=160, batch_size=batch, seed=3)


def examples() -> list[tuple[np.ndarray, np.ndarray]]:
    """(ids, whether each is learned) of every row, by the template alone."""
    found = []
    for n, size in enumerate(SIZES):
        messages = [
            {"role": "user", "content": f"{n}?"},
            {"role": "assistant", "content": chr(97 + n) * size},
        ]
        ids, learn = encode(chatml.render(messages), TOKENIZER)
        found.append((np.array(ids[:-1]), np.array(learn[:-1])))  # without the newline after the end
    return found


def token_losses(model: LM, ids: np.ndarray, **how: Any) -> np.ndarray:
    """(L - 1): -log p of every next token of one row."""
    logits = model(mx.array(ids[None, :-1]), **how)[0].astype(mx.float32)
    return np.array(nn.losses.cross_entropy(logits, mx.array(ids[1:])), np.float64)


def expected(model: LM) -> float:
    """Mean loss over all learned tokens, example by example: the definition."""
    total = n = 0.0
    for ids, learn in examples():
        total, n = total + token_losses(model, ids)[learn[1:]].sum(), n + learn[1:].sum()
    return float(total / n)


def measured(model: LM, found: Any) -> float:
    """The same of the rows that a source lays, batch by batch."""
    objective = response.build(model)
    total = n = 0.0
    for batch in found:
        count = float(batch.weights.sum())
        total, n = total + float(objective.measure(arrays(batch)).item()) * count, n + count
    return total / n


def straight(found: Any) -> Any:
    found.seed = None  # every row once, in order
    return found


def test_the_pad_after_a_row_is_not_learned(file: Path, model: LM) -> None:
    """mlx-lm 0.32 (tuner/trainer.py, default_loss): `steps <= lengths` takes one target too many in every row
    that is shorter than its batch, the first pad token."""
    ids, learn = examples()[0]
    for pad in (0, 7):
        padded = np.concatenate([ids, np.full(9, pad)])
        steps = np.arange(1, len(padded))
        naive = (steps >= int(learn.argmax())) & (steps <= len(ids))
        assert padded[1:][naive][-1] == pad, "the naive mask learns the pad"
        batch = straight(source(file, "none", batch=1))
        assert all((b.targets[b.weights > 0] != TOKENIZER.pad_id).all() for b in batch)
    for one in straight(source(file, "none", batch=4)):
        n = (one.segments > 0).sum(axis=1)
        for b in range(4):
            assert not one.weights[b, n[b] :].any()
            assert not n[b] or one.targets[b, n[b] - 1] == TOKENIZER.special["<|im_end|>"]


def test_weights_belong_to_targets_not_to_tokens(file: Path) -> None:
    """A mask that is laid on the inputs is one off: it learns what follows the end, and not how to begin."""
    batches = list(straight(source(file, "none", batch=1)))
    found = {TOKENIZER.decode(b.targets[b.weights > 0].tolist()) for b in batches}
    answers = {chr(97 + n) * size + "<|im_end|>" for n, size in enumerate(SIZES)}
    naive = {TOKENIZER.decode(ids[1:][learn[:-1]].tolist()) for ids, learn in examples()}
    assert found == answers and not naive & answers


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_parts_weigh_by_their_tokens(file: Path, model: LM, parts: int) -> None:
    """mlx-lm and nanochat divide by the number of parts: a part of one short answer weighs as much as a part
    of long ones."""
    batch = source(file, "none")[0]
    objective = response.build(model)
    each = [arrays(batch.rows(i, i + 4 // parts)) for i in range(0, 4, 4 // parts)]
    naive = sum(float(objective.measure(part).item()) for part in each) / parts
    after: dict[int, dict[str, np.ndarray]] = {}
    losses = dict[int, float]()
    for n in (1, parts):
        lm = nano.model(vocab_size=TOKENIZER.vocab_size, max_position_embeddings=256)
        update = Gradient(
            response.build(lm), sgd.build(sgd.Config()), lambda _: 0.1, accumulate=n, clip=0, compiled=False
        )
        losses[n] = update.step(batch, 1)["loss"]
        after[n] = nano.flat(lm)
    assert losses[parts] == pytest.approx(losses[1], rel=1e-5)
    assert abs(naive - losses[1]) > 1e-3 * losses[1], "dividing by the parts is another loss"
    for name, value in after[1].items():
        nano.close(after[parts][name], value, 1e-4)


def test_the_mean_is_over_answers_whatever_the_prompt(tmp_path: Path, model: LM) -> None:
    """Divided by all tokens of a row, an answer counts less the longer its prompt is."""
    naive, ours = [], []
    for prompt in ("q", "q" * 100):
        rows.write(tmp_path / "a.jsonl", [{"prompt": prompt, "completion": "answer"}])
        (batch,) = straight(source(tmp_path / "a.jsonl", "none", batch=1))
        ids = np.array([*batch.tokens[0], 0])[: int((batch.segments > 0).sum()) + 1]
        ids[-1] = batch.targets[0, len(ids) - 2]
        losses = token_losses(model, ids) * batch.weights[0, : len(ids) - 1]
        ours.append(measured(model, [batch]) / (losses.sum() / batch.n_targets))
        naive.append(losses.sum() / batch.n_tokens / (losses.sum() / batch.n_targets))
    assert ours == pytest.approx([1, 1], rel=1e-5)
    assert naive[0] > 3 * naive[1]


def test_nothing_after_the_last_answer_is_learned(file: Path) -> None:
    """A row that is rendered as for generation ends with a header that the model would learn to write."""
    messages = [{"role": "user", "content": "0?"}, {"role": "assistant", "content": "aaa"}]
    text = "".join(span.text for span in chatml.render(messages, add_generation_prompt=True))
    naive = text[text.index("aaa") :]
    assert naive == "aaa<|im_end|>\n<|im_start|>assistant\n"
    for batch in straight(source(file, "none", batch=1)):
        n = batch.n_tokens
        assert batch.targets[0, n - 1] == TOKENIZER.special["<|im_end|>"] and batch.weights[0, n - 1]


@pytest.mark.parametrize("pack", MODES)
def test_no_row_is_dropped_and_the_order_can_be_taken_up(file: Path, pack: str) -> None:
    """mlx-lm (iterate_batches) cuts sorted rows into full batches, drops the rest, and shuffles by the global
    generator: rows are never read, and a resumed run reads other batches."""
    naive = [i for at in range(0, len(SIZES) - 4 + 1, 4) for i in range(at, at + 4)]
    assert len(naive) == 8 < len(SIZES)
    one = source(file, pack)
    steps = 3 * len(one)

    def read(batch: Batch) -> list[str]:
        return [
            TOKENIZER.decode(batch.targets[b][(batch.segments[b] == s) & (batch.weights[b] > 0)].tolist())
            for b in range(len(batch.tokens))
            for s in range(1, int(batch.segments[b].max()) + 1)
        ]

    answers = sorted(chr(97 + n) * size + "<|im_end|>" for n, size in enumerate(SIZES))
    if pack == "bucket":  # its epochs are whole batches, the others' go over their borders
        for epoch in range(3):
            texts = [t for i in range(len(one)) for t in read(one[epoch * len(one) + i])]
            assert sorted(texts) == answers
    single = source(file, pack, batch=1)
    texts = [t for i in range(single.n_rows) for t in read(single[i])]
    assert sorted(texts) == answers
    again = source(file, pack)
    for i in range(steps - 1, steps // 2, -1):  # backwards: nothing but the number counts
        for name in ("tokens", "targets", "weights", "segments", "positions"):
            assert np.array_equal(getattr(again[i], name), getattr(one[i], name))
    orders = {tuple(t for i in range(len(one)) for t in read(one[e * len(one) + i])) for e in range(3)}
    assert len(orders) == 3, "each epoch has an order of its own"


@pytest.mark.parametrize("truncate", ["left", "right", "drop"])
def test_a_row_without_an_answer_is_left_out_and_counted(tmp_path: Path, model: LM, truncate: str) -> None:
    """Cut on the right, a long prompt leaves no answer: 0/0 is NaN and ruins the weights."""
    data = [{"prompt": "p" * 300, "completion": "a"}, {"prompt": "q", "completion": "b" * 300}]
    rows.write(tmp_path / "a.jsonl", [*data, {"prompt": "q", "completion": "fine"}])
    mask = np.zeros(160)
    with np.errstate(invalid="ignore"):
        assert math.isnan(np.sum(mask * 2.0) / mask.sum()), "the naive mean"
    found = source(tmp_path / "a.jsonl", "none", batch=1, truncate=truncate)
    facts = found.describe()
    kept = {"left": (1, 1), "right": (1, 1), "drop": (2, 0)}[truncate]
    assert (facts["dropped"], facts["truncated"]) == kept
    assert all(batch.n_targets for batch in straight(found))
    assert math.isfinite(measured(model, found))
    with pytest.raises(DataError, match=rf"{kept[0]} (answers|examples) are longer than a row"):
        source(tmp_path / "a.jsonl", "none", truncate=truncate, strict=True)
    nothing = Batch(**{**vars(found[0]), "weights": np.zeros_like(found[0].weights)})
    lm = nano.model(vocab_size=TOKENIZER.vocab_size, max_position_embeddings=256)
    before = nano.flat(lm)
    update = Gradient(response.build(lm), sgd.build(sgd.Config()), lambda _: 0.1, compiled=False)
    assert update.step(nothing, 1)["loss"] == 0
    assert all(np.array_equal(value, before[name]) for name, value in nano.flat(lm).items())


@pytest.mark.parametrize("pack", MODES)
def test_rows_however_laid_are_examples_by_themselves(file: Path, model: LM, pack: str) -> None:
    """Without segments and positions, packed examples read each other, and rows padded on the left read the
    padding."""
    found = straight(source(file, pack))
    definition = expected(model)
    assert measured(model, found) == pytest.approx(definition, rel=1e-5)
    together = [
        Batch(**{**vars(b), "segments": (b.segments > 0).astype(np.int32), "positions": _along(b)})
        for b in found
    ]
    if pack in ("sequential", "best_fit"):
        assert abs(measured(model, together) - definition) > 1e-3 * definition
    ids, learn = examples()[0]
    padded = np.concatenate([np.full(20, TOKENIZER.pad_id), ids])
    alone = token_losses(model, ids)[learn[1:]].mean()
    assert abs(token_losses(model, padded)[20:][learn[1:]].mean() - alone) > 1e-3 * alone


def _along(batch: Batch) -> np.ndarray:
    return np.where(batch.segments > 0, np.arange(batch.tokens.shape[1]), 0).astype(np.int32)
