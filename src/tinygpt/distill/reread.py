"""What a teacher with another tokenizer reads: the same texts in its own tokens, and where the two meet.

A segment of a row is taken apart into control tokens and runs of bytes. A control token becomes the teacher's
of that name; the token that begins or ends a text becomes the teacher's; any other becomes its name as text.
A run is tokenised anew. After token t the student has read e_t bytes of its run; where a token of the teacher
ends at the same byte, both have read the same, and what they expect next can be compared. Where the teacher's
tokens do not spell the run (a normaliser changed a letter), the two meet before and after what differs.
A text that is longer than the teacher can read is read in windows, each half over the one before.

Nothing is drawn: the same batch is always read in the same way.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import ConfigError
from tinygpt.data.batch import Batch
from tinygpt.distill.on_policy import Labelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinygpt.data.batch import Floats, Ints
    from tinygpt.data.tokenizer._protocol import Tokenizer

BROKEN = re.compile("([\udc80-\udcff]+)")  # bytes that are no UTF-8, as surrogateescape shows them
PROBE = "The quick brown Fox\n    jumps over 13 lazy dogs: f(x_1, y) != 0!\n\n# End. "
WIDTHS = 8  # a teacher's row is so many widths to one of the student's: each is a trace of a compiled step


@dataclass(frozen=True)
class Reread(Labelled):
    """Rows of L tokens that are M of the teacher's.

    `taught_at[b, t]` is the teacher's place that has read what the student has at t; where there is none,
    `taught_known` is 0. `taught_to[b, t]` is the next place at which the two meet, t itself where there is
    none."""

    taught_tokens: Ints  # (B, M), as the next two
    taught_positions: Ints
    taught_segments: Ints
    taught_at: Ints  # (B, L), as the next two
    taught_known: Floats
    taught_to: Ints


class Reader:
    """Reads batches of `own` tokens for a teacher with `other` ones: `reader(batch)`. longest: how many
    tokens the teacher reads at once, at least 2."""

    def __init__(self, own: Tokenizer, other: Tokenizer, *, longest: int) -> None:
        self.own, self.other, self.longest = own, other, longest
        self._bytes = [own.id_to_bytes(id) for id in range(own.vocab_size)]
        self._singles: dict[int, int] = {}  # the teacher's tokens of single bytes that are no UTF-8
        for id in sorted(set(range(other.vocab_size)) - controls(other).keys()):
            spelled = other.id_to_bytes(id)
            if len(spelled) == 1 and spelled[0] > 127:
                self._singles.setdefault(spelled[0], id)
        pairs = control_pairs(own, other)
        self._control = {
            id: [pairs[id]] if id in pairs else other.encode(name) for id, name in controls(own).items()
        }
        self._starts = (start(own), start(other))
        self._refuse_changed()

    def __call__(self, batch: Batch) -> Reread:
        """The same rows with what the teacher reads of them."""
        import numpy as np

        n_rows, length = batch.shape
        rows = [self._row(batch.tokens[b].tolist(), batch.segments[b]) for b in range(n_rows)]
        step = max(8, length // WIDTHS)
        width = step * max(1, -(-max(len(ids) for ids, *_ in rows) // step))
        ids = np.full((n_rows, width), self.other.pad_id, np.int32)
        positions, segments = np.zeros((n_rows, width), np.int32), np.zeros((n_rows, width), np.int32)
        at, to = (
            np.full((n_rows, length), -1, np.int32),
            np.tile(np.arange(length, dtype=np.int32), (n_rows, 1)),
        )
        for b, (read, place, segment, found) in enumerate(rows):
            ids[b, : len(read)], positions[b, : len(read)], segments[b, : len(read)] = read, place, segment
            at[b, : len(found)] = found
            _ends(at[b], segments[b], to[b])
        given: dict[str, Any] = {f.name: getattr(batch, f.name) for f in fields(Batch)}
        labelled = getattr(batch, "labelled", None)
        return Reread(
            **given, labelled=np.ones(n_rows, np.float32) if labelled is None else labelled,
            taught_tokens=ids, taught_positions=positions, taught_segments=segments,
            taught_at=np.maximum(at, 0), taught_known=(at >= 0).astype(np.float32), taught_to=to,
        )  # fmt: skip

    def _row(self, ids: list[int], segments: Any) -> tuple[list[int], list[int], list[int], list[int]]:
        """(the teacher's ids, their positions, their segments, its place at each of the row's places)."""
        read, positions, numbers, found = list[int](), list[int](), list[int](), [-1] * len(ids)
        for segment in range(1, int(segments.max(initial=0)) + 1):
            places = (segments == segment).nonzero()[0].tolist()
            made, at = self.text([ids[t] for t in places])
            begins: list[int] = []
            for window in self._windows(made):
                begins.append(len(read))
                read += window
                positions += range(len(window))
                numbers += [numbers[-1] + 1 if numbers else 1] * len(window)
            half = self.longest // 2
            for t, place in zip(places, at, strict=True):
                k = max(0, place - self.longest + half) // half if place >= self.longest else 0
                found[t] = begins[k] + place - k * half if place >= 0 else -1
        return read, positions, numbers, found

    def _windows(self, made: list[int]) -> list[list[int]]:
        """A text as the teacher can read it: window k begins k halves on, and is about what no earlier one
        has read."""
        half, bos = self.longest // 2, self.other.bos_id
        found = [made[: self.longest]]
        for begin in range(half, max(0, len(made) - self.longest) + half, half):
            window = made[begin : begin + self.longest]
            found.append(window if bos is None else [bos, *window[1:]])
        return found

    def text(self, ids: Sequence[int]) -> tuple[list[int], list[int]]:
        """One text: the teacher's ids, and for each of the student's the index of the teacher's token that
        ends where it ends; -1: none does."""
        made, at = list[int](), list[int]()
        i, after = 0, False
        while i < len(ids):
            if ids[i] in self._control:
                made += [self._starts[1]] if not i and ids[i] == self._starts[0] else self._control[ids[i]]
                at.append(len(made) - 1)
                i, after = i + 1, True
                continue
            end = i
            while end < len(ids) and ids[end] not in self._control:
                end += 1
            some, places = self._run([self._spelled(id) for id in ids[i:end]], after)
            at += [len(made) + place if place >= 0 else -1 for place in places]
            made += some
            i, after = end, False
        bos = self.other.bos_id
        if bos is not None and made[:1] != [bos]:  # the teacher knows no text that begins otherwise
            made, at = [bos, *made], [place + 1 if place >= 0 else -1 for place in at]
        return made, at

    def _spelled(self, id: int) -> bytes:
        return self._bytes[id] if id < len(self._bytes) else b""

    def _run(self, pieces: list[bytes], after: bool) -> tuple[list[int], list[int]]:
        """The teacher's tokens of a run of bytes, and which of them ends where each piece ends."""
        whole = b"".join(pieces)
        made: list[int] = []
        for i, part in enumerate(BROKEN.split(whole.decode("utf-8", "surrogateescape"))):
            if i % 2:
                broken = part.encode("utf-8", "surrogateescape")
                made += [self._singles[byte] for byte in broken if byte in self._singles]
            elif part:
                made += self.other.encode_inside([part], after_control=after)[0]
            after = False
        spelled = [self.other.id_to_bytes(id) for id in made]
        theirs = b"".join(spelled)
        # Some tokenizers put a space before the first word.
        lead = 1 if theirs != whole and theirs[:1] == b" " and theirs[1:2] == whole[:1] else 0
        theirs = theirs[lead:]
        same = theirs == whole
        before = len(whole) if same else len(os.path.commonprefix([whole, theirs]))
        most = min(len(whole), len(theirs)) - before
        behind = min(most, len(os.path.commonprefix([whole[::-1], theirs[::-1]]))) if not same else 0
        ends: dict[int, int] = {}
        end = -lead
        for k, part in enumerate(spelled):
            end += len(part)
            ends[end] = k
        found: list[int] = []
        end = 0
        for piece in pieces:
            end += len(piece)
            theirs_end = end if end <= before else len(theirs) - (len(whole) - end)
            known = end > 0 and (end <= before or len(whole) - end <= behind)
            found.append(ends.get(theirs_end, -1) if known else -1)
        return made, found

    def _refuse_changed(self) -> None:
        """ConfigError where one of the two does not keep what plain text says."""
        for who, tokenizer in (("student", self.own), ("teacher", self.other)):
            spelled = b"".join(map(tokenizer.id_to_bytes, tokenizer.encode(PROBE)))
            if spelled not in (PROBE.encode(), b" " + PROBE.encode()):
                raise ConfigError(
                    f"the {who}'s tokenizer changes plain text, so its tokens cannot be laid beside others",
                    hint="choose a model whose tokens spell the text: byte-level BPE or SentencePiece",
                )


