"""Positions against their papers' formulas, beyond the trained context, compiled, and where refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import compile_works, mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.infer import decode
from tinygpt.model.attention import gqa
from tinygpt.model.config import POSITION
from tinygpt.model.frame import Frame
from tinygpt.model.lm import LM

IDS = nano.tokens(2, 90)


def run(model: LM, ids: np.ndarray, cache: list[Any] | None = None, **how: Any) -> np.ndarray:
    return np.array(model(mx.array(ids), cache, **how))


def place(name: str, length: int = 1, **options: Any) -> tuple[Any, Frame]:
    """A position module of a config with one head of 32 features, and a frame of so many tokens."""
    sizes = {"num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 4096}
    module = POSITION.load(name).build(nano.config(position=Pick(name, options), **sizes))
    return module, Frame(length=length, position=module)


def angles(name: str, n: int, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Radians that each of 16 pairs turns at position n, and how much longer it becomes."""
    module, frame = place(name, **options)
    x = np.zeros((1, 1, 1, 32), np.float32)
    x[..., :16] = 1  # the first of each pair
    y = np.array(module.rotate(mx.array(x), n, frame))[0, 0, 0]
    return np.arctan2(y[16:], y[:16]), np.hypot(y[16:], y[:16])


def frequencies(name: str, theta: float, **options: Any) -> np.ndarray:
    """The formulas of the papers and of Llama 3's release, pair by pair."""
    plain = theta ** (-np.arange(0, 32, 2, dtype=np.float64) / 32)
    found = []
    for j, f in enumerate(plain):
        factor, n = options["factor"], options.get("original_max_position_embeddings", 0)
        wavelength = 2 * math.pi / f
        if name == "rope_linear":
            found.append(f / factor)
        elif name == "rope_llama3":
            low, high = options["low_freq_factor"], options["high_freq_factor"]
            if wavelength < n / high:
                found.append(f)
            elif wavelength > n / low:
                found.append(f / factor)
            else:
                smooth = (n / wavelength - low) / (high - low)
                found.append((1 - smooth) * f / factor + smooth * f)
        else:
            ends = [
                32 * math.log(n / (turns * 2 * math.pi)) / (2 * math.log(theta))
                for turns in (options["beta_fast"], options["beta_slow"])
            ]
            if options.get("truncate", True):
                ends = [math.floor(ends[0]), math.ceil(ends[1])]
            ramp = np.clip((j - ends[0]) / (ends[1] - ends[0]), 0, 1)
            found.append(f / factor * ramp + f * (1 - ramp))
    return np.array(found)


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.5, "high_freq_factor": 5.0}
YARN = {"factor": 4.0, "beta_fast": 20.0, "beta_slow": 2.0}
SCALED = [
    ("rope_linear", {"factor": 2.5}),
    ("rope_llama3", {**LLAMA3, "original_max_position_embeddings": 600}),
    ("rope_yarn", {**YARN, "original_max_position_embeddings": 1000}),
    ("rope_yarn", {**YARN, "original_max_position_embeddings": 1000, "truncate": False}),
]


@pytest.mark.parametrize(("name", "options"), SCALED)
@pytest.mark.parametrize("theta", [10000.0, 700.0])
def test_scaled_pairs_turn_as_the_formula_says(name: str, options: dict[str, Any], theta: float) -> None:
    wanted = frequencies(name, theta, **options)
    plain = theta ** (-np.arange(0, 32, 2) / 32)
    for n in (1, 3):
        turned, _ = angles(name, n, theta=theta, **options)
        close = np.angle(np.exp(1j * (turned - n * wanted)))
        assert np.abs(close).max() < 2e-6
    assert (wanted < plain).any()
    if name != "rope_linear":  # both ends of the blend, and something between
        ratio = wanted / plain
        assert ratio[0] == 1 and ratio[-1] == pytest.approx(1 / options["factor"])
        assert ((ratio > 1.01 / options["factor"]) & (ratio < 0.99)).any()


