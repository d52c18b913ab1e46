"""How rotary positions are spelled in config.json.

transformers 5 writes `rope_parameters`; mlx_lm and older readers know `rope_theta` and `rope_scaling`. We
write both and read either. Options have the same names on both sides, but for `share`, which others call
`partial_rotary_factor`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tinygpt.core.config import Pick, fields, to_dict
from tinygpt.core.errors import CheckpointError, nearest
from tinygpt.model.arch._source import Source
from tinygpt.model.config import POSITION, ModelConfig

TYPES = {
    "rope": "default",
    "rope_linear": "linear",
    "rope_dynamic": "dynamic",
    "rope_llama3": "llama3",
    "rope_yarn": "yarn",
    "rope_longrope": "longrope",
}
NEEDED = {
    "default": (),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
}
SHARE = "partial_rotary_factor"


def spelled(position: Pick) -> tuple[float, dict[str, Any]]:
    """The base of a position, and the rest of its table."""
    options = to_dict(position.options)
    theta, kind, share = options.pop("theta"), TYPES[position.name], options.pop("share")
    if "attention_factor" in options and not options["attention_factor"]:
        del options["attention_factor"]
    elif kind == "yarn" and options["factor"] > 1:
        # mlx_lm knows only mscale, and makes 0.1 mscale ln(factor) + 1 of it; transformers then ignores it.
        mscale = (options["attention_factor"] - 1) / (0.1 * math.log(options["factor"]))
        options |= {"mscale": mscale, "mscale_all_dim": 0.0}
    if kind == "longrope" and not options["factor"]:
        del options["factor"]
    part = {} if share == 1 else {SHARE: share}
    return theta, {"rope_type": kind, **options, **part}


def write(config: ModelConfig, *, partial: bool = False) -> dict[str, Any]:
    """The keys that say how a config's positions turn, in both spellings. partial: whether a share of each
    head may be turned, which mlx_lm reads beside them."""
    theta, table = spelled(config.position)
    plain = table["rope_type"] == "default"
    # Older readers of Phi-3 ask for `type`.
    scaling = {"rope_scaling": {**table, **({"type": table["rope_type"]} if partial else {})}}
    parts = {SHARE: config.position.options.share} if partial else {}
    parameters = {"rope_theta": theta, **table}
    return {"rope_theta": theta, **({} if plain else scaling), **parts, "rope_parameters": parameters}


def read(
    source: Source, *, part: str = "", theta: str = "rope_theta", partial: bool = False, trained: int = 0
) -> dict[str, Any]:
    """The position pick that config.json asks for.

    part: of a `rope_parameters` with a table for each kind of layer. theta: the key that older readers find
    the base under. partial: whether a share of each head may be turned. trained: the context before
    stretching, where it stands outside of the tables."""
    context = source.get("max_position_embeddings")
    outer, usual = source.data.get(theta), source.usual.get(theta, 10000.0)
    share = source.get(SHARE) if partial else None
    for key in ("rope_theta", "rope_scaling", "rope_parameters", theta):
        source.get(key)
    tables = {key: source.data.get(key) for key in ("rope_parameters", "rope_scaling")}
    if part:
        given = tables["rope_parameters"]
        tables["rope_parameters"] = given.get(part) if isinstance(given, Mapping) else given
        if part != "full_attention":
            tables["rope_scaling"] = None  # the older spelling scales the other layers alone
    found = []
    for key, table in tables.items():
        if not table:
            continue
        where = f"{source.where}: {key}"
        if not isinstance(table, Mapping):
            raise CheckpointError(f"{where} must be a table, got {table!r}")
        pick = _read(table, outer, usual, trained or context, where, context)
        found.append(pick | ({"share": share} if share is not None and "share" not in pick else {}))
    if any(pick.get("share", 1) != 1 for pick in found) and not partial:
        raise source.wrong(f"{SHARE} is not supported in a {source.kind}")
    if len(found) == 2 and found[0] != found[1]:
        raise source.wrong(
            "rope_parameters and rope_scaling differ",
            hint="other tools read one or the other: correct the file",
        )
    plain = {"name": "rope", "theta": usual if outer is None else outer}
    return found[0] if found else plain | ({} if share is None else {"share": share})


def _read(
    given: Mapping[str, Any], outer: float | None, usual: float, trained: int, where: str, context: int
) -> dict[str, Any]:
    """One of the two tables as a pick; what transformers fills in is filled in the same way."""
    options = dict(given)
    old = options.pop("type", "default")
    kind = options.pop("rope_type", old)
    kind = "longrope" if kind == "su" else kind  # its name in Phi-3's first files
    ours = {theirs: name for name, theirs in TYPES.items()}
    if not isinstance(kind, str) or kind not in ours:
        close = nearest(str(kind), ours)
        raise CheckpointError(
            f"{where} has the type '{kind}', which this build does not know.{close}",
            hint=f"it knows {', '.join(ours)}",
        )
    known = {"rope_theta", SHARE, *(f.name for f in fields(POSITION.config(ours[kind])))} - {"share", "theta"}
    known |= {"mscale", "mscale_all_dim"} if kind == "yarn" else set()
    for name in options:
        if name not in known:
            raise CheckpointError(
                f"{where} has the key '{name}', which the type '{kind}' does not know.{nearest(name, known)}",
                hint="it could change what the model computes, so it is not ignored",
            )
    missing = [name for name in NEEDED.get(kind, ("factor",)) if options.get(name) is None]
    if missing:
        raise CheckpointError(f"{where} has no '{missing[0]}', which the type '{kind}' needs")
    inner = options.pop("rope_theta", None)
    if inner is not None and outer is not None and inner != outer:
        raise CheckpointError(
            f"{where} has the rope_theta {inner}, but beside it stands {outer}",
            hint="other tools read one or the other: correct the file",
        )
    theta = next((theta for theta in (inner, outer) if theta is not None), usual)
    if kind in ("llama3", "yarn", "longrope") and options.get("original_max_position_embeddings") is None:
        options["original_max_position_embeddings"] = trained if kind == "longrope" else context
    if kind in ("yarn", "longrope"):
        for name in ("attention_factor", "beta_fast", "beta_slow", "factor"):  # null: the usual value
            if options.get(name, 0) is None:
                del options[name]
    if kind == "yarn":
        _read_mscale(options)
    if SHARE in options:
        options["share"] = options.pop(SHARE)
    return {"name": ours[kind], "theta": theta, **options}


def _read_mscale(options: dict[str, Any]) -> None:
    """YaRN's mscale and mscale_all_dim as transformers reads them: both, and no attention_factor."""
    one, other = options.pop("mscale", None), options.pop("mscale_all_dim", None)
    if one and other and "attention_factor" not in options and options["factor"] > 1:
        log = 0.1 * math.log(options["factor"])
        options["attention_factor"] = (one * log + 1) / (other * log + 1)
