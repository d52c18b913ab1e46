"""Multi-token prediction: the losses of both papers, what counts in them, drafts, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx.utils import tree_flatten

import nano
from tinygpt.core.backend import mx, nn
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.data.batch import Batch
from tinygpt.model import checkpoint, count
from tinygpt.model.frame import Frame
from tinygpt.model.lm import LM
from tinygpt.model.terms import Terms
from tinygpt.runs._held_out import held_out_loss
from tinygpt.train.objective import next_token, response
from tinygpt.train.optim import adamw
from tinygpt.train.update import Gradient, arrays

IDS = nano.tokens(2, 10)
HEADS = ("mtp", "mtp_parallel")
YOCO: dict[str, Any] = {
    "attention": Pick("yoco", {"window": 4, "qk_norm": True}), "position": Pick("alibi"),
    "num_hidden_layers": 4,
}  # fmt: skip
COMPANY: dict[str, dict[str, Any]] = {
    "plain": {},
    "window-shift": {"attention": Pick("gqa", {"window": 4, "key_shift": True})},
    "diff": {"attention": Pick("diff", {"window": 4, "qk_norm": True})},
    "yoco": YOCO,
}


def model(name: str, horizons: int = 3, **changes: Any) -> LM:
    """Its output matrix is smaller than usual, so that probabilities are not all 0 or 1."""
    weight = {"weight": 0.5} if name == "mtp" else {"weight": 0.25}
    return nano.model(
        head=Pick(name, {"horizons": horizons, **weight}), **{"initializer_range": 0.1, **changes}
    )


def normed(x: Any, norm: Any) -> np.ndarray:
    """RMSNorm in float64."""
    x = np.array(x, np.float64)
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-5) * np.array(norm.weight, np.float64)


def whole_frame(lm: LM, length: int) -> Frame:
    frame = Frame(length=length, position=lm.model.embed_positions, stack=lm.model)
    frame.begin(None)
    return frame


def ahead_in_numpy(lm: LM, ids: np.ndarray, n: int) -> list[np.ndarray]:
    """logits (B, L - k, V) of each module k for the first L - k places, the papers' equations in float64.
    Blocks are the model's own: other tests hold them to their formulas."""
    table = np.array(lm.model.embed_tokens.weight, np.float64)
    frame = Frame.of(mx.array(ids))
    h = np.array(lm._states(mx.array(ids), None, frame), np.float64)
    trunk, found = frame.trunk, []
    for k in range(1, n + 1):
        module, length = lm.head.ahead[k - 1], ids.shape[1] - k
        if lm.config.head.name == "mtp":
            joined = np.concatenate(
                [normed(h[:, :length], module.hnorm), normed(table[ids[:, k:]], module.enorm)], axis=-1
            )
            inside = joined @ np.array(module.eh_proj.weight, np.float64).T
            block = module.block(mx.array(inside.astype(np.float32)), whole_frame(lm, length))
            h = np.array(block, np.float64)
            found.append(normed(h, module.norm) @ table.T)
        else:
            assert trunk is not None
            block = module.block(trunk[:, :length], whole_frame(lm, length))
            found.append(normed(block, lm.model.norm) @ table.T)
    return found


def minus_log_p(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    log_z = np.log(np.exp(logits).sum(axis=-1))
    return log_z - np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]


@pytest.mark.parametrize("changes", [{}, YOCO], ids=["plain", "yoco"])
@pytest.mark.parametrize("name", HEADS)
def test_the_loss_is_the_papers(name: str, changes: dict[str, Any]) -> None:
    """DeepSeek-V3: lambda / D sum_k CE_k, each CE T - k places divided by T; Gloeckle et al.: their sum."""
    lm, targets = model(name, **changes), np.roll(IDS, -1, axis=1)
    terms = Terms()
    lm.losses(mx.array(IDS), mx.array(targets), terms=terms)
    each = [
        minus_log_p(z, targets[:, k:]).sum() / targets.size
        for k, z in enumerate(ahead_in_numpy(lm, IDS, 2), start=1)
    ]
    for k, value in enumerate(each, start=2):
        assert terms.facts()[f"mtp_{k}"].item() == pytest.approx(value, rel=1e-5)
    wanted = 0.5 / 2 * sum(each) if name == "mtp" else 0.25 * sum(each)
    assert terms.loss().item() == pytest.approx(wanted, rel=1e-5)  # type: ignore[union-attr]


