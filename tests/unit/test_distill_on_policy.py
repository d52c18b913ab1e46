"""The student's own answers: laid where the data's were, judged by the teacher alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.data.batch import Batch
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.distill import distillation
from tinygpt.distill.divergence import reverse_kl
from tinygpt.distill.on_policy import Config, OnPolicy, prompts
from tinygpt.distill.signal import LocalTeacher
from tinygpt.infer.engine import Engine
from tinygpt.train.update import arrays


def engine() -> Engine:
    tokenizer = ByteTokenizer()
    return Engine(nano.model(vocab_size=tokenizer.vocab_size), tokenizer)


def packed() -> Batch:
    """A row of two examples with answers of 3 and 2 tokens and 4 places left; a text without a prompt."""
    ids = np.arange(1, 15, dtype=np.int32).reshape(1, 14)
    tokens = np.concatenate([ids, ids + 20])
    segments = np.array([[1] * 6 + [2] * 4 + [0] * 4, [1] * 14], np.int32)
    weights = np.zeros((2, 14), np.float32)
    weights[0, [1, 3, 4, 5, 8, 9]] = 1  # the first has an earlier answer, too
    weights[1] = 1
    positions = np.array([[*range(6), *range(4), 0, 0, 0, 0], [*range(14)]], np.int32)
    return Batch(np.where(segments, tokens, 0).astype(np.int32), tokens + 1, weights, positions, segments)


def test_prompts_end_where_the_last_answer_begins() -> None:
    assert prompts(packed(), 0) == [(0, [1, 2, 3, 4], 3 + 2), (0, [7, 8, 9], 2 + 2)]
    (text,) = prompts(packed(), 1)
    assert text.ids == list(range(21, 28)) and text.room == 8


def test_what_was_written_lies_in_the_rows() -> None:
    batch, writer = packed(), OnPolicy(engine(), Config(share=1.0), seed=3)
    made = writer(batch, 5)
    assert made.tokens.shape == batch.tokens.shape and not made.labelled.any()
    for row in range(2):
        for number, span in enumerate(prompts(batch, row), 1):
            places = (made.segments[row] == number).nonzero()[0]
            tokens, learned = made.tokens[row, places], made.weights[row, places] > 0
            assert tokens[: len(span.ids)].tolist() == span.ids
            assert learned.tolist() == [i >= len(span.ids) - 1 for i in range(len(places))]
            assert learned.sum() <= span.room and made.positions[row, places].tolist() == [
                *range(len(places))
            ]
            assert (made.targets[row, places[:-1]] == tokens[1:]).all()
    assert writer.n_written == (made.weights > 0).sum()
    again = OnPolicy(engine(), Config(share=1.0), seed=3)(batch, 5)
    other = OnPolicy(engine(), Config(share=1.0), seed=3)(batch, 6)
    assert (again.tokens == made.tokens).all() and (other.tokens != made.tokens).any()


def test_an_answer_that_ends_has_its_end() -> None:
    """A model that only knows how to end writes the end token, which is learned."""
    found = engine()
    head: Any = found.model.model.embed_tokens
    head.weight = head.weight * 0
    found.model.model.norm.weight = found.model.model.norm.weight * 0
    found.stop_ids = frozenset(range(found.model.config.vocab_size))  # whatever it writes
    made = OnPolicy(found, Config(share=1.0), seed=0)(packed(), 1)
    assert (made.weights > 0).sum(axis=1).tolist() == [2, 1]
    assert (made.tokens[0, :4] == [1, 2, 3, 4]).all() and made.segments[0, 4] == 2


def test_the_share_is_that_of_the_steps() -> None:
    found, batch = engine(), packed()
    writer = OnPolicy(found, Config(share=0.3), seed=1)
    writer.engine.generate_batch = lambda prompts, _: [  # type: ignore[method-assign]
        type("Answer", (), {"ids": [1], "stop_id": None})() for _ in prompts
    ]
    n = sum(not writer(batch, step).labelled.any() for step in range(1, 401))
    assert 90 <= n <= 150
    with pytest.raises(Exception, match="from 0 to 1"):
        Config(share=2.0)


def test_rows_of_its_own_have_no_labels() -> None:
    found = engine()
    teacher = nano.model(seed=1, vocab_size=found.model.config.vocab_size)
    objective = distillation.build(
        found.model, LocalTeacher(teacher, teacher.config.vocab_size), reverse_kl,
        distillation.Config(alpha=0.5),
    )  # fmt: skip
    made = OnPolicy(found, Config(share=1.0), seed=3)(packed(), 1)
    loss, facts = objective.loss(arrays(made))
    assert facts["nll"].item() == 0 and loss.item() == pytest.approx(0.5 * facts["divergence"].item())
    labelled = OnPolicy(found, Config(share=0.0), seed=3)(packed(), 1)
    assert objective.loss(arrays(labelled))[1]["nll"].item() > 0