def test_yarn_sharpens_scores() -> None:
    """sqrt(1/t) = 0.1 ln(s) + 1 on queries and on keys (section 3.4), unless it is given."""
    for options, gain in (({"factor": 4.0}, 0.1 * math.log(4) + 1), ({"attention_factor": 1.7}, 1.7)):
        _, longer = angles("rope_yarn", 5, **options)
        assert np.abs(longer - gain).max() < 1e-6
    assert np.abs(angles("rope_llama3", 5)[1] - 1).max() < 1e-6


def test_the_trained_context_follows_from_the_factor() -> None:
    for name in ("rope_yarn", "rope_llama3"):
        config = nano.config(position=Pick(name, {"factor": 4.0}), max_position_embeddings=128)
        assert config.position.options.original_max_position_embeddings == 32
        given = {"factor": 4.0, "original_max_position_embeddings": 32}
        assert config == nano.config(position=Pick(name, given), max_position_embeddings=128)


def dynamic(trained: int = 20, layers: int = 2, **changes: Any) -> LM:
    pick = Pick("rope_dynamic", {"factor": 3.0})
    return nano.model(
        position=pick, max_position_embeddings=trained, num_hidden_layers=layers, head_dim=16, **changes
    )


def as_if(model: LM, n: int, **changes: Any) -> LM:
    """The same weights with plain RoPE at the base that a text of n tokens asks for (paper, section 3.3)."""
    trained = model.config.max_position_embeddings
    stretch = max(1.0, 3.0 * n / trained - 2.0)
    layers = model.config.num_hidden_layers
    pick = Pick("rope", {"theta": 10000.0 * stretch ** (16 / 14)})
    other = nano.model(position=pick, num_hidden_layers=layers, head_dim=16, **changes)
    other.update(model.parameters())
    return other


@pytest.mark.parametrize("n", [5, 20, 21, 50, 90])
def test_dynamic_scaling_takes_its_base_from_the_length(n: int) -> None:
    model = dynamic()
    nano.close(run(model, IDS[:, :n]), run(as_if(model, n), IDS[:, :n]), 5e-6)
    if n > 20:
        other = run(as_if(model, 20), IDS[:, :n])
        assert np.abs(run(model, IDS[:, :n]) - other).max() > 1e-3 * np.abs(other).max()
    assert model.config.reach == 60


def test_dynamic_scaling_in_a_cache_turns_all_keys_anew() -> None:
    """One layer: every pass is what one pass over the whole text would give for its tokens."""
    model = dynamic(layers=1)
    cache = model.make_cache()
    for a, b in ((0, 12), (12, 19), (19, 20), (20, 21), (21, 50), (50, 51), (51, 90)):
        part = run(model, IDS[:, a:b], cache)
        nano.close(part, run(as_if(model, b), IDS[:, :b])[:, a:], 5e-6)


def test_dynamic_scaling_gives_each_row_its_own_base() -> None:
    """Rows that are padded at the left, before and beyond the trained context."""
    model = dynamic(layers=1)
    lengths, total = [18, 40], 40
    prompts = np.zeros((2, total), np.int32)
    for i, n in enumerate(lengths):
        prompts[i, total - n :] = IDS[i, :n]
    cache = model.make_cache(left_padding=[total - n for n in lengths])
    first = run(model, prompts, cache)
    steps = [np.stack([IDS[i, n + t : n + t + 1] for i, n in enumerate(lengths)]) for t in range(4)]
    later = [run(model, step, cache) for step in steps]
    for i, n in enumerate(lengths):
        nano.close(first[i, total - n :], run(as_if(model, n), IDS[i : i + 1, :n])[0], 5e-6)
        for t in range(4):
            m = n + t + 1
            nano.close(later[t][i], run(as_if(model, m), IDS[i : i + 1, :m])[0, -1:], 5e-6)