@pytest.mark.parametrize("changes", [{}, YOCO], ids=["plain", "yoco"])
@pytest.mark.parametrize("name", HEADS)
def test_documents_masks_and_padding_count_as_where_the_target_stands(
    name: str, changes: dict[str, Any]
) -> None:
    lm, targets = model(name, **changes), np.roll(IDS, -1, axis=1)
    weights = np.array([[1, 0, 1, 1, 0, 1, 1, 0.5, 1, 0], [0, 0, 1, 1, 1, 1, 0, 0, 0, 0]], np.float32)
    segments = np.array([[1, 1, 1, 1, 1, 2, 2, 2, 2, 2], [1, 1, 1, 1, 1, 1, 1, 0, 0, 0]], np.int32)
    positions = np.array([[*range(5), *range(5)], [*range(7), 0, 0, 0]], np.int32)
    terms = Terms(mx.array(weights), z_loss=0.5)
    lm.losses(
        mx.array(IDS),
        mx.array(targets),
        positions=mx.array(positions),
        segments=mx.array(segments),
        terms=terms,
    )
    sums, z_sums = np.zeros(3), np.zeros(3)
    for b, a, e in ((0, 0, 5), (0, 5, 10), (1, 0, 7)):  # each document as if alone
        alone, its = IDS[b : b + 1, a:e], targets[b : b + 1, a:e]
        states = np.array(lm.hidden(mx.array(alone)), np.float64)
        logits = [
            states @ np.array(lm.model.embed_tokens.weight, np.float64).T,
            *ahead_in_numpy(lm, alone, 2),
        ]
        for k, z in enumerate(logits):
            w = weights[b, a + k : e]
            sums[k] += (minus_log_p(z, its[:, k:])[0] * w).sum()
            z_sums[k] += (np.log(np.exp(z).sum(axis=-1))[0] ** 2 * w).sum()
    facts = terms.facts()
    for k in (1, 2):
        assert facts[f"mtp_{k + 1}"].item() == pytest.approx(sums[k] / weights.sum(), rel=1e-5)
    share = 0.25
    wanted = share * sums[1:].sum() + 0.5 * (z_sums[0] + share * z_sums[1:].sum())
    assert terms.loss().item() == pytest.approx(wanted / weights.sum(), rel=1e-5)  # type: ignore[union-attr]
    assert facts["z"].item() == pytest.approx(z_sums.mean() / weights.sum(), rel=1e-5)


@pytest.mark.parametrize("name", HEADS)
def test_parts_of_a_batch_add_up(name: str) -> None:
    """With uneven rows; a mean over what each horizon counts would not."""
    batch = nano.batch(8, 12, real=[12, 3, 7, 12, 5, 1, 9, 12])
    found = []
    for parts in (1, 8):
        update = Gradient(
            response.build(model(name), response.Config(z_loss=0.01)), adamw.build(adamw.Config()),
            lambda step: 1e-3, accumulate=parts, compiled=False,
        )  # fmt: skip
        found.append((update.step(batch, 1), update.state()))
    for fact, value in found[0][0].items():
        assert found[1][0][fact] == pytest.approx(value, rel=1e-4), fact
    assert {"mtp_2", "mtp_3", "z"} <= set(found[0][0])
    for n, m in found[0][1].items():
        if n.startswith("m."):
            nano.close(found[1][1][n], m, 5e-5)


def greedy_in_full(lm: LM, ids: np.ndarray) -> np.ndarray:
    """The guesses, each from the whole text and the guesses before it, without any cache."""
    text = np.concatenate([ids, np.array(lm(mx.array(ids), last=1)).argmax(axis=-1)], axis=1)
    for k in range(1, lm.config.head.options.horizons):
        if lm.config.head.name == "mtp":
            logits = ahead_in_numpy(lm, text, k)[-1][:, ids.shape[1] - 1]
        else:  # the trunk knows no guesses
            frame = Frame.of(mx.array(ids))
            lm._states(mx.array(ids), None, frame)
            made = lm.head.ahead[k - 1].block(frame.trunk, whole_frame(lm, ids.shape[1]))
            logits = np.array(lm.output(lm.model.finish(made)))[:, -1]
        text = np.concatenate([text, logits.argmax(axis=-1)[:, None]], axis=1)
    return text[:, ids.shape[1] :]


@pytest.mark.parametrize("changes", COMPANY.values(), ids=COMPANY)
@pytest.mark.parametrize("name", HEADS)
def test_drafts_are_the_modules_greedy_choices(name: str, changes: dict[str, Any]) -> None:
    lm = model(name, horizons=4, initializer_range=0.25, **changes)
    cache, drafts = lm.make_cache(), lm.head.make_drafts()
    for a, b in ((0, 1), (1, 2), (2, 6), (6, 7), (7, 10)):
        wanted = greedy_in_full(lm, IDS[:, :b])
        assert wanted.shape == (2, 4)
        assert np.array_equal(np.array(lm.draft(mx.array(IDS[:, a:b]), cache, drafts)), wanted), (a, b)
        assert np.array_equal(np.array(lm.draft(mx.array(IDS[:, :b]))), wanted), "and without caches"


def test_only_heads_that_look_ahead_draft() -> None:
    with pytest.raises(ConfigError, match="head 'linear' predicts one token"):
        nano.model().draft(mx.array(IDS))


@pytest.mark.parametrize("name", HEADS)
def test_senseless_knobs_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="horizons must be at least 2, got 1"):
        model(name, horizons=1)
    with pytest.raises(ConfigError, match="weight must be positive"):
        nano.config(head=Pick(name, {"weight": 0.0}))
    with pytest.raises(ConfigError, match="z_loss must not be negative"):
        next_token.Config(z_loss=-1.0)


