"""Prefixes: what models have read, in a radix tree over tokens, so that nothing is read twice.

A node stands for the tokens on the edge that leads to it, and holds what layers keep of them. A prompt goes
down the tree as far as its tokens agree; what lies on that way is put into fresh caches, and only the rest is
read. Where all layers can be cut at any token, any agreement is a hit; where one cannot (a window, a
recurrent state), only a node at whose end a snapshot was taken. What was not used for longest leaves first,
the ends of branches before their beginnings. With a folder, nodes are files too, and come back after a
restart.
Source: Zheng et al. 2024, arXiv:2312.07104 (RadixAttention: the tree, and leaves by last use).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinygpt.core.backend import mx
from tinygpt.infer.prefix_files import Entry, Folder
from tinygpt.model.cache.parts import Arrays, Keeper, Snapshot, keeper

LEAST = 16  # tokens that a hit saves at least: fewer are read as fast


@dataclass
class Stats:
    """What the cache was good for: requests that found something and that did not, tokens not read again,
    nodes that left, bytes held."""

    hits: int = 0
    misses: int = 0
    tokens: int = 0
    evicted: int = 0
    bytes: int = 0


@dataclass(eq=False)
class Node:
    """An edge of the tree and what is kept of its tokens."""

    tokens: tuple[int, ...]
    start: int
    parent: Node | None
    parts: list[Arrays] | None = None  # by layer; None: in a file, if anywhere
    snapshot: list[Snapshot] | None = None
    children: dict[tuple[int, ...], Node] = field(default_factory=dict)
    nbytes: int = 0
    part_file: Entry | None = None  # holds the tokens of the edge, and perhaps others around them
    end_file: Entry | None = None  # holds the snapshot

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    @property
    def has_end(self) -> bool:
        return self.snapshot is not None or self.end_file is not None

    def below(self) -> Iterator[Node]:
        """The node and all under it."""
        waiting = [self]  # a chat's branch is as deep as it has turns: deeper than calls may go
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(node.children.values())


@dataclass(frozen=True)
class Hit:
    """The first `n` tokens of a prompt are known: these nodes, of each so many tokens."""

    n: int
    path: tuple[tuple[Node, int], ...]


class Prefixes:
    """All that is kept, for any number of models, in at most so many bytes. Used by one thread."""

    def __init__(self, most_bytes: int, *, folder: Folder | None = None, least: int = LEAST) -> None:
        self.most_bytes, self.least, self.folder = most_bytes, least, folder
        self.stats = Stats()
        self._trees: dict[str, Node] = {}
        # Nodes with something in memory: what was not used for longest first, and of what was used at once
        # the ends of branches before their beginnings.
        self._held: OrderedDict[Node, None] = OrderedDict()
        for entry in sorted(folder.entries() if folder else (), key=lambda e: (e.start, len(e.tokens))):
            self._remember(entry)

    def of(self, identity: str, make: Callable[[Any], list[Any]], limit: int | None = None) -> Known:
        """The part of one model. identity: names its weights, adapter and packing; what has another one is
        never mixed with it. make: empty caches of a kind. limit: tokens that a prompt may have, and what is
        kept, where longer texts are read otherwise."""
        return Known(self, identity, make, limit)

    def tree(self, scope: str) -> Node:
        """The root of one model's and one kind's tree."""
        return self._trees.setdefault(scope, Node((), 0, None))

    def count(self, cached: Sequence[int]) -> None:
        """Note how many tokens of each prompt were known."""
        self.stats.hits += sum(1 for n in cached if n)
        self.stats.misses += sum(1 for n in cached if not n)
        self.stats.tokens += sum(cached)

    def touch(self, node: Node | None) -> None:
        """Note that a node, and so all above it, was used."""
        while node is not None:
            if node in self._held:
                self._held.move_to_end(node)
            node = node.parent

    def grow(self, node: Node, parts: list[Arrays] | None, snapshot: list[Snapshot] | None) -> None:
        """Let a node hold these."""
        if parts is not None:
            node.parts = parts
        if snapshot is not None:
            node.snapshot = snapshot
        arrays = [*_arrays(parts or ()), *_snapshot_arrays(snapshot or ())]
        mx.eval(arrays)
        self._count(node)

    def _count(self, node: Node) -> None:
        arrays = [*_arrays(node.parts or ()), *_snapshot_arrays(node.snapshot or ())]
        n = sum(x.nbytes for x in arrays)
        self.stats.bytes += n - node.nbytes
        node.nbytes = n
        if n:
            self._held.setdefault(node)
        else:
            self._held.pop(node, None)

    def shrink(self) -> None:
        """Drop what was not used for longest, until the bytes fit."""
        while self.stats.bytes > self.most_bytes:
            oldest = next(iter(self._held))
            self.stats.evicted += 1
            oldest.parts = oldest.snapshot = None
            self._count(oldest)
            if oldest.part_file is None:
                self.remove(oldest)

    def remove(self, node: Node) -> None:
        """Cut a node off, with all under it, and those above that were only the way to it."""
        for one in node.below():
            one.parts = one.snapshot = one.part_file = one.end_file = None
            self._count(one)
        while (parent := node.parent) is not None:
            key = node.tokens[: len(next(iter(parent.children), ()))]  # all are of one length
            if parent.children.get(key) is node:
                del parent.children[key]
            if parent.children or parent.nbytes or parent.part_file or parent.end_file:
                return
            node = parent

    def forget_files(self, gone: Sequence[Entry]) -> None:
        """These files are no longer there."""
        names = {entry.path for entry in gone}
        for root in self._trees.values() if names else ():
            for node in list(root.below()):
                if node.end_file is not None and node.end_file.path in names:
                    node.end_file = None
                if node.part_file is not None and node.part_file.path in names:
                    node.part_file = None
                    if node.parts is None:
                        self.remove(node)

    def _remember(self, entry: Entry) -> None:
        """A file of an earlier process becomes a node that is not in memory yet."""
        root = self.tree(entry.scope)
        node, at = walk(self, root, entry.tokens[: entry.start], entry.unit, None)
        if at != entry.start:
            return  # what it goes on from is not there
        if entry.start == len(entry.tokens):
            node.end_file = entry
            return
        node, at = walk(self, node, entry.tokens, entry.unit, None)
        if at < len(entry.tokens):
            child = Node(entry.tokens[at:], at, node, part_file=entry)
            node.children[child.tokens[: entry.unit]] = node = child
        node.end_file = entry if entry.has_end else node.end_file


class Known:
    """What is kept of one model."""

    def __init__(
        self, store: Prefixes, identity: str, make: Callable[[Any], list[Any]], limit: int | None
    ) -> None:
        self.store, self._make, self._limit = store, make, limit
        self._identity = identity
        self._scopes: dict[Any, tuple[str, list[Keeper], Node]] = {}

    def _scope(self, kind: Any) -> tuple[str, list[Keeper], Node]:
        if kind not in self._scopes:
            keepers = [keeper(layer) for layer in self._make(kind)]
            names = ",".join(type(one).__name__ for one in keepers)
            scope = hashlib.sha256(f"{self._identity}\n{kind}\n{names}".encode()).hexdigest()
            self._scopes[kind] = scope, keepers, self.store.tree(scope)
        return self._scopes[kind]

    def unit(self, kind: Any) -> int:
        """Where prompts of this kind may be cut: at multiples of it."""
        return max(one.unit for one in self._scope(kind)[1])

    def needs_end(self, kind: Any) -> bool:
        """Whether a hit needs a snapshot."""
        return any(one.needs_end for one in self._scope(kind)[1])

    def find(self, kind: Any, prompt: Sequence[int]) -> Hit | None:
        """How much of a prompt is known, if that is worth it; its last token is never part of it."""
        if self._limit is not None and len(prompt) > self._limit:
            return None
        unit, needs_end = self.unit(kind), self.needs_end(kind)
        tokens = tuple(prompt[: (len(prompt) - 1) // unit * unit])
        node, at, path, best = self._scope(kind)[2], 0, [], (0, 0)
        while (child := node.children.get(tokens[at : at + unit])) is not None and at < len(tokens):
            k = common(child.tokens, tokens[at:]) // unit * unit
            if not k:
                break
            path.append((child, k))
            at += k
            if not needs_end or (k == len(child.tokens) and child.has_end):
                best = at, len(path)
            if k < len(child.tokens):
                break
            node = child
        n, depth = best
        return Hit(n, tuple(path[:depth])) if n >= max(1, self.store.least) else None

    def restore(self, kind: Any, hit: Hit, caches: list[Any]) -> bool:
        """Put what is known into empty caches of one row; False where a file of it is gone or broken."""
        _, keepers, _ = self._scope(kind)
        if not all(self._warm(node, keepers) for node, _ in hit.path):
            return False
        last = hit.path[-1][0]
        if self.needs_end(kind) and not self._warm_end(last):
            return False
        self.store.touch(last)
        if self.store.folder is not None:
            self.store.folder.touch([node.part_file for node, _ in hit.path])
        ends: Sequence[Snapshot] = last.snapshot or [{}] * len(keepers)
        for i, (one, layer) in enumerate(zip(keepers, caches, strict=True)):
            parts = []
            for node, k in hit.path:
                assert node.parts is not None
                part = node.parts[i]
                parts.append(part if k == len(node.tokens) else one.divide(part, node.start, k)[0])
            one.restore(layer, parts, ends[i], hit.n)
        self.store.shrink()
        return True

    def knows(self, kind: Any, prompt: Sequence[int], n: int) -> bool:
        """Whether a snapshot of the first n tokens is there."""
        node, at = self._scope(kind)[2], 0
        unit, tokens = self.unit(kind), tuple(prompt[:n])
        while at < n and (child := node.children.get(tokens[at : at + unit])) is not None:
            if child.tokens != tokens[at : child.end]:
                return False
            node, at = child, child.end
        return at == n and node.has_end

    def keep(self, kind: Any, text: Sequence[int], caches: list[Any], row: int, pad: int) -> None:
        """Keep what the caches hold of a row whose text this is, so far as it can be cut."""
        store, (scope, keepers, root) = self.store, self._scope(kind)
        unit, needs_end = self.unit(kind), self.needs_end(kind)
        n = len(text) if self._limit is None else min(len(text), self._limit)
        tokens = tuple(text[: n // unit * unit])
        if len(tokens) < store.least or (needs_end and len(tokens) < len(text)):
            return
        node, at = walk(store, root, tokens, unit, keepers)
        parts = snapshot = None
        if at < len(tokens):
            parts = [one.cut(layer, row, pad, at, len(tokens)) for one, layer in zip(keepers, caches)]
            child = Node(tokens[at:], at, node)
            node.children[child.tokens[:unit]] = child
            node = child
        if needs_end and not node.has_end:
            snapshot = [one.snapshot(layer, row, pad) for one, layer in zip(keepers, caches)]
        if parts is not None or snapshot is not None:
            store.grow(node, parts, snapshot)
            self._save(scope, unit, tokens, node, parts, snapshot)
        store.touch(node)
        store.shrink()

    def _save(
        self, scope: str, unit: int, tokens: tuple[int, ...], node: Node, parts: Any, snapshot: Any
    ) -> None:
        folder = self.store.folder
        if folder is None:
            return
        start = node.start if parts is not None else len(tokens)
        entry = folder.save(scope, unit, tokens, start, parts, snapshot)
        if entry is None:
            return
        if parts is not None:
            node.part_file = entry
        if snapshot is not None:
            node.end_file = entry
        self.store.forget_files(folder.shrink())

    def _warm(self, node: Node, keepers: list[Keeper]) -> bool:
        """Have a node in memory."""
        if node.parts is not None:
            return True
        entry = node.part_file
        found = None if entry is None or self.store.folder is None else self.store.folder.parts(entry)
        if entry is None or found is None or len(found) != len(keepers):
            self.store.remove(node)
            return False
        parts = []
        for one, part in zip(keepers, found):
            part = one.divide(part, entry.start, node.end - entry.start)[0]
            parts.append(one.divide(part, entry.start, node.start - entry.start)[1])
        self.store.grow(node, parts, None)
        return True

    def _warm_end(self, node: Node) -> bool:
        if node.snapshot is None and node.end_file is not None and self.store.folder is not None:
            found = self.store.folder.snapshot(node.end_file)
            if found is None:
                node.end_file = None
            else:
                self.store.grow(node, None, found)
        return node.snapshot is not None


def walk(
    store: Prefixes, node: Node, tokens: Sequence[int], unit: int, keepers: list[Keeper] | None
) -> tuple[Node, int]:
    """The node that ends where the tokens last agree with the tree below `node`, and how many did. An edge
    that agrees in part is divided."""
    tokens, at = tuple(tokens), node.end
    while at < len(tokens) and (child := node.children.get(tokens[at : at + unit])) is not None:
        k = common(child.tokens, tokens[at:]) // unit * unit
        if k < len(child.tokens):
            return _divided(store, child, k, unit, keepers), at + k
        node, at = child, at + k
    return node, at


def _divided(store: Prefixes, node: Node, k: int, unit: int, keepers: list[Keeper] | None) -> Node:
    """The node of the first k tokens of an edge, with the rest below it."""
    assert node.parent is not None
    upper = Node(node.tokens[:k], node.start, node.parent, part_file=node.part_file)
    node.parent.children[upper.tokens[:unit]] = upper
    if node.parts is not None and keepers is not None:
        both = [one.divide(part, node.start, k) for one, part in zip(keepers, node.parts)]
        node.parts = [right for _, right in both]
        store.grow(upper, [left for left, _ in both], None)
        mx.eval(_arrays(node.parts))
    node.tokens, node.start, node.parent = node.tokens[k:], node.start + k, upper
    upper.children[node.tokens[:unit]] = node
    store.grow(node, None, None)
    return upper


def common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """How many first tokens are the same."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    return next(i for i in range(n) if a[i] != b[i])


def _arrays(parts: Sequence[Arrays]) -> list[mx.array]:
    return [x for part in parts for x in part]


def _snapshot_arrays(snapshots: Sequence[Snapshot]) -> list[mx.array]:
    return [x for one in snapshots for x in one.values()]
