"""Preference losses are those of TRL: on random numbers, and on a model's own from logits of transformers."""

from __future__ import annotations

import collections
import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import nano
from tinygpt.core.backend import mx
from tinygpt.core.family import Family
from tinygpt.data.batch import PairBatch
from tinygpt.model import checkpoint
from tinygpt.train.preference import _objective
from tinygpt.train.preference._scores import Labelled, Pairs
from tinygpt.train.state import arrays

pytestmark = pytest.mark.parity
LOSSES = Family("tinygpt.train.preference", verb="losses")
N = 9  # answers of each kind
READ = ("tokens", "targets", "weights", "positions", "segments")
# Our knobs, and what TRL calls the same.
DPO: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("dpo", {}, {"loss_types": ["sigmoid"]}),
    ("dpo", {"beta": 0.3, "label_smoothing": 0.2, "robust": True}, {"loss_types": ["robust"]}),
    ("ipo", {"beta": 0.2}, {"loss_types": ["ipo"]}),
]
CPO: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("simpo", {"gamma": 0.7}, {"loss_type": "simpo", "simpo_gamma": 0.7}),
    ("cpo", {"beta": 0.2}, {"loss_type": "sigmoid"}),
]


def trainer(module: str, name: str) -> Any:
    nano.require("trl")
    return getattr(importlib.import_module(f"trl.{module}"), name)


class Answers:
    """What both sides read: per-token log p of chosen and rejected answers (2N, L), and where answers are."""

    def __init__(self, log_p: np.ndarray, mask: np.ndarray, reference: np.ndarray) -> None:
        self.log_p, self.mask, self.reference = log_p * mask, mask, reference
        self.n = len(mask) // 2

    @staticmethod
    def random() -> Answers:
        g = np.random.default_rng(0)
        lengths = g.integers(2, 9, 2 * N)
        mask = (np.arange(14) >= 4) & (np.arange(14) < 4 + lengths[:, None])
        log_p = -g.exponential(1.5, mask.shape)
        reference = (log_p * mask).sum(axis=1) + g.normal(0, 4, 2 * N)
        return Answers(log_p.astype(np.float32), mask, reference.astype(np.float32))

    def __call__(self, **inputs: Any) -> Any:
        """As TRL's patched models answer: for tokens after the first."""
        torch = nano.require("torch")
        found = torch.tensor(self.log_p)
        return SimpleNamespace(
            log_probs=found, entropy=torch.zeros_like(found), mean_logits=torch.zeros_like(found),
            is_top1=torch.zeros_like(found, dtype=torch.bool),
        )  # fmt: skip

    def inputs(self) -> dict[str, Any]:
        torch = nano.require("torch")
        mask = np.concatenate([np.zeros((2 * self.n, 1)), self.mask], axis=1)  # the first token is only read
        ids = torch.zeros(mask.shape, dtype=torch.long)
        return {
            "input_ids": ids,
            "attention_mask": ids + 1,
            "completion_mask": torch.tensor(mask, dtype=torch.long),
        }

    def pairs(self) -> Pairs:
        parts = [self.log_p.sum(axis=1), self.mask.sum(axis=1), self.reference]
        chosen, rejected = (
            [mx.array(p[at : at + self.n].astype(np.float32)) for p in parts] for at in (0, self.n)
        )
        return Pairs(chosen[0], rejected[0], chosen[1], rejected[1], chosen[2], rejected[2])

    def means(self) -> list[Any]:
        torch = nano.require("torch")
        mean = self.log_p.sum(axis=1) / self.mask.sum(axis=1)
        return [torch.tensor(mean[: self.n]), torch.tensor(mean[self.n :])]