@pytest.mark.parametrize("name", HEADS)
def test_what_the_modules_add_is_counted_and_saved(name: str, tmp_path: Path) -> None:
    plain, lm = nano.config(), model(name)
    d, block = (
        32,
        sum(int(np.prod(s)) for n, s in count.tensors(lm).items() if n.startswith("model.layers.0.")),
    )
    extra = 2 * (block + (3 * d + 2 * d * d if name == "mtp" else 0))
    assert count.parameters(lm.config) == count.parameters(plain) + extra
    matrices = extra - 2 * 2 * d - (2 * 3 * d if name == "mtp" else 0)
    flops = 6 * (matrices + 2 * 64 * d) + 12 * 2 * 32 * 128  # two blocks, two predictions
    assert count.flops_per_token(lm.config, 128) == count.flops_per_token(plain, 128) + flops
    loaded = checkpoint.load(checkpoint.save(tmp_path / "m", lm))
    assert loaded.config.head == lm.config.head
    assert np.array_equal(np.array(loaded.model.draft(mx.array(IDS))), np.array(lm.draft(mx.array(IDS))))


@pytest.mark.parametrize("name", HEADS)
def test_beside_yoco_the_modules_have_plain_attention_of_their_own(name: str, tmp_path: Path) -> None:
    lm = model(name, **YOCO)
    blocks = [module.block.self_attn for module in lm.head.ahead]
    assert [(type(a).__name__, a.window) for a in blocks] == 2 * [("GroupedQueryAttention", 0)]
    own = {n.split("self_attn.")[1] for n in nano.flat(lm) if ".block.self_attn." in n}
    assert own == {f"{n}_proj.weight" for n in "qkvo"} | {"q_norm.weight", "k_norm.weight"}
    work, plain = (
        count.flops_per_token(c, 64) - count.flops_per_token(c, 0) for c in (lm.config, nano.config(**YOCO))
    )
    assert work - plain == 2 * 12 * 32 * 64
    ids = mx.array(IDS)
    gradients = nn.value_and_grad(lm, lambda m: _with_terms(m, ids))(lm)[1]
    assert not {n for n, g in tree_flatten(gradients) if mx.abs(g).max().item() < 1e-7}
    loaded = checkpoint.load(checkpoint.save(tmp_path / "m", lm)).model
    assert np.array_equal(np.array(loaded.draft(ids)), np.array(lm.draft(ids)))


def _with_terms(lm: LM, ids: mx.array) -> mx.array:
    terms = Terms()
    return lm.losses(ids[:, :-1], ids[:, 1:], terms=terms).mean() + terms.loss()


def test_a_balanced_mixture_inside_a_module_is_balanced() -> None:
    """Its bias moves by what it measures, under the name that it has in the head."""
    lm = model("mtp", mlp=Pick("moe", {"experts": 4, "bias_rate": 0.01}))
    names = [n for n in nano.flat(lm) if n.endswith("balance_bias")]
    assert len(names) == 4 and sum(n.startswith("head.") for n in names) == 2
    before = nano.flat(lm)
    Gradient(next_token.build(lm), adamw.build(adamw.Config()), lambda step: 1e-3, compiled=False).step(
        nano.batch(2, 12), 1
    )
    after = nano.flat(lm)
    for n in names:
        assert np.abs(after[n] - before[n]).max() == pytest.approx(0.01, rel=0.1), n


def test_evaluation_reports_the_cross_entropy_alone() -> None:
    lm, source = model("mtp"), [nano.batch(4, 8, real=[8, 5, 8, 2])]
    trained = next_token.build(lm, next_token.Config(z_loss=1.0))
    assert held_out_loss(trained, source, 0)(1)["loss"] < trained.loss(arrays(source[0]))[0].item() - 1
    plain = nano.model(initializer_range=0.1)
    plain.update({"model": lm.model.parameters()})
    wanted = held_out_loss(next_token.build(plain), source, 0)(1)["loss"]
    assert held_out_loss(trained, source, 0)(1)["loss"] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("head", ["linear", "pointer"])
def test_z_loss_is_the_mean_square_of_log_z(head: str) -> None:
    """Of the vocabulary's softmax; weights and padding count as in the loss."""
    lm = nano.model(head=Pick(head), initializer_range=0.1)
    batch: Batch = nano.batch(3, 8, real=[8, 5, 0], prompt=2)
    sizes = arrays(batch)
    plain, _ = response.build(lm).loss(sizes)
    value, facts = response.build(lm, response.Config(z_loss=0.25)).loss(sizes)
    states = lm.hidden(sizes["tokens"], positions=sizes["positions"], segments=sizes["segments"])
    logits = np.array(states, np.float64) @ np.array(lm.model.embed_tokens.weight, np.float64).T
    squares = np.log(np.exp(logits).sum(axis=-1)) ** 2
    wanted = (squares * batch.weights).sum() / batch.weights.sum()
    assert facts["z"].item() == pytest.approx(wanted, rel=1e-5)
    assert value.item() == pytest.approx(plain.item() + 0.25 * wanted, rel=1e-5)
    assert facts["loss"].item() == pytest.approx(plain.item(), rel=1e-6)