def start(tokenizer: Tokenizer) -> int:
    """What a text begins with."""
    return tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id


def controls(tokenizer: Tokenizer) -> dict[int, str]:
    """The names of control tokens by their ids."""
    return {tokenizer.special[name]: name for name in sorted(tokenizer.control)}


def control_pairs(own: Tokenizer, other: Tokenizer) -> dict[int, int]:
    """Control tokens that mean the same in both: those of one name, and those that begin and end texts."""
    theirs = {name: id for id, name in controls(other).items()}
    found = {id: theirs[name] for id, name in controls(own).items() if name in theirs}
    for one, two in ((own.eos_id, other.eos_id), (own.bos_id, other.bos_id)):
        if one is not None and two is not None and one not in found and two not in found.values():
            found[one] = two
    return found


def matched(own: Tokenizer, other: Tokenizer) -> list[tuple[int, int]]:
    """Pairs of ids that stand for the same: control tokens that mean the same, and tokens of the same bytes.
    Of several with the same bytes the one that the tokenizer writes comes first."""
    groups = [_by_bytes(tokenizer) for tokenizer in (own, other)]
    pairs = list(control_pairs(own, other).items())
    for spelled, mine in groups[0].items():
        pairs += zip(mine, groups[1].get(spelled, []), strict=False)
    return sorted(pairs)