def stand_in(**settings: Any) -> Any:
    """What TRL's functions ask of their trainer."""

    def same(x: Any) -> Any:
        return x

    accelerator = SimpleNamespace(device="cpu", gather=same, gather_for_metrics=same)
    return SimpleNamespace(
        accelerator=accelerator, model=SimpleNamespace(training=False), aux_loss_enabled=False, ld_alpha=None,
        precompute_ref_logps=True, f_divergence_type="reverse_kl", loss_weights=[1.0], use_weighting=False,
        _metrics=collections.defaultdict(lambda: collections.defaultdict(list)), _total_train_tokens=0,
        _tp_size=1, alpha=0.0, label_smoothing=0.0, **settings,
    )  # fmt: skip


def dpo_of_trl(seen: Answers, config: Any, settings: dict[str, Any]) -> Any:
    torch = nano.require("torch")
    own = stand_in(beta=config.beta, **settings)
    own.label_smoothing = getattr(config, "label_smoothing", 0.0)
    reference = {
        "ref_chosen_logps": torch.tensor(seen.reference[: seen.n]),
        "ref_rejected_logps": torch.tensor(seen.reference[seen.n :]),
    }
    loss = trainer("trainer.dpo_trainer", "DPOTrainer")._compute_loss(
        own, seen, seen.inputs() | reference, False
    )
    told = own._metrics["eval"]
    return float(loss), {name: told[f"rewards/{name}"][0] for name in ("accuracies", "margins", "chosen")}


@pytest.mark.parametrize(("name", "knobs", "settings"), DPO, ids=lambda x: str(x))
def test_dpo_and_ipo(name: str, knobs: dict[str, Any], settings: dict[str, Any]) -> None:
    seen, config = Answers.random(), LOSSES.config(name)(**knobs)
    loss, told = dpo_of_trl(seen, config, settings)
    found, facts = LOSSES.load(name).losses(seen.pairs(), config)
    assert found.mean().item() == pytest.approx(loss, rel=1e-5)
    for ours, theirs in (("accuracy", "accuracies"), ("margin", "margins"), ("chosen_reward", "chosen")):
        assert facts[ours].mean().item() == pytest.approx(told[theirs], rel=1e-5)


@pytest.mark.parametrize(("name", "knobs", "settings"), CPO, ids=lambda x: str(x))
def test_simpo_and_cpo(name: str, knobs: dict[str, Any], settings: dict[str, Any]) -> None:
    torch = nano.require("torch")
    seen, config = Answers.random(), LOSSES.config(name)(**knobs)
    sums = [torch.tensor(x) for x in np.split(seen.log_p.sum(axis=1), 2)]
    given = seen.means() if name == "simpo" else sums
    losses, chosen, _ = trainer("experimental.cpo", "CPOTrainer").cpo_loss(
        stand_in(beta=config.beta, **settings), *given
    )
    if name == "cpo":
        losses = losses - config.alpha * seen.means()[0]
    found, facts = LOSSES.load(name).losses(seen.pairs(), config)
    nano.close(found, losses, 1e-5)
    nano.close(facts["chosen_reward"], chosen, 1e-5)


def test_orpo() -> None:
    seen, config = Answers.random(), LOSSES.config("orpo")(odds=0.25)
    gains, *_, log_odds = trainer("experimental.orpo", "ORPOTrainer").odds_ratio_loss(
        stand_in(beta=config.odds), *seen.means()
    )
    found, facts = LOSSES.load("orpo").losses(seen.pairs(), config)
    nano.close(found, -seen.means()[0] - gains, 1e-5)
    assert facts["log_odds"].mean().item() == pytest.approx(float(log_odds), rel=1e-5)


def kto_of_trl(seen: Answers, good: np.ndarray, config: Any) -> float:
    """The first half are answers, the second those of other prompts."""
    torch = nano.require("torch")
    own = stand_in(
        beta=config.beta, loss_type="kto", calculate_KL=True, desirable_weight=config.desirable,
        undesirable_weight=config.undesirable,
    )  # fmt: skip
    halves = seen.log_p[: seen.n], seen.log_p[seen.n :]
    own._compute_kl_logps = lambda model, batch: torch.tensor(halves[1].sum(axis=1))
    inputs = {key: value[: seen.n] for key, value in seen.inputs().items()} | {
        "label": torch.tensor(good > 0), "ref_logps": torch.tensor(seen.reference[: seen.n]),
        "ref_KL_logps": torch.tensor(seen.reference[seen.n :]),
    }  # fmt: skip
    alone = Answers(halves[0], seen.mask[: seen.n], seen.reference[: seen.n])
    return float(trainer("trainer.kto_trainer", "KTOTrainer")._compute_loss(own, alone, inputs, False))


