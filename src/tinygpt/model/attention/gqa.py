"""Grouped-query attention: several query heads share one key and value head.

Queries `q = x Wq` have H heads, keys and values G <= H heads; head h reads group h // (H/G),
`y_h = softmax(q_h k_g^T / sqrt(K) + mask) v_g`, joined by `Wo`. G = H is multi-head attention, G = 1 is
multi-query. The cache shrinks by H / G.

With `key_shift` half of the features that keys are made of come from the token before,
`k_t = Wk [x_t, x_{t-1}]`. One head can then look up "what followed the token I just wrote", the step that
copies a name; plain attention needs two layers that learn to work together. It costs nothing, and pays most
in models of a few million parameters.

With `window` a token reads only so many before it: cost and cache no longer grow with the text, and layer by
layer the reach still does.

With `qk_norm` every head's query and key go through an RMSNorm over their K features before positions turn
them, `q_h <- g_q * q_h / rms(q_h)`: scores stay bounded however large the weights become, so training bears
higher learning rates. One weight vector serves all query heads of a layer, one all key heads.

Other stacks' ways are knobs: `full_layers` read all tokens where the others read the window; `qk_norm_width`
norms the queries of all heads as one vector, and the keys; `softcap` bounds scores before the mask,
`c tanh(s / c)`; `scale` takes the place of 1 / sqrt(K); without `output_bias` q, k, v alone have biases.

Paper: Ainslie et al., EMNLP 2023, arXiv:2305.13245. Of the window: Beltagy et al. 2020, arXiv:2004.05150. Of
the norms: Henry et al. 2020, arXiv:2010.04245; Dehghani et al., ICML 2023, arXiv:2302.05442; as RMSNorm a
head: Yang et al. 2025, arXiv:2505.09388 (Qwen3); over the width: OLMo Team 2025, arXiv:2501.00656. Of the
shift: Peng et al. 2023, arXiv:2305.13048 (token shift); Olsson et al. 2022, arXiv:2209.11895 (smeared keys
make induction heads easy). Of mixed windows and bounded scores: Gemma Team 2024, arXiv:2408.00118.
Differs: the shift acts on keys alone, on a fixed half of the features; a stack with it is no Llama on disk.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.model import ops
from tinygpt.model.attention._heads import Heads, Knobs, in_heads
from tinygpt.model.config import ModelConfig, check_layers
from tinygpt.model.earlier import earlier
from tinygpt.model.frame import Frame
from tinygpt.model.reading import read


@dataclass(frozen=True, kw_only=True)
class Config(Knobs):
    """Knobs of grouped-query attention."""

    key_shift: Annotated[
        bool, "Make half of the key features from the token before; helps small models copy."
    ] = False
    full_layers: Annotated[
        tuple[int, ...], "Layers that read all tokens where the others read the window, counted from 0."
    ] = ()
    qk_norm_width: Annotated[bool, "Norm queries and keys of all heads as one vector, not head by head."] = (
        False
    )
    softcap: Annotated[float, "Bounds scores, cap * tanh(scores / cap); 0: no bound."] = 0.0
    scale: Annotated[float, "What scores are multiplied by; 0: 1 / sqrt(head_dim)."] = 0.0
    output_bias: Annotated[
        bool, "Whether attention_bias gives the output matrix a bias too; false: queries, keys, values alone."
    ] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("softcap", "scale"):
            if getattr(self, name) < 0:
                raise ConfigError(f"attention.{name} must not be negative, got {getattr(self, name):g}")
        for name, other in (("full_layers", "window"), ("qk_norm_width", "qk_norm")):
            if getattr(self, name) and not getattr(self, other):
                raise ConfigError(
                    f"attention.{name} means nothing without attention.{other}", hint=f"set {other} too"
                )


class GroupedQueryAttention(Heads):
    """x (B, L, D) -> (B, L, D). B batch, L length, D width, H query heads, G key/value heads, K head
    width."""

    heeds_position = True
    takes_sinks = True
    reads_any = True  # of the tokens of a row, some may be left out

    def __init__(
        self,
        config: ModelConfig,
        layer: int,
        *,
        window: int = 0,
        qk_norm: bool = False,
        key_shift: bool = False,
        full_layers: tuple[int, ...] = (),
        qk_norm_width: bool = False,
        softcap: float = 0.0,
        scale: float = 0.0,
        output_bias: bool = True,
    ) -> None:
        check_layers("attention.full_layers", full_layers, config.num_hidden_layers)
        if not output_bias and not config.attention_bias:
            raise ConfigError(
                "attention.output_bias=false means nothing where attention_bias is false",
                hint="set attention_bias=true, or leave output_bias out",
            )
        super().__init__(
            config, layer, window=0 if layer in full_layers else window, qk_norm=qk_norm,
            norm_width=qk_norm_width, output_bias=output_bias,
        )  # fmt: skip
        self.softcap, self.scale = softcap, scale or self.scale
        self.reads_earlier = key_shift

    def _key_input(self, x_BLD: mx.array, frame: Frame, cache: Any | None) -> mx.array:
        """What keys are made of: x, or half of it and half of the token before in the same document."""
        if not self.reads_earlier:
            return x_BLD
        own_BLH, given_BLH = mx.split(x_BLD, [x_BLD.shape[2] // 2], axis=2)
        return mx.concatenate([own_BLH, *earlier(given_BLH, 1, frame, cache, "keys")], axis=2)

    def __call__(self, x_BLD: mx.array, frame: Frame, cache: Any | None = None) -> mx.array:
        q_BHLK, k_BGLK = self.make_queries(x_BLD), self.make_keys(self._key_input(x_BLD, frame, cache))
        v_BGLK = in_heads(self.v_proj(x_BLD), self.n_groups)
        found = read(q_BHLK, k_BGLK, v_BGLK, frame, cache, window=self.window, name=self._name)
        y_BHLK = ops.attention(
            found.q, found.k, found.v, scale=self.scale, mask=found.mask, segments=frame.segments,
            bias=found.bias, window=self.window, cap=self.softcap,
        )  # fmt: skip
        return self.joined(y_BHLK, frame)


def build(config: ModelConfig, layer: int) -> nn.Module:
    """The attention module of one layer."""
    return GroupedQueryAttention(config, layer, **dataclasses.asdict(config.attention.options))
