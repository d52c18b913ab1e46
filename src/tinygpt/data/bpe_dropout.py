"""BPE-dropout: in training, a merge of byte-level BPE fails with probability p, so words are spelled anew.

Encoding a word starts from its bytes and again and again applies the merge of highest priority. With dropout,
at every step each merge that is possible is left out with probability p on its own; the best of the others is
applied, and when none is left the word is done. p = 0 is the plain encoding, p = 1 gives bytes. A model that
has seen a word in several spellings knows what its letters are, and is less easily thrown by rare words and
typing errors.

A row is spelled with a generator made from (seed, epoch, row), so a run that resumes reads what it would have
read. A row takes as many plain tokens as will mostly fit when spelled (measured on the corpus); where they do
not, the last words of that row keep their plain tokens. So every part of the text is read once an epoch, and
some slots of most rows stay empty. Evaluation reads plain tokens.
Paper: Provilkov et al., ACL 2020, arXiv:1910.13267, algorithm 1
Differs: the last token of a row that ends inside a document has the next plain token as its target; a word
that the edge of a row cuts is spelled as two.
"""

from __future__ import annotations

import functools
import heapq
import json
import random
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import UnsupportedError
from tinygpt.data.batch import Batch
from tinygpt.data.pack import Cut
from tinygpt.data.tokenizer._files import byte_letters

if TYPE_CHECKING:
    import tokenizers

    from tinygpt.data.tokenizer._protocol import Tokenizer

SAMPLE = 32  # rows on which the growth by dropout is measured
Draw = Callable[[], float]


class Speller:
    """Encodes text with dropout `p`. UnsupportedError: the tokenizer is no byte-level BPE."""

    def __init__(self, tokenizer: Tokenizer, p: float) -> None:
        definition: dict[str, Any] = getattr(tokenizer, "definition", {})
        model = definition.get("model") or {}
        self.letters = byte_letters()
        vocab: dict[str, int] = model.get("vocab") or {}
        refused = ""
        if not definition:
            refused = "its tokens are bytes, which are not merged"
        elif model.get("type") != "BPE" or not set(self.letters.values()) <= set(vocab):
            refused = f"this is a {model.get('type')} tokenizer without all bytes"
        elif any(model.get(k) for k in ("continuing_subword_prefix", "end_of_word_suffix")):
            refused = "its tokens say where they are in a word"
        elif not model.get("merges"):
            refused = "it has no merges"
        if refused:
            raise UnsupportedError(
                f"--bpe-dropout needs a byte-level BPE tokenizer: {refused}",
                hint="train one with tinygpt tokenize-train, or leave --bpe-dropout out",
            )
        self.p, self.to_bytes = p, tokenizer.id_to_bytes
        self.start = {letter: vocab[letter] for letter in self.letters.values()}
        self.merges: dict[tuple[int, int], tuple[int, int]] = {}
        for rank, merge in enumerate(model["merges"]):
            left, right = merge.split(" ") if isinstance(merge, str) else merge
            self.merges[vocab[left], vocab[right]] = rank, vocab[left + right]
        self.definition = definition

    def encode(self, text: str, draw: Draw) -> list[int]:
        """Ids of a text."""
        return [id for word in self.words(text) for id in self.spell(word, draw)]

    def words(self, text: str) -> list[str]:
        """The parts between which nothing is merged, a letter for each byte."""
        return [word for word, _ in self._cut.pre_tokenize_str(text)]

    @functools.cached_property
    def _cut(self) -> tokenizers.pre_tokenizers.PreTokenizer:
        import tokenizers

        def plain(part: Any) -> Any:
            """The same without a space put before every text: the text has it already."""
            if isinstance(part, dict):
                kept = {k: plain(v) for k, v in part.items()}
                return kept | {"add_prefix_space": False} if part.get("type") == "ByteLevel" else kept
            return [plain(p) for p in part] if isinstance(part, list) else part

        whole = {**self.definition, "pre_tokenizer": plain(self.definition.get("pre_tokenizer"))}
        found = tokenizers.Tokenizer.from_str(json.dumps(whole, ensure_ascii=False)).pre_tokenizer
        assert found is not None
        return found

    def spell(self, word: str, draw: Draw) -> list[int]:
        """Ids of a word, one draw in [0, 1) for each merge that is considered."""
        ids = [self.start[letter] for letter in word]
        n, merges, p = len(ids), self.merges, self.p
        after = list(range(1, n + 1))
        before = list(range(-1, n - 1))
        queue: list[tuple[int, int, int, int]] = []  # (rank, place, left, right): the best one first

        def add(i: int) -> None:
            if i >= 0 and after[i] < n and (found := merges.get((ids[i], ids[after[i]]))):
                heapq.heappush(queue, (found[0], i, ids[i], ids[after[i]]))

        for i in range(n - 1):
            add(i)
        while queue:
            dropped: list[tuple[int, int, int, int]] = []
            merged = False
            while queue and not merged:
                best = heapq.heappop(queue)
                _, i, left, right = best
                j = after[i]
                if ids[i] != left or j >= n or ids[j] != right:
                    continue  # one of the two was merged with another
                if draw() < p:
                    dropped.append(best)
                    continue
                ids[i], ids[j] = merges[left, right][1], -1
                after[i] = after[j]
                if after[i] < n:
                    before[after[i]] = i
                merged = True
                add(before[i])
                add(i)
            if not merged:
                break
            for one in dropped:  # dropped for this step only
                heapq.heappush(queue, one)
        return [id for id in ids if id >= 0]

    def bytes_of(self, ids: list[int]) -> bytes:
        return b"".join(map(self.to_bytes, ids))


