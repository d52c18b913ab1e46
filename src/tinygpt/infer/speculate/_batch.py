"""A batch of answers that are written with guesses: one pass of the model checks all guesses of all rows.

The rows' newest tokens are known but not yet in the caches. A step asks the drafter what may follow them,
passes token and guesses through the model, and gives each row as many tokens as were right, and one more.
Shapes as in _protocol.py.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError, TinyGPTError
from tinygpt.infer.batch import Chosen, report, unpacked
from tinygpt.infer.decode import Decoder
from tinygpt.infer.request import Answer
from tinygpt.infer.speculate import _back
from tinygpt.infer.speculate._protocol import Drafter, Drafting, Proposal, Seen
from tinygpt.infer.speculate._tree import in_line
from tinygpt.infer.speculate._verify import Rules, choose, counted, lineage, masks, paths_to, walk

if TYPE_CHECKING:
    from tinygpt.model.lm import LM

NO_TREES = "this model's caches or positions take no tree of guesses: they are made in a line"


def check(model: LM) -> None:
    """ConfigError where a pass over several tokens is not what passes over each of them are."""
    position = getattr(getattr(model, "model", None), "embed_positions", None)
    if getattr(position, "late", False):
        raise ConfigError(
            f"position '{model.config.position.name}' turns all keys anew as the text grows, so tokens that "
            "are checked together are not what they are one by one",
            hint="decode without speculation",
        )


def takes_trees(model: LM) -> bool:
    """Whether a pass can check several guesses of one place: positions that each token has on its own, and
    caches that keep all."""
    position = getattr(getattr(model, "model", None), "embed_positions", None)
    alone = position is not None and not hasattr(position, "bias") and not hasattr(position, "late")
    return alone and all(
        type(cache := layer.make_cache()) is _back.KVCache and not cache.tailed for layer in model.layers
    ) and not model.head.key_width  # fmt: skip


class SpeculativeBatch:
    """Rows that are being written; stands where a `Batch` does."""

    def __init__(
        self, model: LM, drafter: Drafter, ended: Callable[[Decoder, int, Answer], None] | None = None
    ) -> None:
        """ended: told of each row that has ended, while the decoder still holds it."""
        self.model, self.drafter, self._ended = model, drafter, ended
        self.rows: list[Answer] = []
        self.n_drafted = self.n_accepted = 0
        self._decoder: Decoder | None = None
        self._drafting: Drafting | None = None
        self._fresh: list[Chosen] = []
        self._rules: Rules | None = None

    @property
    def places(self) -> int:
        """Places of caches that the rows may come to fill."""
        width = max((row.request.width for row in self.rows), default=0)
        return len(self.rows) * (width + self.drafter.most)

    def extend(self, decoder: Decoder, first: Chosen, drafting: Drafting) -> None:
        """Take in rows whose prompts were read and whose first tokens are chosen."""
        if self._decoder is None or self._drafting is None:
            self._decoder, self._drafting = decoder, drafting
        else:
            self._decoder.extend(decoder)
            self._drafting.extend(drafting)
        self.rows = self.rows + first.rows
        self._fresh.append(first)
        self._rules = None

    def step(self) -> None:
        """Give each row its next tokens: one, and those that were guessed right."""
        for part in self._fresh:
            part.take()
        self._fresh = []
        for row in self.rows:
            if row.cancelled:
                row.end_cancelled()
        if not self._prune():
            return
        assert self._drafting is not None
        if self._rules is None:
            self._rules = Rules(self.rows, self.model.config.vocab_size)
        # Of what there is room for, the last comes from the pass itself.
        most = [min(self.drafter.most, row.request.room - len(row.ids) - 1) for row in self.rows]
        proposal = self._drafting.propose(self.rows, self._rules, most) if any(most) else None
        if proposal is not None and not any(proposal.counts):
            proposal = None
        assert self._decoder is not None
        if proposal is not None and proposal.parents is not None and not _back.branches(self._decoder):
            proposal = in_line(proposal, proposal.tokens.tolist())  # as where a request has a window
        self._check(proposal)
        self._prune()

    def _check(self, proposal: Proposal | None) -> None:
        """The pass, and what comes of it."""
        decoder, drafting, rules = self._decoder, self._drafting, self._rules
        assert decoder is not None and drafting is not None and rules is not None
        tokens_BN = mx.array([[row.ids[-1]] for row in self.rows])
        counts, q, tree = [0] * len(self.rows), None, None
        if proposal is not None:
            counts, q, tree = proposal.counts, proposal.q, proposal.parents
            tokens_BN = mx.concatenate([tokens_BN, proposal.tokens.astype(tokens_BN.dtype)], axis=1)
        n = tokens_BN.shape[1]
        parents = tree or [list(range(n - 1))] * len(self.rows)
        before = _back.copied(decoder) if not _back.forgets(decoder, n - 1) else None
        logits_BNV, seen = self._pass(tokens_BN, tree)
        mx.async_eval(logits_BNV)
        steps = [
            [len(row.ids) + len(path) - 1 for path in paths_to(own)] for row, own in zip(self.rows, parents)
        ]
        more = None
        if rules.remembers and n > 1:
            more = counted(tokens_BN, lineage(parents), logits_BNV.shape[-1])
        allowed, going = self._allowed(tokens_BN, parents, counts, logits_BNV.shape[-1])
        ruled_BNV = rules.ruled(logits_BNV, steps, more, allowed)
        chosen_BN = choose(rules, ruled_BNV, steps, tokens_BN, counts, q)
        reported = self._reported(logits_BNV, chosen_BN)
        drafted, chosen = tokens_BN.tolist(), chosen_BN.tolist()
        for (
            i,
            nodes,
        ) in going.items():  # after a guess that a grammar cannot go on from, the next pass says so
            drafted[i] = [token if j in nodes else -1 for j, token in enumerate(drafted[i])]
        paths = [walk(*four) for four in zip(drafted, chosen, parents, counts, strict=True)]
        self.drafter.told.add(len(paths), sum(counts), sum(map(len, paths)) - len(paths))
        self._take(paths, counts, chosen, reported)
        if before is not None and any(len(path) < n for path in paths):
            self._decoder = _back.read_again(
                before, [[t[j] for j in path] for t, path in zip(drafted, paths)]
            )
        elif before is None:
            _back.keep_paths(decoder, n, paths)
        drafting.settle(seen, paths)

    def _pass(self, tokens_BN: mx.array, parents: list[list[int]] | None) -> tuple[mx.array, Seen]:
        """Logits (B, N, V) after each node, and what the drafter wants to see."""
        decoder, seen, how = self._decoder, Seen(), dict[str, Any]()
        assert decoder is not None
        if tokens_BN.shape[1] == 1 and not self.drafter.points:
            return decoder.step(tokens_BN[:, 0])[:, None], seen
        if self.drafter.points:
            how["tap"] = recorder(self.drafter.points, seen)
        decoder.thaw()
        cache: list[Any] = decoder.cache
        if parents is not None:
            table_BNN = lineage(parents)
            cache = [_back.Branching(layer, table_BNN) for layer in cache]
            depths_BN = mx.array([[len(path) - 1 for path in paths_to(own)] for own in parents])
            offset = cache[0].offset
            start = offset if isinstance(offset, int) else offset[:, None]
            how["places"] = how["positions"] = self._inside(start + depths_BN)
        elif self._learned:
            offset = cache[0].offset
            start = mx.array([[offset]]) if isinstance(offset, int) else offset[:, None]
            places_BN = mx.broadcast_to(start + mx.arange(tokens_BN.shape[1]), tokens_BN.shape)
            how["positions"] = self._inside(places_BN)
        return self.model(tokens_BN, cache, **how), seen

    @property
    def _learned(self) -> bool:
        """Whether places beyond the context have no position: what only fills the table may lie there."""
        return getattr(getattr(self.model.config, "position", None), "name", "") == "learned"

    def _inside(self, places_BN: mx.array) -> mx.array:
        return mx.minimum(places_BN, self.model.config.reach - 1) if self._learned else places_BN

    def _allowed(
        self, tokens_BN: mx.array, parents: list[list[int]], counts: list[int], vocab_size: int
    ) -> tuple[mx.array | None, dict[int, Container[int]]]:
        """(B, N, V): what constraints let follow each node, None where no row has one; and of rows that have
        one, the nodes that it can go on from."""
        if not any(row.request.constraint for row in self.rows):
            return None, {}
        import numpy as np

        n, words = tokens_BN.shape[1], -(-vocab_size // 32)
        table = np.full((len(self.rows), n, words), -1, np.int32)
        drafted = tokens_BN.tolist() if n > 1 else [[row.ids[-1]] for row in self.rows]
        going: dict[int, Container[int]] = {}
        for i, row in enumerate(self.rows):
            constraint = row.request.constraint
            if constraint is None:
                continue
            try:
                found = masks(constraint, drafted[i], parents[i], counts[i], row.request.stop_ids)
            except TinyGPTError as error:  # this answer's grammar has no way on; the others have
                row.fail(error)
                continue
            going[i] = found.keys()
            for node, mask in found.items():
                own = np.asarray(mask)[:words]
                table[i, node, : len(own)], table[i, node, len(own) :] = own, 0
        allowed_BV = unpacked(table.reshape(-1, words), vocab_size)
        return allowed_BV.reshape(len(self.rows), n, vocab_size), going

    def _reported(self, logits_BNV: mx.array, chosen_BN: mx.array) -> tuple[Any, Any, Any]:
        """What `report` gives, for every node."""
        B, n, V = logits_BNV.shape
        each = [row for row in self.rows for _ in range(n)]
        found = report(each, logits_BNV.reshape(B * n, V), chosen_BN.flatten())
        return tuple(None if x is None else x.reshape(B, n, *x.shape[1:]).tolist() for x in found)  # type: ignore[return-value]

    def _take(
        self,
        paths: list[list[int]],
        counts: list[int],
        chosen: list[list[int]],
        reported: tuple[Any, Any, Any],
    ) -> None:
        """Let the rows have what was chosen at the nodes that stay."""
        logprobs, ids, values = reported
        taken: list[list[int]] = []
        for i, (row, path) in enumerate(zip(self.rows, paths)):
            wanted = row.request.logprobs
            row.n_drafted += counts[i]
            row.n_accepted += len(path) - 1
            self.n_drafted += counts[i]
            self.n_accepted += len(path) - 1
            taken.append([chosen[i][j] for j in path])
            for j in path:
                if wanted is None:
                    row.take(chosen[i][j])
                elif not wanted or ids is None:
                    row.take(chosen[i][j], logprobs[i][j])
                else:
                    tops = tuple(zip(ids[i][j], values[i][j]))[:wanted]
                    row.take(chosen[i][j], logprobs[i][j], tops)
        assert self._rules is not None
        self._rules.take(taken)

    def _prune(self) -> bool:
        """Let finished rows leave; whether any is left."""
        kept = [i for i, row in enumerate(self.rows) if row.finish_reason is None]
        if len(kept) == len(self.rows):
            return bool(kept)
        for i, row in enumerate(self.rows):
            if row.finish_reason is not None and self._ended is not None and self._decoder is not None:
                self._ended(self._decoder, i, row)
        self._rules = None
        self.rows = [self.rows[i] for i in kept]
        if not kept:
            self._decoder = self._drafting = None
            return False
        assert self._decoder is not None and self._drafting is not None
        self._decoder.filter(kept)
        self._drafting.filter(kept)
        return True


def recorder(points: frozenset[str], seen: Seen) -> Any:
    """A tap that writes down what passes these points."""

    def tap(name: str, x: mx.array) -> mx.array:
        if name in points:
            seen[name] = x
        return x

    return tap