def _by_bytes(tokenizer: Tokenizer) -> dict[bytes, list[int]]:
    control = controls(tokenizer)
    found: dict[bytes, list[int]] = {}
    for id in range(tokenizer.vocab_size):
        if id not in control and (spelled := tokenizer.id_to_bytes(id)):
            found.setdefault(spelled, []).append(id)
    for spelled, ids in found.items():
        if len(ids) > 1:
            written = tokenizer.encode_inside([spelled.decode("utf-8", "replace")], after_control=False)[0]
            ids.sort(key=lambda id: ([id] != written, id))
    return found


def _ends(at: Any, segments: Any, to: Any) -> None:
    """Write for each known place the next known one that is further on for the teacher, in one reading."""
    later = -1
    for t in range(len(at) - 1, -1, -1):
        if at[t] >= 0:
            if later >= 0 and at[later] > at[t] and segments[at[later]] == segments[at[t]]:
                to[t] = later
            later = t


class Reading:
    """A source whose batches are read by a teacher, too."""

    def __init__(self, source: Any, reader: Reader) -> None:
        self.source, self.reader = source, reader
        self.parts = {name: Reading(part, reader) for name, part in getattr(source, "parts", {}).items()}
        self.weights: dict[str, float] = getattr(source, "weights", {})

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> Reread:
        return self.reader(self.source[i])

    def widest(self, i: int) -> Reread:
        """A batch that takes as much memory as any from batch i on."""
        return self.reader(getattr(self.source, "widest", self.source.__getitem__)(i))

    def share(self, n: int) -> float:
        """Of what is learned in the first n batches, how much stands where both have read the same."""
        batches = [self[i] for i in range(n)]
        known = sum(float((batch.weights * batch.taught_known).sum()) for batch in batches)
        return known / max(1.0, sum(float(batch.weights.sum()) for batch in batches))