def test_dynamic_scaling_gives_each_packed_document_its_own_base() -> None:
    model = dynamic()
    lengths = (15, 30, 25)
    row = np.concatenate([IDS[0, :15], IDS[1, :30], IDS[0, 30:55], [0, 0]])[None]
    segments = np.repeat([1, 2, 3, 0], [*lengths, 2])[None].astype(np.int32)
    packed = run(model, row, segments=mx.array(segments))
    for start, n in zip((0, 15, 45), lengths):
        alone = run(as_if(model, n), row[:, start : start + n])
        nano.close(packed[0, start : start + n], alone[0], 5e-6)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[] if n in ("rope", "rope_dynamic") else pytest.mark.wide)
        for n in POSITION.names()
    ],
)
def test_compiled_steps_equal_the_uncached_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "BLOCK", 4)  # several growths in a short text
    model = nano.model(position=Pick(name))
    ids = IDS[0, :30].tolist()
    decoder = decode.Decoder(model, [0], decode.fixed_step(model))
    decoder.read(mx.array([ids[:3]]))
    logits = [decoder.read(mx.array([ids[3:5]]), last=1)[:, 0]]
    logits += [decoder.step(mx.array([id])) for id in ids[5:]]
    nano.close(mx.concatenate(logits), run(model, IDS[:1, :30])[0, 4:], 5e-6)
    assert decoder.fixed is not None or name == "learned" or not compile_works()


def test_dynamic_scaling_in_compiled_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "BLOCK", 4)
    model = dynamic(layers=1)
    ids = IDS[0, :40].tolist()
    decoder = decode.Decoder(model, [0], decode.fixed_step(model))
    decoder.read(mx.array([ids[:15]]))
    for n in range(16, 41):
        got = decoder.step(mx.array([ids[n - 1]]))
        nano.close(got, run(as_if(model, n), IDS[:1, :n])[:, -1], 5e-6)


def published_rates(n: int) -> list[float]:
    """The rule of the paper's appendix for any number of heads, as its authors wrote it."""

    def of_a_power(n: int) -> list[float]:
        first = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [first * first**i for i in range(n)]

    if math.log2(n).is_integer():
        return of_a_power(n)
    below = 2 ** math.floor(math.log2(n))
    return of_a_power(below) + published_rates(2 * below)[0::2][: n - below]


@pytest.mark.parametrize("heads", [1, 2, 3, 5, 6, 8, 12, 16, 17])
def test_alibi_lowers_scores_by_distance(heads: int) -> None:
    config = nano.config(position=Pick("alibi"), num_attention_heads=heads, num_key_value_heads=1, head_dim=4)
    model = LM(config)
    frame = Frame(length=3, held=4, position=model.model.embed_positions)
    bias = np.array(frame.bias(7))
    assert bias.shape == (1, heads, 3, 7) and frame.bias(7) is frame.bias(7)
    for h, rate in enumerate(published_rates(heads)):
        for i in range(3):
            assert bias[0, h, i, : 5 + i] == pytest.approx([-rate * (4 + i - j) for j in range(5 + i)])
    # In a compiled step the buffer is longer than the text; the newest token is at no distance of itself.
    longer = Frame(length=1, held=mx.array([4]), position=model.model.embed_positions).bias(10)
    assert longer is not None and np.abs(np.array(longer)[..., 4]).max() == 0
    if heads == 8:
        assert published_rates(8) == [2**-h for h in range(1, 9)]


@pytest.mark.parametrize("name", ["alibi", "nope"])
def test_attention_without_turning_equals_the_formula(name: str) -> None:
    """softmax(q k / sqrt(K) + m (j - i)) v in float64, six query heads on two key heads."""
    H, G, K, L = 6, 2, 8, 40
    config = nano.config(position=Pick(name), num_attention_heads=H, num_key_value_heads=G, head_dim=K)
    attention, module = gqa.build(config, 0), POSITION.load(name).build(config)
    x = np.random.default_rng(0).normal(size=(1, L, 32))
    frame = Frame(length=L, position=module)
    got = np.array(attention(mx.array(x.astype(np.float32)), frame))
    weights = {n: p["weight"] for n, p in attention.parameters().items()}
    q, k, v, o = (np.array(weights[f"{n}_proj"], np.float64) for n in "qkvo")
    i, j = np.arange(L)[:, None], np.arange(L)
    heads = []
    for h in range(H):
        g = h // (H // G)
        qh, kh, vh = x[0] @ q[h * K : (h + 1) * K].T, *(x[0] @ m[g * K : (g + 1) * K].T for m in (k, v))
        rate = published_rates(H)[h] if name == "alibi" else 0.0
        s = np.where(j <= i, qh @ kh.T / math.sqrt(K) - rate * (i - j), -np.inf)
        p = np.exp(s - s.max(axis=1, keepdims=True))
        heads.append(p / p.sum(axis=1, keepdims=True) @ vh)
    nano.close(got[0], np.concatenate(heads, axis=1) @ o.T, 1e-5)