def cut_utf8(data: bytes) -> tuple[bytes, str, bytes]:
    """(bytes of a character that began before, text, bytes of one that ends later)."""
    a = next((i for i, byte in enumerate(data[:4]) if byte & 0xC0 != 0x80), min(4, len(data)))
    z = len(data)
    for back in range(1, min(3, z - a) + 1):
        lead = data[z - back]
        if lead & 0xC0 == 0xC0:  # a first byte: 110, 1110 or 11110 say how many belong together
            z -= back if back < 2 + (lead >= 0xE0) + (lead >= 0xF0) else 0
            break
    return data[:a], data[a:z].decode("utf-8"), data[z:]


def _documents(cut: Cut, r: int) -> Iterator[tuple[int, int, bool]]:
    """(first token, end, whether its start token is here) of each document's part in a row."""
    lo, hi, offsets = cut.span(r)
    edges = [lo, *(lo + int(o) for o in offsets if o < hi - lo), hi]
    at = int(cut.starts.searchsorted(lo))
    for a, z in zip(edges, edges[1:]):
        yield a, z, a > lo or (at < len(cut.starts) and int(cut.starts[at]) == lo)


class Spelled:
    """The rows of a `Cut`, spelled anew in each epoch into rows of `length` tokens."""

    def __init__(self, cut: Cut, speller: Speller, *, length: int, seed: tuple[int, ...]) -> None:
        self.speller, self.length, self.seed = speller, length, seed
        self.growth = self._growth(cut)
        self.cut = Cut(
            cut.tokens, cut.starts, cut.begin, cut.end,
            length=max(1, int(length / self.growth)), eos_id=cut.eos_id,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.cut)

    @property
    def n_tokens(self) -> int:
        """Plain tokens, which dropout makes more of."""
        return self.cut.n_tokens

    def fill(self, r: int, batch: Batch, b: int, epoch: int = 0) -> None:
        import numpy as np

        lo, hi, offsets = self.cut.span(r)
        draw = self._draw(epoch, r)
        at, left = 0, hi - lo
        for segment, (a, z, starts) in enumerate(_documents(self.cut, r), 1):
            left -= z - a
            ids = self._again(self.cut.tokens[a:z].tolist(), starts, self.length - at - left, draw)
            end = at + len(ids)
            batch.tokens[b, at:end] = ids
            batch.targets[b, at : end - 1] = ids[1:]
            batch.targets[b, end - 1] = self.cut.eos_id
            batch.weights[b, at:end] = 1.0
            batch.positions[b, at:end] = np.arange(end - at)
            batch.segments[b, at:end] = segment
            at = end
        if hi not in offsets + lo:
            batch.targets[b, at - 1], batch.weights[b, at - 1] = self.cut.follows(hi)

    def _draw(self, epoch: int, r: int) -> Draw:
        import numpy as np

        words = np.random.SeedSequence((*self.seed, epoch, r)).generate_state(4, np.uint32)
        return random.Random(int.from_bytes(words.astype("<u4").tobytes(), "little")).random

    def _again(self, plain: list[int], starts: bool, room: int, draw: Draw) -> list[int]:
        """A document's part with dropout, at most `room` ids: where it would not fit, it goes on plainly."""
        found, text_ids = plain[:starts], plain[starts:]
        speller = self.speller
        ends: dict[int, int] = {0: 0}  # bytes -> plain tokens that have them
        n_bytes = 0
        for n, id in enumerate(text_ids, 1):
            n_bytes += len(speller.to_bytes(id))
            ends[n_bytes] = n
        head, text, tail = cut_utf8(speller.bytes_of(text_ids))
        words = [speller.letters[byte] for byte in head] + speller.words(text)
        words += [speller.letters[byte] for byte in tail]
        kept, used, n_bytes = len(found), 0, 0
        for word in words:
            found += speller.spell(word, draw)
            n_bytes += len(word)
            n = ends.get(n_bytes)
            if n is None:
                continue  # no plain token ends here
            if len(found) + len(text_ids) - n > room:
                return found[:kept] + text_ids[used:]
            kept, used = len(found), n
        return found

    def _growth(self, cut: Cut) -> float:
        """How many times its plain tokens a row has, a standard deviation above the mean."""
        import numpy as np

        rows = np.unique(np.linspace(0, len(cut) - 1, SAMPLE).astype(int))
        ratios: list[float] = []
        for r in rows:
            draw, before, after = self._draw(1 << 31, int(r)), 0, 0
            for a, z, starts in _documents(cut, int(r)):
                plain = cut.tokens[a:z].tolist()
                before += len(plain)
                after += len(self._again(plain, starts, sys.maxsize, draw))
            ratios.append(after / before)
        return max(1.0, float(np.mean(ratios) + np.std(ratios)))
