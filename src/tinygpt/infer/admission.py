"""Which waiting requests are read next, and together: what fits into the limits, what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.infer.decode import Decoder
from tinygpt.infer.kind import Kind
from tinygpt.infer.prefix import Hit, Prefixes, common
from tinygpt.infer.request import Answer, Request
from tinygpt.model.cache.peers import is_plain, joins
from tinygpt.model.cache.size import row_bytes

if TYPE_CHECKING:
    from tinygpt.infer.engine import Engine

UNEVEN = 64  # by so many tokens the unread rests of prompts may differ that are read together


@dataclass(frozen=True, kw_only=True)
class Limits:
    """rows: answers written together. places: of their caches, prompt and answer of all rows. bytes: of their
    caches, by what this model's take; None: no bound. chunk: tokens of prompts read in one step. waiting:
    requests that may wait; None: no bound."""

    rows: int = 128
    places: int = 1 << 16
    bytes: int | None = None
    chunk: int = 2048
    waiting: int | None = None


class Admission:
    """Of one engine's requests."""

    def __init__(self, engine: Engine, limits: Limits, prefixes: Prefixes | None, identity: str) -> None:
        self._engine, self.limits = engine, limits
        limit = engine.plain_length
        self.known = None if prefixes is None else prefixes.of(identity, self._empty, limit)
        self._samples: dict[Kind, list[Any]] = {}
        self._joins = all(map(joins, engine.model.make_cache()))
        self._pads = _pads(engine.model)

    def fits(self, running: Mapping[Kind, Sequence[Request]], places: int, group: list[Request]) -> bool:
        """Whether the limits allow to read these too, beside those that run and fill so many places."""
        limits, n, width = self.limits, len(group), max(request.width for request in group)
        if not self._joins and (n > 1 or any(running.values())):
            return False
        if sum(map(len, running.values())) + n > limits.rows or places + n * width > limits.places:
            return False
        if limits.bytes is None:
            return True
        held = sum(self.bytes(kind, requests) for kind, requests in running.items())
        return held + self.bytes(Kind.of(group[0]), group) <= limits.bytes

    def refuse_too_large(self, request: Request) -> None:
        """ConfigError where a request by itself needs more bytes than there are."""
        if self.limits.bytes is None:
            return
        needed = self.bytes(Kind.of(request), [request])
        if needed > self.limits.bytes:
            raise ConfigError(
                f"prompt and answer of {request.width} tokens may need {needed} bytes of caches, and "
                f"{self.limits.bytes} are allowed",
                hint="ask for fewer tokens, or keep caches in fewer bits (--kv-bits)",
            )

    def bytes(self, kind: Kind, requests: Sequence[Request]) -> int:
        """Most bytes that the caches of a batch of these will take."""
        if not requests:
            return 0
        if kind not in self._samples:
            decoder = kind.decoder(self._engine, [0])
            n = min(64, self._engine.context - 1)
            decoder.read(mx.array([[i % self._engine.model.config.vocab_size for i in range(n)]]), last=1)
            self._samples[kind] = decoder.cache
        width = max(request.width for request in requests)
        each = (row_bytes(layer, width, self.limits.chunk) for layer in self._samples[kind])
        return len(requests) * sum(each)

    def find(self, request: Request) -> Hit | None:
        """What is known of a prompt, where its tokens need not be seen."""
        if self.known is None or request.echo:
            return None
        return self.known.find(Kind.of(request), request.prompt)

    def together(
        self, group: list[Answer], hits: list[Hit | None], request: Request, hit: Hit | None
    ) -> bool:
        """Whether this prompt, too, can be read in one piece with the others."""
        if (hit is None) != (hits[0] is None):
            return False
        prompts = [answer.request.prompt for answer in group] + [request.prompt]
        rests = [len(p) - (h.n if h else 0) for p, h in zip(prompts, [*hits, hit])]
        piece = Kind.of(request).piece
        if not self._pads and hit is None and len(set(rests)) > 1:
            return False
        if len(prompts) * max(rests) > self.limits.chunk or (piece and max(rests) > piece):
            return False
        if hit is not None:
            return len(set(rests)) == 1 or (
                max(rests) - min(rests) <= UNEVEN and self._forgets(Kind.of(request))
            )
        if self.known is None or request.echo or self.known.needs_end(Kind.of(request)):
            return True
        # What one of them will have read by then, the next need not read: it waits for that.
        shared = max(common(tuple(p), tuple(request.prompt)) for p in prompts[:-1])
        few = shared < max(self.known.store.least, len(request.prompt) // 2)
        return few or shared == len(request.prompt)

    def _forgets(self, kind: Kind) -> bool:
        """Whether caches of this kind take back what was read beyond a row's end as if it had not been."""
        return not kind.kv_bits and all(hasattr(c, "rewind") or is_plain(c) for c in self._empty(kind))

    def _empty(self, kind: Kind) -> list[Any]:
        return kind.decoder(self._engine, [0]).cache

    def restored(
        self, group: list[Answer], hits: list[Hit | None], kind: Kind
    ) -> tuple[Decoder | None, list[int]]:
        """Caches with what is known of each different prompt, and how much that is; None where nothing is."""
        nothing = [0] * len(group)
        if self.known is None or any(answer.request.echo for answer in group):
            return None, nothing
        whole: Decoder | None = None
        seen: set[tuple[int, ...]] = set()
        for answer, hit in zip(group, hits, strict=True):
            prompt = tuple(answer.request.prompt)
            if hit is None or prompt in seen:
                continue
            seen.add(prompt)
            decoder = kind.decoder(self._engine, [0])
            if not self.known.restore(kind, hit, decoder.cache):
                hits = [None] * len(group)
                break
            if whole is None:
                whole = decoder
            else:
                whole.extend(decoder)
        self.known.store.count([hit.n if hit else 0 for hit in hits])
        if whole is None or hits[0] is None:
            return None, nothing
        return whole, [hit.n if hit else 0 for hit in hits]


def _pads(model: Any) -> bool:
    """Whether rows of unequal length can be read together."""
    try:
        model.make_cache([0, 1])
    except ConfigError:
        return False
    return True
