"""Drawing tokens: keyed, in proportion, never a token that a rule removed."""

from __future__ import annotations

from collections import Counter

import pytest

from tinygpt.core.backend import mx
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.sampler import Sampler, draw, uniform


def test_uniform_is_a_function_of_seed_and_step() -> None:
    assert uniform(1, 2) == uniform(1, 2) != uniform(2, 1)
    draws = [uniform(seed, step) for seed in range(40) for step in range(50)]
    assert all(0 <= u < 1 for u in draws)
    assert sum(draws) / len(draws) == pytest.approx(0.5, abs=0.02)
    # Neighbouring seeds share nothing: no stream is another one shifted.
    assert len(set(draws)) == len(draws)
    assert uniform(0, 0) == pytest.approx(0.37433815002441406)  # fixed: old seeds must keep their texts


def test_draws_follow_the_probabilities() -> None:
    p = [0.5, 0.3, 0.0, 0.2]
    n = 2000
    logits_BV = mx.broadcast_to(mx.log(mx.array(p)), (n, 4))
    counts = Counter(draw(logits_BV, mx.array([(i + 0.5) / n for i in range(n)])).tolist())
    assert [counts[i] / n for i in range(4)] == pytest.approx(p, abs=2 / n)


def test_the_ends_of_the_range_never_pick_a_removed_token() -> None:
    logits_BV = mx.array([[-mx.inf, 0.3, -0.2, -mx.inf]] * 2)
    assert draw(logits_BV, mx.array([0.0, 1 - 2**-23])).tolist() == [1, 2]


def _sampler(configs: list[SampleConfig], seeds: list[int], prompts: list[list[int]]) -> Sampler:
    return Sampler(configs, seeds, prompts, 9)


def test_rows_draw_as_if_they_were_alone_each_under_its_own_config() -> None:
    configs = [
        SampleConfig(temperature=1.3, top_k=6, repetition_penalty=1.2, frequency_penalty=0.3),
        SampleConfig(temperature=0, presence_penalty=0.8),
        SampleConfig(temperature=0.7, top_p=0.8, min_p=0.05, logit_bias=("4=2",)),
        SampleConfig(temperature=1.3, top_k=3),
        SampleConfig(temperature=1.0),
        SampleConfig(temperature=0.9, xtc_probability=0.5, xtc_threshold=0.05, typical_p=0.9),
        SampleConfig(temperature=1.1, xtc_probability=0.3, top_n_sigma=1.5),
    ]
    prompts, seeds = [[1, 2], [3], [3], [5, 5], [6], [7], [7]], [11, 12, 11, 13, 14, 15, 16]
    together = _sampler(configs, seeds, prompts)
    alone = [_sampler([c], [s], [p]) for c, s, p in zip(configs, seeds, prompts)]
    written: list[list[int]] = [[] for _ in seeds]
    for step in range(8):
        logits_BV = mx.random.normal((7, 9), key=mx.random.key(step))
        expected = [one(logits_BV[i : i + 1], [step]).item() for i, one in enumerate(alone)]
        found = together(logits_BV, [step] * 7).tolist()
        assert found == expected
        for row, token in zip(written, found):
            row.append(token)
    # Made anew from what was written, for some of the rows, it goes on in the same way.
    kept = [2, 0, 6, 5]
    again = Sampler(
        [configs[i] for i in kept], [seeds[i] for i in kept], [prompts[i] for i in kept], 9,
        [written[i] for i in kept],
    )  # fmt: skip
    logits_BV = mx.random.normal((7, 9), key=mx.random.key(99))
    expected = [alone[i](logits_BV[i : i + 1], [8]).item() for i in kept]
    assert again(logits_BV[mx.array(kept)], [8] * 4).tolist() == expected


def test_greedy_obeys_penalties_and_ignores_the_rest() -> None:
    logits_BV = mx.array([[1.0, 3.0, 2.9]])
    plain = Sampler([SampleConfig(temperature=0, top_p=0.1, min_p=0.9)], [0], [[0]], 3)
    assert plain(logits_BV, [0]).item() == 1 and not plain.rules and plain.history is None
    punished = Sampler([SampleConfig(temperature=0, presence_penalty=0.5)], [0], [[0]], 3)
    assert [punished(logits_BV, [t]).item() for t in range(3)] == [1, 2, 1]


def test_the_draws_of_xtc_are_the_rows_own() -> None:
    config = SampleConfig(temperature=1.0, xtc_probability=0.5)
    logits_BV = mx.log(mx.array([[0.6, 0.25, 0.15]]))
    one = Sampler([config], [7], [[0]], 3)
    assert one.history is not None and not hasattr(one.history, "counts_BV"), "nothing is counted for it"
    found = []
    for step in range(30):
        kept = [z > -1e9 for z in one.ruled(logits_BV)[0].tolist()]
        assert kept == ([False, False, True] if uniform(7, step, "xtc") < 0.5 else [True] * 3)
        found.append(kept[0])
        one(logits_BV, [step])
    assert 5 < sum(found) < 25
    greedy = Sampler([SampleConfig(temperature=0, xtc_probability=1.0)], [7], [[0]], 3)
    assert greedy(logits_BV, [0]).item() == 0, "at temperature 0 no second token reaches the threshold"


def test_only_what_is_allowed_comes() -> None:
    allowed_BV = mx.array([[True, False, True]])
    for config in (SampleConfig(temperature=0), SampleConfig(top_k=1), SampleConfig(temperature=2.0)):
        sampler = Sampler([config], [0], [[0]], 3)
        found = {sampler(mx.array([[1.0, 9.0, 0.5]]), [t], allowed_BV).item() for t in range(30)}
        assert found <= {0, 2} and (config.greedy or len(found) == 2)


def test_in_16_bits_too_a_neighbour_changes_nothing() -> None:
    """A penalty that rounds to 16 bits makes ties, and the first of equals wins."""
    plain, drawn = SampleConfig(temperature=0, repetition_penalty=1.3), SampleConfig(temperature=1.0)
    other = SampleConfig(temperature=0, repetition_penalty=1.2)
    for low in range(128, 255):
        logits_BV = mx.array([[low / 128, (low + 1) / 128, 0.0]]).astype(mx.bfloat16)
        alone = Sampler([plain], [1], [[0, 1]], 3)(logits_BV, [0]).item()
        for neighbour in (drawn, other):
            both = Sampler([plain, neighbour], [1, 2], [[0, 1]] * 2, 3)
            assert both(mx.repeat(logits_BV, 2, axis=0), [0, 0])[0].item() == alone


def test_the_tail_of_a_large_vocabulary_is_drawn() -> None:
    """150,000 tokens of 2e-8 each after one of 0.997: no sum of 32 bits near 1 sees a single one of them."""
    p_BV = mx.concatenate([mx.array([[0.997]]), mx.full((1, 150_000), 0.003 / 150_000)], axis=1)
    for share in (0.01, 0.5, 0.99):
        token = draw(mx.log(p_BV), mx.array([0.997 + 0.003 * share])).item()
        assert token == pytest.approx(150_000 * share, abs=1500)
