"""A batch of answers that are written together, one token of each a step.

A step hands the forward pass to the device first and looks at the tokens of the step before while it works:
text, stop texts and constraints are Python's, and cost nothing where the pass takes longer. So at worst one
pass is computed for nothing. Shapes: B rows, V vocabulary, A alternatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinygpt.core.backend import mx, on_cpu
from tinygpt.core.errors import TinyGPTError
from tinygpt.infer.decode import Decoder
from tinygpt.infer.request import Answer
from tinygpt.infer.sampler import Sampler
from tinygpt.model import ops

if TYPE_CHECKING:
    import numpy as np

    from tinygpt.model.lm import LM

LEAVE = 0.75  # finished rows are carried along until so few are left: leaving copies the caches


@dataclass(frozen=True)
class Chosen:
    """The next token of some rows, handed to the device but not yet looked at, with what is reported."""

    rows: list[Answer]
    tokens_B: mx.array
    logprobs_B: mx.array | None
    top_ids_BA: mx.array | None
    top_logprobs_BA: mx.array | None

    def take(self) -> None:
        """Let the rows have their tokens."""
        tokens = self.tokens_B.tolist()
        logprobs = [None] * len(tokens) if self.logprobs_B is None else self.logprobs_B.tolist()
        ids = None if self.top_ids_BA is None else self.top_ids_BA.tolist()
        tops = None if self.top_logprobs_BA is None else self.top_logprobs_BA.tolist()
        for i, (row, token) in enumerate(zip(self.rows, tokens, strict=True)):
            wanted = row.request.logprobs
            if wanted is None:
                row.take(token)
            elif not wanted or ids is None or tops is None:
                row.take(token, logprobs[i])
            else:
                row.take(token, logprobs[i], tuple(zip(ids[i], tops[i]))[:wanted])


def choose(rows: list[Answer], sampler: Sampler, logits_BV: mx.array) -> Chosen:
    """Choose a token for each row; the device starts on it at once."""
    allowed_BV = _allowed(rows, logits_BV.shape[1])
    tokens_B = sampler(logits_BV, [len(row.ids) for row in rows], allowed_BV)
    found = Chosen(rows, tokens_B, *report(rows, logits_BV, tokens_B))
    mx.async_eval([x for x in (tokens_B, found.logprobs_B, found.top_logprobs_BA) if x is not None])
    return found


def report(
    rows: Sequence[Answer], logits_BV: mx.array, tokens_B: mx.array
) -> tuple[mx.array | None, mx.array | None, mx.array | None]:
    """log p of the tokens, and ids and log p of the likeliest, as far as rows ask for them."""
    wanted = [row.request.logprobs for row in rows if row.request.logprobs is not None]
    if not wanted:
        return None, None, None
    if not max(wanted):
        return -ops.cross_entropy(logits_BV, tokens_B), None, None
    logs_BV = logits_BV.astype(mx.float32)
    logs_BV = logs_BV - mx.logsumexp(logs_BV, axis=-1, keepdims=True)
    return (mx.take_along_axis(logs_BV, tokens_B[:, None], axis=-1)[:, 0], *likeliest(logs_BV, max(wanted)))


def likeliest(logs_BV: mx.array, n: int) -> tuple[mx.array, mx.array]:
    """Ids and values (B, n) of the n largest, the largest first."""
    n = min(n, logs_BV.shape[-1])
    ids_BA = mx.argpartition(-logs_BV, n - 1, axis=-1)[..., :n]
    values_BA = mx.take_along_axis(logs_BV, ids_BA, axis=-1)
    order_BA = mx.argsort(-values_BA, axis=-1)
    return (
        mx.take_along_axis(ids_BA, order_BA, axis=-1),
        mx.take_along_axis(values_BA, order_BA, axis=-1),
    )


def sampler_of(rows: Sequence[Answer], vocab_size: int) -> Sampler:
    """The sampler of these rows as far as they have got."""
    requests = [row.request for row in rows]
    return Sampler(
        [r.config for r in requests], [r.seed for r in requests], [r.prompt for r in requests],
        vocab_size, [row.ids for row in rows],
    )  # fmt: skip


def _allowed(rows: Sequence[Answer], vocab_size: int) -> mx.array | None:
    """(B, V): what constraints let each row write, None where no row has one."""
    if not any(row.request.constraint for row in rows):
        return None
    import numpy as np

    words = -(-vocab_size // 32)
    masks = np.full((len(rows), words), -1, np.int32)
    for i, row in enumerate(rows):
        if row.request.constraint is not None and row.finish_reason is None:
            try:
                mask = row.request.constraint.mask()
            except TinyGPTError as error:  # this answer's grammar has no way on; the others have
                row.fail(error)
                continue
            masks[i, : len(mask)], masks[i, len(mask) :] = mask, 0
    return unpacked(masks, vocab_size)


def unpacked(masks: np.ndarray, vocab_size: int) -> mx.array:
    """(B, V) truth values of packed words (B, ceil(V / 32)). An accelerator is sent the words, 1/8 of the
    bytes; on a CPU numpy unpacks them, with no array of 32-bit numbers between."""
    import numpy as np

    if on_cpu():
        bits = np.unpackbits(masks.view(np.uint8), axis=1, count=vocab_size, bitorder="little")
        return mx.array(bits.view(np.bool_))
    bits_BWN = mx.array(masks)[:, :, None] >> mx.arange(32, dtype=mx.int32)
    return ((bits_BWN & 1) == 1).reshape(len(masks), -1)[:, :vocab_size]


class Batch:
    """Rows that are being written."""

    def __init__(self, model: LM, ended: Callable[[Decoder, int, Answer], None] | None = None) -> None:
        """ended: told of each row that has ended, while the decoder still holds it."""
        self.model, self._ended = model, ended
        self.rows: list[Answer] = []
        self._decoder: Decoder | None = None
        self._sampler: Sampler | None = None
        self._pending: list[Chosen] = []  # the rows' next tokens, in their order

    @property
    def places(self) -> int:
        """Places of caches that the rows may come to fill: as many in each row as in the widest."""
        return len(self.rows) * max((row.request.width for row in self.rows), default=0)

    def extend(self, decoder: Decoder, first: Chosen) -> None:
        """Take in rows whose prompts were read and whose first tokens are chosen."""
        if self._decoder is None:
            self._decoder = decoder
        else:
            self._decoder.extend(decoder)
        self.rows = self.rows + first.rows
        self._pending.append(first)
        self._sampler = None

    def step(self) -> None:
        """Give each row its pending token, and choose the next one."""
        decoder, pending = self._decoder, self._pending
        assert decoder is not None
        logits_BV = None
        if any(row.finish_reason is None and not row.cancelled and not row.last for row in self.rows):
            logits_BV = decoder.step(mx.concatenate([part.tokens_B for part in pending]))
            mx.async_eval(logits_BV)
        over = {i for i, row in enumerate(self.rows) if row.finish_reason is not None}
        for part in pending:
            part.take()
        for row in self.rows:
            if row.cancelled:
                row.end_cancelled()
        if self._ended is not None:
            for i, row in enumerate(self.rows):
                if row.finish_reason is not None and i not in over:
                    self._ended(decoder, i, row)
        kept = [i for i, row in enumerate(self.rows) if row.finish_reason is None]
        if not kept:
            self.rows, self._decoder, self._sampler, self._pending = [], None, None, []
            return
        assert logits_BV is not None, "a row that goes on has a next token"
        if len(kept) < len(self.rows) and (len(kept) <= LEAVE * len(self.rows) or self._outgrown()):
            decoder.filter(kept)
            logits_BV = logits_BV[mx.array(kept)]
            self.rows, self._sampler = [self.rows[i] for i in kept], None
        if self._sampler is None:
            self._sampler = sampler_of(self.rows, self.model.config.vocab_size)
        self._pending = [choose(self.rows, self._sampler, logits_BV)]

    def _outgrown(self) -> bool:
        """Whether a finished row that is carried along would leave the context."""
        decoder, context = self._decoder, self.model.config.reach
        assert decoder is not None
        over = (i for i, row in enumerate(self.rows) if row.finish_reason is not None)
        return any(decoder.held(i) >= context for i in over)
