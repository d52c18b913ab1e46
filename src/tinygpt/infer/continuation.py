"""Continuations: the log-probability of a text's end after its beginning, and whether it was the likeliest.

What is the same is computed once: continuations that differ in their last token alone share a pass, and those
of one context share what is read of it. Logits are made where continuations stand, not of whole contexts.

Shapes: B rows, L tokens, V vocabulary, P continuations, N tokens of the longest one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events, Progress
from tinygpt.infer.kind import Kind
from tinygpt.infer.score import TOKENS
from tinygpt.model import ops
from tinygpt.model.cache.peers import joins

if TYPE_CHECKING:
    from tinygpt.infer.engine import Engine

Ids = tuple[int, ...]
Pair = tuple[Sequence[int], Sequence[int]]  # the ids of a context, and of what follows
Found = tuple[float, bool]  # log p in nats, and whether each token was the likeliest
SHARED = 16  # tokens of a context from which reading it once is worth caches


def continuations(
    engine: Engine, pairs: Sequence[Pair], *, rows: int = 8, events: Events | None = None
) -> list[Found]:
    """log p(continuation | context) of every pair, and whether greedy decoding would write it. At most `rows`
    are computed at once. Each part has a token; together they have at most one more than the model's
    context, since the last is only predicted."""
    most = engine.context + 1
    contexts: dict[Ids, dict[Ids, list[int]]] = {}  # context -> what is read after it -> numbers of pairs
    for i, (context, after) in enumerate(pairs):
        if not context or not after or len(context) + len(after) > most:
            raise ConfigError(
                f"a continuation of {len(after)} tokens after a context of {len(context)} cannot be scored: "
                f"each has at least one, both together at most {most}",
                hint="cut the context at its left",
            )
        contexts.setdefault(tuple(context), {}).setdefault(tuple(after[:-1]), []).append(i)
    shares, plain = all(map(joins, engine.model.make_cache())), engine.plain_length
    alone: dict[Ids, list[int]] = {}
    found: dict[int, Found] = {}

    def keep(told: dict[int, Found]) -> None:
        found.update(told)
        if events is not None:
            events.emit(Progress(task="score", done=len(found), total=len(pairs), unit="texts"))

    for context, reads in contexts.items():
        fits = plain is None or len(context) + max(map(len, reads)) <= plain
        if shares and fits and len(context) >= SHARED and len(reads) > 1:
            for group in _groups(engine, {read: 0 for read in reads}, rows):
                keep(_after(engine, context, {read: reads[read] for read in group}, pairs))
        else:
            for read, numbers in reads.items():
                alone.setdefault(context + read, []).extend(numbers)
    starts = {ids: len(ids) - max(len(pairs[i][1]) for i in numbers) for ids, numbers in alone.items()}
    for group in _groups(engine, starts, rows):
        keep(_whole(engine, {ids: alone[ids] for ids in group}, pairs))
    return [found[i] for i in range(len(pairs))]


def _groups(engine: Engine, starts: Mapping[Ids, int], rows: int) -> Iterator[list[Ids]]:
    """Texts that are read at once, the longest first; `starts`: the first place of each whose logits are
    wanted."""
    n_vocab, plain = engine.model.config.vocab_size, engine.plain_length or 0
    group: list[Ids] = []
    for ids in sorted(starts, key=len, reverse=True):
        joined = [*group, ids]
        longest = len(joined[0])
        last = longest + 1 - min(starts[one] for one in joined)
        too_many = len(joined) > rows or len(joined) * max(longest, 1) > TOKENS
        too_many |= len(joined) * last * n_vocab > ops.LOGITS
        # Beyond a length positions are other ones: what is longer is not read with what is shorter.
        if group and (too_many or (longest > plain >= len(ids))):
            yield group
            joined = [ids]
        group = joined
    if group:
        yield group


def _whole(engine: Engine, texts: Mapping[Ids, list[int]], pairs: Sequence[Pair]) -> dict[int, Found]:
    """What these texts say of the pairs that end in them."""
    longest = max(map(len, texts))
    wanted = [(row, ids, i) for row, (ids, numbers) in enumerate(texts.items()) for i in numbers]
    last = longest - min(len(ids) - len(pairs[i][1]) for _, ids, i in wanted)
    logits_BLV = engine.model(_padded([*texts], longest), last=last)
    starts = {i: (row, len(ids) - len(pairs[i][1]) - (longest - last)) for row, ids, i in wanted}
    return _told(logits_BLV, starts, pairs)


def _after(
    engine: Engine, context: Ids, reads: Mapping[Ids, list[int]], pairs: Sequence[Pair]
) -> dict[int, Found]:
    """The same where all follow one context, which is read once."""
    decoder = Kind().decoder(engine, [0])
    first_1LV = decoder.read(mx.array([context]), last=1)
    decoder.filter([0] * len(reads))
    logits_BLV = mx.broadcast_to(first_1LV, (len(reads), 1, first_1LV.shape[2]))
    if longest := max(map(len, reads)):
        logits_BLV = mx.concatenate([logits_BLV, decoder.read(_padded([*reads], longest))], axis=1)
    starts = {i: (row, 0) for row, numbers in enumerate(reads.values()) for i in numbers}
    return _told(logits_BLV, starts, pairs)


def _padded(rows: Sequence[Ids], longest: int) -> mx.array:
    """Rows (B, L) padded at the right: causal attention never looks there, so no mask is needed."""
    return mx.array([[*ids, *[0] * (longest - len(ids))] for ids in rows])


def _told(
    logits_BLV: mx.array, starts: Mapping[int, tuple[int, int]], pairs: Sequence[Pair]
) -> dict[int, Found]:
    """log p and greediness of the pairs whose first token is predicted at (row, place)."""
    likeliest_BL = mx.argmax(logits_BLV, axis=-1)
    log_z_BL = ops.cross_entropy_and_log_z(logits_BLV, likeliest_BL)[1]
    lengths = [len(pairs[i][1]) for i in starts]
    N = max(lengths)
    row_P1 = mx.array([[row] for row, _ in starts.values()])
    place_PN = mx.array(
        [[min(at + j, at + n - 1) for j in range(N)] for (_, at), n in zip(starts.values(), lengths)]
    )
    token_PN = mx.array([[pairs[i][1][min(j, n - 1)] for j in range(N)] for i, n in zip(starts, lengths)])
    picked_PN = logits_BLV[row_P1, place_PN, token_PN].astype(mx.float32)
    logs: Any = (picked_PN - log_z_BL[row_P1, place_PN]).tolist()
    same: Any = (likeliest_BL[row_P1, place_PN] == token_PN).tolist()
    return {i: (sum(log[:n]), all(equal[:n])) for i, n, log, equal in zip(starts, lengths, logs, same)}
