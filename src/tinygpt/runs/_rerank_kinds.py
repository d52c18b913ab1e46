"""What a run of each kind of reranker is made of: how it scores, and the pairs that it learns from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tinygpt.core.backend import mx
from tinygpt.core.config import from_dict, to_dict
from tinygpt.core.errors import ConfigError, DataError
from tinygpt.core.events import Events
from tinygpt.data.source._source import Source
from tinygpt.data.tokenizer import byte
from tinygpt.model.config import ModelConfig
from tinygpt.router import encoder, rerank_lexical, rerank_rows
from tinygpt.router.rerank import ByReading, ByWords, Scoring
from tinygpt.router.rerank_cross import EXTRA, LABELS, Cross, CrossPairs, CrossSource, Reading, size
from tinygpt.router.rerank_lexical import Lexical, Rarity
from tinygpt.router.rerank_rows import Group
from tinygpt.runs import _pieces
from tinygpt.runs._memory import refuse_too_large
from tinygpt.runs._rerank_data import Parts
from tinygpt.runs._rerank_settings import Config
from tinygpt.runs._settings import FOLLOWS

if TYPE_CHECKING:
    from tinygpt.data.tokenizer._protocol import Tokenizer

WIDTHS = 6  # of a cross-encoder's rows, and so traces of a compiled step
Triple = tuple[str, str, str]
"""A query, a document that answers it, one that does not."""


class Pieces(NamedTuple):
    """How the reranker scores, and what it learns from."""

    scoring: Scoring
    learned: Source
    tokenizer: Tokenizer


def build(config: Config, parts: Parts, seed: int, events: Events) -> Pieces:
    """A fresh reranker with its sources. DataError where there is no pair to learn from."""
    rarity = Rarity.of(dict.fromkeys(text for group in parts.learn for text in group.documents))
    taught, watched = (_triples(config, part, seed) for part in (parts.learn, parts.watch))
    if not taught or not watched:
        raise DataError(
            "there is no pair of documents to learn from or to watch",
            hint="raise --others, or give more rows",
        )
    facts = {"queries": len(parts.learn), "pairs": len(taught), "reported_on": len(parts.test)}
    given: Any = {"files": (*config.data, *config.test), "facts": facts}
    if config.kind == "lexical":
        return _lexical(config, rarity, taught, watched, seed, given)
    return _cross(config, rarity, taught, watched, seed, given, events)


def _triples(config: Config, groups: Sequence[Group], seed: int) -> list[Triple]:
    found = rerank_rows.pairs(groups, most=config.pairs, others=config.others, seed=seed)
    return [(groups[g].query, yes, no) for g, yes, no in found]


def _lexical(
    config: Config, rarity: Rarity, taught: list[Triple], watched: list[Triple], seed: int, given: Any
) -> Pieces:
    def source(triples: list[Triple], seed: int | None, **more: Any) -> Source:
        rows = rerank_lexical.differences(triples, rarity)
        batch = config.amounts.batch
        return rerank_lexical.Pairs(rows, length=1, batch_size=batch, pad_id=0, seed=seed, **more)

    held_out = source(watched, None, facts={})
    learned = source(taught, seed, held_out=held_out, **given)
    return Pieces(ByWords(Lexical(), rarity), learned, byte.load())


def _cross(
    config: Config,
    rarity: Rarity,
    taught: list[Triple],
    watched: list[Triple],
    seed: int,
    given: Any,
    events: Events,
) -> Pieces:
    tokenizer = _pieces.open_tokenizer(config.tokenizer)
    reading = Reading(tokenizer, rarity, config.length)
    shape = _shape(config, tokenizer.vocab_size + EXTRA)
    refuse_too_large(shape, 2 * config.amounts.batch // config.accumulate, config.length, config.dtype)
    facts = encoder.Facts(labels=LABELS, model=to_dict(shape))
    module = Cross(shape, facts)
    module.update(encoder.build(shape, facts, seed).parameters())
    module.lexical_weight = mx.array(rerank_lexical.best(rerank_lexical.differences(taught, rarity).values))

    def source(triples: list[Triple], seed: int | None, name: str, **more: Any) -> Source:
        pairs, n_cut = list[tuple[list[int], list[int]]](), 0
        for query, yes, no in triples:
            both = reading.windows(query, (yes, no))
            n_cut += any(len(each) > 1 for each in both)
            pairs.append((both[0][0], both[1][0]))
        if n_cut:
            note = f"{name}: {n_cut} of {len(pairs)} pairs are longer than --context {config.length}"
            events.note(f"{note}; learned by their beginnings", "warning")
        rows: Any = CrossPairs(pairs, rerank_lexical.differences(triples, rarity).values)
        return CrossSource(
            rows, most=WIDTHS, length=rows.longest, batch_size=config.amounts.batch,
            pad_id=tokenizer.pad_id, seed=seed, **more,
        )  # fmt: skip

    held_out = source(watched, None, "to watch", facts={})
    learned = source(taught, seed, "to learn from", held_out=held_out, **given)
    return Pieces(ByReading(module, rarity, tokenizer), learned, tokenizer)


def _shape(config: Config, vocab_size: int) -> ModelConfig:
    """The blocks' config: the preset, with the single fields of `blocks` on top."""
    base = to_dict(size(config.preset, vocab_size=vocab_size, context=config.length))
    if told := {"vocab_size", "max_position_embeddings", "qat_bits", "qat_group_size"} & config.blocks.keys():
        raise ConfigError(
            f"blocks.{min(told)} of a reranker follows from other settings", hint="leave it out"
        )
    return from_dict(ModelConfig, base | dict.fromkeys(FOLLOWS, 0) | config.blocks, "blocks")
