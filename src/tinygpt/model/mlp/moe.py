"""Sparse mixture of experts: each token passes through the few experts that its router chooses.

`p = softmax(W_r x)` over E experts, the k largest are kept, and `y = sum_e g_e E_e(x)` over those k, with
`g` their probabilities, for k > 1 renormalised to sum 1 (a single gate would be 1, and the router learn
nothing). An expert is a SwiGLU MLP. Tokens are sorted by expert, so only the chosen ones compute and none is
dropped. Two terms join the loss: `balance E sum_e f_e P_e`, with f_e the share of choices that fell on e and
P_e its mean probability, which is least when all experts work alike, and `z mean(logsumexp(logits)^2)`, which
keeps the router's logits small. With `bias_rate` the choice, not the weight, is made by `p + b`, and after
every step `b` moves by that much towards experts with too little to do, so that balance needs no loss.
`shared` experts see every token.

Paper: Shazeer et al., ICLR 2017, arXiv:1701.06538; Fedus et al. 2022, arXiv:2101.03961 (eq. 2, k = 1;
eq. 4-6, balance); Zoph et al. 2022, arXiv:2202.08906 (eq. 5, router z-loss); Dai et al. 2024,
arXiv:2401.06066 (shared experts); Wang et al. 2024, arXiv:2408.15664 (bias).
Differs: the balance term counts all k choices, not the first alone, and the load f_e is that of the rows that
are computed together, so parts of a batch (`--accumulate`, several processes or CPU cores) add up to nearly,
not exactly, the term of the whole; no capacity, so nothing is dropped; one expert keeps its probability as in
Fedus et al., several are renormalised as in Shazeer et al. (other stacks' routers: `renormalize`); no biases;
`dense_layers` keep one MLP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tinygpt.core.backend import mx, nn, on_cpu
from tinygpt.core.errors import ConfigError
from tinygpt.model import ops, rows
from tinygpt.model.config import ModelConfig, check_layers
from tinygpt.model.frame import Frame
from tinygpt.model.mlp import swiglu

Product = Callable[[mx.array, mx.array], mx.array]  # rows of x, each by its own expert's matrix

default_width = swiglu.default_width


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of the mixture. The model's intermediate_size is the width of a dense MLP of the same cost."""

    experts: Annotated[int, "Number of experts."] = 8
    top_k: Annotated[int, "Experts that each token passes through."] = 2
    width: Annotated[
        int, "Width inside an expert; 0: intermediate_size / top_k, as costly as a dense MLP."
    ] = 0
    shared: Annotated[int, "Experts beside these that see every token."] = 0
    balance: Annotated[float, "Weight of the load-balance loss."] = 0.01
    z: Annotated[float, "Weight of the router's z-loss."] = 1e-3
    bias_rate: Annotated[float, "Step of the bias that balances the load without a loss; 0: no bias."] = 0.0
    renormalize: Annotated[
        Literal["several", "always", "never"],
        "Whether the gates of the chosen experts are made to sum to 1: where several are, always, never.",
    ] = "several"
    dense_layers: Annotated[
        tuple[int, ...], "Layers with one SwiGLU MLP of intermediate_size instead, counted from 0."
    ] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.experts:
            raise ConfigError(f"mlp.top_k must be from 1 to mlp.experts ({self.experts}), got {self.top_k}")
        for name in ("width", "shared", "balance", "z", "bias_rate"):
            if getattr(self, name) < 0:
                raise ConfigError(f"mlp.{name} must not be negative, got {getattr(self, name)}")


def refuse_bias(config: ModelConfig) -> None:
    """ConfigError where biases are asked for: experts have none."""
    if config.mlp_bias:
        raise ConfigError(
            f"the model has mlp_bias, and the experts of mlp '{config.mlp.name}' have no biases",
            hint="model.mlp_bias=false, or mlp=swiglu or gelu",
        )