@pytest.mark.parametrize("shift", [-3.0, 3.0], ids=["nearer", "moved"])
def test_kto(shift: float) -> None:
    seen, good = Answers.random(), (np.arange(N) % 3 > 0).astype(np.float32)
    seen.reference[N:] += shift  # on one side the reference point is 0
    config = LOSSES.config("kto")(beta=0.2, desirable=1.3, undesirable=0.7)
    p = seen.pairs()
    kl = (p.rejected - p.ref_rejected).mean()
    found, _ = LOSSES.load("kto").losses(Labelled(p.chosen, p.ref_chosen, mx.array(good), kl), config)
    assert found.mean().item() == pytest.approx(kto_of_trl(seen, good, config), rel=1e-5)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, PairBatch, Answers]:
    """A model of ours with a batch of pairs, and its per-token log p as transformers computes them."""
    torch, transformers = nano.require("torch"), nano.require("transformers")
    model, width = nano.model(initializer_range=0.1), 12
    folder: Path = checkpoint.save(tmp_path_factory.mktemp("real") / "base", model)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    parts = [nano.batch(4, width, seed=k, real=[12, 7, 9, 5 + k], prompt=2 + k) for k in (0, 1)]
    tokens, targets, weights = (np.concatenate([getattr(p, n) for p in parts]) for n in READ[:3])
    with torch.no_grad():
        logits = theirs(torch.tensor(tokens, dtype=torch.long)).logits
    log_p = torch.log_softmax(logits, -1).gather(2, torch.tensor(targets, dtype=torch.long)[..., None])[
        ..., 0
    ]
    reference = (log_p.numpy() * weights).sum(axis=1) + np.random.default_rng(1).normal(0, 3, 8)
    seen = Answers(log_p.numpy(), weights > 0, reference.astype(np.float32))
    joined = {n: np.concatenate([getattr(p, n) for p in parts], axis=1) for n in READ}
    joined["segments"][:, width:] *= 2
    batch = PairBatch(
        **joined,
        reference=np.stack(np.split(seen.reference, 2), axis=1),
        good=np.array([1, 0, 0, 1], np.float32),
    )
    return model, batch, seen


@pytest.mark.parametrize("name", ["dpo", "ipo", "simpo", "orpo", "cpo", "kto"])
def test_a_real_batch(name: str, real: tuple[Any, PairBatch, Answers]) -> None:
    model, batch, seen = real
    config = LOSSES.config(name)()
    if name in ("dpo", "ipo"):
        expected, _ = dpo_of_trl(seen, config, {"loss_types": ["sigmoid" if name == "dpo" else "ipo"]})
    elif name == "kto":
        expected = kto_of_trl(seen, batch.good, config)
    elif name == "orpo":
        own = stand_in(beta=config.odds)
        gains = trainer("experimental.orpo", "ORPOTrainer").odds_ratio_loss(own, *seen.means())[0]
        expected = float((-seen.means()[0] - gains).mean())
    else:
        torch = nano.require("torch")
        own = stand_in(beta=config.beta, loss_type="simpo" if name == "simpo" else "sigmoid", simpo_gamma=1.0)
        sums = [torch.tensor(x) for x in np.split(seen.log_p.sum(axis=1), 2)]
        losses = trainer("experimental.cpo", "CPOTrainer").cpo_loss(
            own, *(seen.means() if name == "simpo" else sums)
        )[0]
        expected = float((losses - seen.means()[0]).mean() if name == "cpo" else losses.mean())
    found = _objective.over(model, LOSSES.load(name).losses, config).loss(arrays(batch))[0].item()
    assert found == pytest.approx(expected, rel=1e-5)
