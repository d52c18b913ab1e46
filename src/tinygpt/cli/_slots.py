"""The original's architecture flags: each fills a slot of a fresh model, as `--set model.SLOT...` would.

They are names for settings, nothing else: run.json and config.json know slots only. A new one is a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tinygpt.core.config import Field, as_table, flag
from tinygpt.core.errors import ConfigError


class Slot(NamedTuple):
    """What a flag sets: a technique of a slot and, where there is a value, its knob."""

    type: type
    help: str
    slot: str
    technique: str
    knob: str = ""
    off: int | None = None  # the value that asks for nothing, as it was the original's default
    follows: str = ""  # the flag without which this one means nothing
    of_any: bool = False  # the knob is that of whatever fills the slot; the technique, where nothing says so


FLAGS: Mapping[str, Slot] = {
    "moe_experts": Slot(
        int, "Experts of a sparse mixture in place of the MLP; 1: a plain MLP", "mlp", "moe", "experts", off=1
    ),
    "moe_topk": Slot(
        int, "Experts that each token passes through", "mlp", "moe", "top_k", follows="moe_experts"
    ),
    "moe_aux_weight": Slot(
        float, "Weight of the experts' load-balance loss", "mlp", "moe", "balance", follows="moe_experts"
    ),
    "mtp_horizons": Slot(
        int, "Tokens predicted at every place, in sequence; 1: the next one", "head", "mtp", "horizons", off=1
    ),
    "yoco": Slot(bool, "YOCO: the second half of the layers shares keys and values", "attention", "yoco"),
    "diff_attn": Slot(bool, "Differential attention", "attention", "diff"),
    "sliding_window": Slot(
        int, "Attention reads the last so many tokens", "attention", "gqa", "window", of_any=True
    ),
    "qk_norm": Slot(bool, "RMSNorm on queries and keys", "attention", "gqa", "qk_norm", of_any=True),
    "mod": Slot(bool, "Mixture of depths: routed blocks compute half of the tokens", "depth", "mod"),
    "alibi": Slot(bool, "ALiBi in place of rotary positions", "position", "alibi"),
    "deep_norm": Slot(bool, "DeepNorm, post-LN residuals for deep stacks", "residual", "deepnorm"),
    "embedding_rmsnorm": Slot(bool, "RMSNorm on token embeddings", "embedding_norm", "rmsnorm"),
}


def options() -> Iterator[Field]:
    """The flags as fields, for the page of help."""
    for name, to in FLAGS.items():
        setting = f"model.{to.slot}.{to.knob}" if to.knob else f"model.{to.slot}={to.technique}"
        yield Field(name, to.type, f"{to.help} ({setting}).", None, False, (), None)


def fill(data: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the given flags in them. What a file says of the same technique stays, unless a flag
    turns that off."""
    if not isinstance(data.get("model", {}), Mapping):
        return dict(data)  # refused where settings are checked
    model: dict[str, Any] = dict(data.get("model", {}))
    asked: dict[str, str] = {}
    for name, to in FLAGS.items():
        off = to.off is not None and given.get(name) == to.off
        if off and as_table(model.get(to.slot)).get("name") == to.technique:
            del model[to.slot]
    for name in _acting(given):
        to, now = FLAGS[name], as_table(model.get(FLAGS[name].slot))
        if to.follows and now.get("name") != to.technique:
            raise ConfigError(
                f"{flag(name)} means nothing without {flag(to.follows)}",
                hint=f"add {flag(to.follows)}, or leave {flag(name)} out",
            )
        if to.of_any:  # flags that choose a technique come before
            if isinstance(model.get(to.slot, {}), str | Mapping):  # else refused where settings are checked
                model[to.slot] = {"name": to.technique} | now | {to.knob: given[name]}
            continue
        before = asked.setdefault(to.slot, name)
        if FLAGS[before].technique != to.technique:
            raise ConfigError(
                f"{flag(name)} and {flag(before)} ask for two kinds of {to.slot}, "
                f"{to.technique} and {FLAGS[before].technique}",
                hint="leave one of them out",
            )
        if now.get("name") != to.technique:
            now = {"name": to.technique}
        model[to.slot] = now | ({to.knob: given[name]} if to.knob else {})
    return {**data, "model": model} if model or "model" in data else dict(data)


def check(data: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which the flags still act after every --set; refused where a base or a --set leaves one
    without a meaning."""
    model: Any = data.get("model", {})
    for name in _acting(given):
        to = FLAGS[name]
        if data.get("base"):
            raise ConfigError(
                f"{flag(name)}: the base {data['base']} brings its own {to.slot}",
                hint="leave it out, or the base",
            )
        if not isinstance(model, Mapping) or not isinstance(model.get(to.slot, {}), str | Mapping):
            break  # refused where settings are checked
        now = {"name": to.technique} | as_table(model.get(to.slot))
        if (found := now["name"]) != to.technique and not to.of_any:
            raise ConfigError(
                f"{flag(name)} asks for the {to.slot} '{to.technique}', "
                f"but --set model.{to.slot} is '{found}'",
                hint="leave one of them out",
            )
        # A --set may have replaced the table by a name, by other knobs, or the whole model.
        model = {**model, to.slot: ({to.knob: given[name]} if to.knob else {}) | now}
    return {**data, "model": model} if model else dict(data)


def _acting(given: Mapping[str, Any]) -> list[str]:
    """The flags that ask for something, those first that others follow."""
    return [n for n, to in FLAGS.items() if n in given and given[n] is not False and given[n] != to.off]