class Experts(nn.Module):
    """A stack of SwiGLU MLPs without biases: weights (E, M, D), (E, M, D) and (E, D, M)."""

    def __init__(self, n: int, d: int, m: int) -> None:
        super().__init__()
        self._n = n
        self.gate_proj, self.up_proj, self.down_proj = (
            mx.zeros((n, m, d)), mx.zeros((n, m, d)), mx.zeros((n, d, m))
        )  # fmt: skip

    def __call__(self, x_ND: mx.array, chosen_Nk: mx.array) -> mx.array:
        """(N, k, D): each token through the experts chosen for it."""
        (n, d), k = x_ND.shape, chosen_Nk.shape[1]
        flat = chosen_Nk.flatten()
        if on_cpu():
            wide = mx.float32  # MLX gathers in float32 there
            y = self._grouped(mx.repeat(x_ND.astype(wide), k, axis=0), rows.Groups(flat, self._n))
        else:
            order = mx.argsort(flat)  # each expert's tokens lie together
            y = self._sorted(x_ND[order // k], flat[order])[mx.argsort(order)]
        return y.astype(x_ND.dtype).reshape(n, k, d)

    def _grouped(self, x_RD: mx.array, groups: rows.Groups) -> mx.array:
        def product(x_PD: mx.array, weight: mx.array) -> mx.array:
            return groups.product(x_PD, weight.astype(x_PD.dtype))

        return groups.unsort(self.compute(groups.sort(x_RD), product))

    def _sorted(self, x_RD: mx.array, expert_R: mx.array) -> mx.array:
        def product(x_R1D: mx.array, weight: mx.array) -> mx.array:
            turned = weight.swapaxes(-1, -2)
            return mx.gather_mm(x_R1D, turned, rhs_indices=expert_R, sorted_indices=True)

        return self.compute(x_RD[:, None], product)[:, 0]

    def compute(self, x: mx.array, product: Product) -> mx.array:
        """The MLP of rows of x, where `product` knows which expert each row is for."""

        def through(stack: Any, x: mx.array) -> mx.array:
            # An adapter may stand in the place of a stack of matrices.
            return product(x, stack) if isinstance(stack, mx.array) else stack.through(x, product)

        hidden = ops.swiglu(through(self.gate_proj, x), through(self.up_proj, x))
        return through(self.down_proj, hidden)


class MixtureOfExperts(nn.Module):
    """x (B, L, D) -> (B, L, D). N tokens, E experts, k of them a token."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        knobs: Config = config.mlp.options
        self._knobs = knobs
        self.name = f"model.layers.{layer}.mlp"
        width = knobs.width or max(1, config.intermediate_size // knobs.top_k)
        self.router = nn.Linear(config.hidden_size, knobs.experts, bias=False)
        self.experts = Experts(knobs.experts, config.hidden_size, width)
        if knobs.shared:
            self.shared = swiglu.SwiGLU(config, knobs.shared * width)
        if knobs.bias_rate:
            self.balance_bias = mx.zeros((knobs.experts,))

    def __call__(self, x_BLD: mx.array, frame: Frame) -> mx.array:
        knobs = self._knobs
        x_ND = x_BLD.reshape(-1, x_BLD.shape[-1])
        logits_NE = self.router(x_ND).astype(mx.float32)
        p_NE = mx.softmax(logits_NE, axis=-1)
        chosen_Nk = mx.stop_gradient(self._choose(p_NE))
        gate_Nk = mx.take_along_axis(p_NE, chosen_Nk, axis=-1)
        if knobs.renormalize == "always" or (knobs.renormalize == "several" and knobs.top_k > 1):
            gate_Nk = gate_Nk / gate_Nk.sum(axis=-1, keepdims=True)
        gate_Nk = gate_Nk.astype(x_ND.dtype)
        if frame.terms is not None:
            self._tell(frame, logits_NE, p_NE, chosen_Nk)
        y_ND = (self.experts(x_ND, chosen_Nk) * gate_Nk[..., None]).sum(axis=1)
        y_BLD = y_ND.reshape(x_BLD.shape)
        return y_BLD + self.shared(x_BLD, frame) if knobs.shared else y_BLD

    def _choose(self, p_NE: mx.array) -> mx.array:
        """(N, k) the experts of each token."""
        scores = p_NE + self.balance_bias if self._knobs.bias_rate else p_NE
        return mx.argpartition(-scores, self._knobs.top_k - 1, axis=-1)[:, : self._knobs.top_k]

    def _tell(self, frame: Frame, logits_NE: mx.array, p_NE: mx.array, chosen_Nk: mx.array) -> None:
        """The layer's share of the loss, and how evenly the experts worked. Padding does not count."""
        n = self._knobs.experts
        real_N1 = frame.real(p_NE.shape[0])[:, None]
        count = mx.maximum(real_N1.sum(), 1.0)
        hits_NE = (chosen_Nk[..., None] == mx.arange(n)).sum(axis=1)
        load_E = (hits_NE * real_N1).sum(axis=0) / (count * self._knobs.top_k)
        p_E = (p_NE * real_N1).sum(axis=0) / count
        frame.terms.add("balance", self._knobs.balance, n * (mx.stop_gradient(load_E) * p_E).sum())
        z = (mx.logsumexp(logits_NE, axis=-1, keepdims=True).square() * real_N1).sum() / count
        frame.terms.add("router_z", self._knobs.z, z)
        frame.terms.tell("busiest_expert", n * load_E.max())
        if self._knobs.bias_rate:
            frame.terms.measure(f"{self.name}.balance_bias", load_E)

    def adjusted(self, bias_E: mx.array, load_E: mx.array) -> mx.array:
        """The bias after a step in which experts had these shares of the choices (Wang et al., alg. 1)."""
        return bias_E + self._knobs.bias_rate * mx.sign(1 / self._knobs.experts - load_E)


def build(config: ModelConfig, layer: int) -> nn.Module:
    """The MLP of one layer."""
    refuse_bias(config)
    dense = config.mlp.options.dense_layers
    check_layers("mlp.dense_layers", dense, config.num_hidden_layers)
    return swiglu.SwiGLU(config) if layer in dense else MixtureOfExperts(config, layer)