def test_without_positions_only_the_set_before_matters() -> None:
    """One layer, no positions: what came earlier may be shuffled."""
    model = nano.model(position=Pick("nope"), num_hidden_layers=1)
    shuffled = IDS[:, :30].copy()
    shuffled[:, :29] = shuffled[:, :29][:, ::-1]
    nano.close(run(model, shuffled)[:, -1], run(model, IDS[:, :30])[:, -1], 1e-5)
    alibi = nano.model(position=Pick("alibi"), num_hidden_layers=1)
    assert np.abs(run(alibi, shuffled)[:, -1] - run(alibi, IDS[:, :30])[:, -1]).max() > 1e-2


@pytest.mark.parametrize("name", ["alibi", "rope_dynamic"])
def test_attention_must_have_a_place_for_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(gqa.GroupedQueryAttention, "heeds_position")
    with pytest.raises(ConfigError, match=f"position '{name}' works inside attention, and attention 'gqa'"):
        LM(nano.config(position=Pick(name)))
    LM(nano.config())


class Forgetful:
    """A cache that gives back the last four keys only."""

    offset, held, left_padding = 6, 6, None

    def make_mask(self, length: int, **_: Any) -> None:
        return None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        before = mx.zeros((*keys.shape[:2], 3, keys.shape[3]))
        return mx.concatenate([before, keys], axis=2), mx.concatenate([before, values], axis=2)


@pytest.mark.parametrize("name", ["alibi", "rope_dynamic"])
def test_a_cache_that_forgets_is_refused(name: str) -> None:
    model = nano.model(position=Pick(name))
    with pytest.raises(ConfigError, match="a cache that keeps every token in its place"):
        model(mx.array([[3]]), [Forgetful(), Forgetful()])


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("rope", {"theta": 1.0}, "must be above 1, got 1"),
        ("rope_linear", {"factor": 0.5}, "must be at least 1, got 0.5"),
        ("rope_dynamic", {"factor": 0}, "must be at least 1, got 0"),
        ("rope_llama3", {"low_freq_factor": 4.0}, r"low_freq_factor \(4\) must be positive and below"),
        ("rope_llama3", {"original_max_position_embeddings": -3}, "must be at least 1, got -3"),
        ("rope_yarn", {"beta_slow": 40.0}, r"beta_slow \(40\) must be positive and not above beta_fast"),
        ("rope_yarn", {"attention_factor": -1.0}, "attention_factor must not be negative"),
        ("rope", {"share": 0.0}, "share of turned features must be above 0 and at most 1, got 0"),
        ("rope_longrope", {"long_factor": [1.0, 0.0]}, "short_factor and long_factor must be positive"),
        ("rope_longrope", {"factor": -1.0}, "position.factor must not be negative"),
        ("alibi", {"rate": 1}, "'alibi' has no options"),
    ],
)
def test_options_that_cannot_be(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        nano.config(position=Pick(name, options))


def test_heads_that_cannot_be_turned_are_refused() -> None:
    with pytest.raises(ConfigError, match="pairs of features, and head_dim is 5"):
        LM(nano.config(head_dim=5))
    with pytest.raises(ConfigError, match="head_dim is 12, of which 3 are turned"):
        LM(nano.config(head_dim=12, position=Pick("rope", {"share": 0.25})))
    with pytest.raises(ConfigError, match="long_factor has 3 values for 4 turned pairs"):
        LM(nano.config(position=Pick("rope_longrope", {"long_factor": [1.0, 2.0, 3.0]})))
    with pytest.raises(ConfigError, match="head_dim of at least 4, got 2"):
        LM(nano.config(head_dim=2, position=Pick("rope_dynamic")))
    LM(nano.config(head_dim=5, position=Pick("alibi")))
