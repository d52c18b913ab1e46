"""What is known of a prompt is not read again, and the answers are the same."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from tinygpt.core.backend import mx
from tinygpt.core.config import Pick
from tinygpt.core.errors import ConfigError
from tinygpt.core.events import Events, MemorySink
from tinygpt.data.tokenizer.byte import ByteTokenizer
from tinygpt.infer.admission import Admission, Limits
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.infer.kind import Kind
from tinygpt.infer.lane import Lane
from tinygpt.infer.prefix import Node, Prefixes
from tinygpt.infer.prefix_files import ENDING, Folder
from tinygpt.infer.request import Answer, Request
from tinygpt.model import checkpoint
from tinygpt.model.cache import parts
from tinygpt.model.config import ModelConfig
from tinygpt.model.lm import LM, initialize

SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "window": {"attention": Pick("gqa", {"window": 6})},
    "yoco": {"attention": Pick("yoco", {"window": 5})},
    "canon": {"residual": Pick("canon"), "head": Pick("pointer")},
    "mod": {"depth": Pick("mod", {"capacity": 0.5})},
    "mod-window": {"depth": Pick("mod", {"capacity": 0.5}), "attention": Pick("gqa", {"window": 6})},
    "dynamic": {"position": Pick("rope_dynamic")},
    "sinks": {},
    "quantised": {},
}
MORE = {"sinks": {"window": 12, "sinks": 2}, "quantised": {"kv_bits": 4}}
STATES = {
    "model_type": "mamba", "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "state_size": 4,
    "num_hidden_layers": 2, "conv_kernel": 4, "use_bias": False, "use_conv_bias": True, "time_step_rank": 2,
}  # fmt: skip
ROTATES = {
    "model_type": "olmo3", "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "rope_theta": 1e4,
    "num_attention_heads": 4, "num_hidden_layers": 2, "rms_norm_eps": 1e-5, "max_position_embeddings": 400,
    "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"],
}  # fmt: skip
STABLELM = {
    "model_type": "stablelm", "vocab_size": 320, "hidden_size": 64, "num_attention_heads": 4,
    "num_hidden_layers": 2, "num_key_value_heads": 2, "intermediate_size": 96, "rope_theta": 10000.0,
    "use_qkv_bias": True, "partial_rotary_factor": 0.5, "layer_norm_eps": 1e-5,
    "use_parallel_residual": False, "qk_layernorm": False, "max_position_embeddings": 400,
}  # fmt: skip
PEERS = {"plain": STABLELM, "states": STATES, "windows": ROTATES}


def engine(shape: str) -> Engine:
    config = ModelConfig(
        vocab_size=260, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=400, initializer_range=0.3, **SHAPES[shape],
    )  # fmt: skip
    return Engine(initialize(LM(config), 1), ByteTokenizer())


def foreign(path: Path, config: dict[str, Any]) -> Engine:
    from parity.test_foreign import directory

    directory(path, config)
    return Engine(checkpoint.load(path).model, ByteTokenizer())


def alone(made: Engine, request: Request, limits: Limits) -> Answer:
    lane = Lane(made, limits)
    answer = lane.submit(request)
    lane.drain()
    return answer


def compare(made: Engine, store: Prefixes, more: dict[str, Any], rng: random.Random) -> list[Answer]:
    """Chats of several turns that share their beginnings, served with and without the cache."""
    config = SampleConfig(temperature=0, max_tokens=6, seed=1, **more)
    system = [rng.randrange(256) for _ in range(30)]
    limits = Limits(rows=5, chunk=128)
    lane = Lane(made, limits, store, "a model")
    chats = [system + [rng.randrange(256) for _ in range(rng.choice([4, 7]))] for _ in range(5)]
    chats.append(list(chats[0]))
    answers: list[Answer] = []
    for _ in range(2):
        turn = []
        for prompt in chats:
            request = made.request(prompt, config, stop_ids=range(0, 250, 40), logprobs=0, boundaries=[30])
            turn.append(lane.submit(request))
            for _ in range(rng.randint(0, 3)):
                lane.step()
        lane.drain()
        for i, answer in enumerate(turn):
            wanted = alone(made, answer.request, limits)
            assert (answer.ids, answer.finish_reason) == (wanted.ids, wanted.finish_reason)
            assert answer.logprob_sum == pytest.approx(wanted.logprob_sum, abs=2e-4)
            new = [rng.randrange(256) for _ in range(rng.choice([3, 9]))]
            stop = [] if answer.stop_id is None else [answer.stop_id]
            chats[i] = [*chats[i], *answer.ids, *stop, *new]
        answers += turn
    return answers


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PIECE", 16)
    monkeypatch.setattr(parts.QuantizedKeeper, "unit", 16)
    monkeypatch.setattr("tinygpt.infer.kind.PIECE", 16)
    monkeypatch.setattr("tinygpt.model.cache.quantized.GROUP", 4)
    monkeypatch.setattr("tinygpt.model.cache.quantized.RESIDUAL", 6)


@pytest.mark.parametrize("shape", SHAPES)
def test_answers_are_the_same_and_most_is_not_read_again(shape: str) -> None:
    store = Prefixes(1 << 30, least=8)
    answers = compare(engine(shape), store, MORE.get(shape, {}), random.Random(3))
    later = answers[6:]
    assert all(answer.n_cached >= 16 for answer in later), [a.n_cached for a in answers]
    if shape != "quantised":  # what was answered is known too, so only the next question is read
        assert all(len(answer.request.prompt) - answer.n_cached <= 12 for answer in later)
    assert store.stats.hits + store.stats.misses == len(answers) and store.stats.hits >= len(later)
    assert store.stats.tokens == sum(answer.n_cached for answer in answers)
    held = [n for root in store._trees.values() for n in root.below()]
    assert store.stats.bytes == sum(node.nbytes for node in held) > 0


@pytest.mark.parametrize("kind", PEERS)
def test_models_of_mlx_lm_too(kind: str, tmp_path: Path) -> None:
    store = Prefixes(1 << 30, least=8)
    answers = compare(foreign(tmp_path, PEERS[kind]), store, {}, random.Random(3))
    assert all(answer.n_cached >= 28 for answer in answers[6:]), [a.n_cached for a in answers]


@pytest.mark.parametrize("peer", [False, True], ids=["ours", "mlx-lm"])
def test_quantised_rows_are_batched_and_are_as_if_alone(peer: bool, tmp_path: Path) -> None:
    made, rng = foreign(tmp_path, STABLELM) if peer else engine("llama"), random.Random(5)
    lane, limits = Lane(made, Limits(chunk=64)), Limits(chunk=64)
    answers = []
    for i, bits in enumerate((4, 4, 2, 4, 2, 0)):
        config = SampleConfig(temperature=0, max_tokens=12 + i, kv_bits=bits)
        prompt = [rng.randrange(256) for _ in range(rng.choice([3, 9, 14, 40]))]
        answers.append(lane.submit(made.request(prompt, config, stop_ids=(), logprobs=0)))
        lane.step()
    while len(lane._reading.answers if lane._reading else ()) or lane.waiting:
        lane.step()
    together = {kind.kv_bits: len(batch.rows) for kind, batch in lane._batches.items()}
    assert together == {4: 3, 2: 2, 0: 1}
    lane.drain()
    for answer in answers:
        wanted = alone(made, answer.request, limits)
        assert answer.ids == wanted.ids
        assert answer.logprob_sum == pytest.approx(wanted.logprob_sum, abs=1e-4)
    sums = {a.request.config.kv_bits: a.logprob_sum for a in answers}
    full = alone(made, made.request(answers[4].request.prompt, SampleConfig(temperature=0, max_tokens=16),
                                    stop_ids=(), logprobs=0), limits)  # fmt: skip
    assert abs(full.logprob_sum - sums[2]) > 1e-4, "two bits are not the whole"


def test_models_whose_caches_cannot_be_quantised_say_so() -> None:
    with pytest.raises(ConfigError, match="none of this model's caches can be quantised"):
        engine("window").request([1], SampleConfig(kv_bits=4))
    with pytest.raises(ConfigError, match="'kv_bits' and 'window' do not go together"):
        SampleConfig(kv_bits=4, window=10)
    with pytest.raises(ConfigError, match="'kv_bits' must be 0, 2, 4 or 8, got 3"):
        SampleConfig(kv_bits=3)


def test_echo_reads_everything_and_one_token_is_always_read() -> None:
    made, store = engine("llama"), Prefixes(1 << 30, least=2)
    lane, config = Lane(made, prefixes=store), SampleConfig(temperature=0, max_tokens=2)
    for echo, cached in ((False, 0), (False, 19), (True, 0)):
        answer = lane.submit(made.request(range(20), config, logprobs=0, echo=echo))
        lane.drain()
        assert answer.n_cached == cached and len(answer.prompt_logprobs) == (19 if echo else 0)


def test_what_was_not_used_for_longest_leaves_and_leaves_leave_first() -> None:
    made = engine("llama")
    each = 2 * 2 * 2 * 8 * 4  # layers, keys and values, groups, features, bytes
    store = Prefixes(100 * each, least=2)
    lane, config = Lane(made, prefixes=store), SampleConfig(temperature=0, max_tokens=1)

    def ask(prompt: list[int]) -> int:
        answer = lane.submit(made.request(prompt, config, stop_ids=()))
        lane.drain()
        return answer.n_cached

    common, one, two = list(range(40)), [1] * 20, [2] * 20
    assert [ask(common + one), ask(common + two), ask(common + one)] == [0, 40, 59]
    assert store.stats.bytes == 80 * each
    assert ask([7] * 30) == 0 and store.stats.bytes == 90 * each and store.stats.evicted == 1
    assert ask(common + two + [3]) == 40, "the end went, the beginning that others share stayed"
    assert ask([9] * 200) == 0 and store.stats.bytes <= 100 * each


def test_what_was_only_the_way_to_what_left_leaves_too() -> None:
    """Of a window nothing is kept on the way: such nodes have no bytes, and would stay for ever."""
    made, store = engine("window"), Prefixes(1 << 30, least=2)
    lane, config = Lane(made, prefixes=store), SampleConfig(temperature=0, max_tokens=1)
    for end in range(3):
        lane.submit(made.request([*range(40), *[end] * 9], config, stop_ids=()))
        lane.drain()
    held = [node for root in store._trees.values() for node in root.below()]
    assert any(node.parent and not node.nbytes for node in held)
    store.most_bytes = 0
    store.shrink()
    assert [node.tokens for root in store._trees.values() for node in root.below()] == [()]


def test_a_branch_may_be_deeper_than_calls_go() -> None:
    """A text that is completed key by key is a branch with a node for each of them."""
    store = Prefixes(4)
    node = root = store.tree("a model")
    for i in range(3000):
        node = _grown(store, node, i)
    store.touch(node)
    assert store.stats.bytes == 12000
    store.shrink()
    assert store.stats.bytes == 4 and sum(1 for _ in root.below()) == 2


def _grown(store: Prefixes, node: Node, token: int) -> Node:
    """A node below `node` that holds 4 bytes."""
    child = Node((token,), node.end, node)
    node.children[(token,)] = child
    store.grow(child, [[mx.zeros((1,))]], None)
    return child


def test_what_leaves_is_not_looked_for_among_all() -> None:
    """Lines that are run while each new text sends an old one away: of four times as many, four times as
    many."""

    def lines(n: int) -> int:
        store, count = Prefixes(4 * n), 0
        root = store.tree("a model")
        nodes = [_grown(store, root, i) for i in range(n)]

        def trace(*_: Any) -> Any:
            nonlocal count
            count += 1
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        for i in range(n):
            store.touch(_grown(store, root, n + i))
            store.shrink()
        sys.settrace(before)
        assert store.stats.evicted == n and list(root.children) == [(n + i,) for i in range(n)]
        assert not any(node.nbytes for node in nodes)
        return count

    assert lines(2000) < 5 * lines(500)


def test_a_restarted_process_goes_on_and_what_is_broken_is_passed_over(tmp_path: Path) -> None:
    made, config = engine("window"), SampleConfig(temperature=0, max_tokens=5)
    prompt = list(range(100, 160))

    def ask(folder: Folder | None, ids: list[int], identity: str = "m", kv: Engine = made) -> Answer:
        lane = Lane(kv, prefixes=Prefixes(1 << 20, folder=folder, least=4), identity=identity)
        answer = lane.submit(kv.request(ids, config, stop_ids=()))
        lane.drain()
        return answer

    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / f".a{ENDING}.tinygpt.tmp-{2**30}").write_text("of one that was killed as it wrote")
    wanted = ask(Folder(tmp_path, 1 << 20), prompt)
    files = sorted(tmp_path.glob(f"*{ENDING}"))
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}, "what was said is in them"
    assert len(files) == 2 and not list(tmp_path.glob(".*"))
    heard = MemorySink()
    again = ask(Folder(tmp_path, 1 << 20, Events(heard)), prompt)
    assert (again.n_cached, again.ids, wanted.n_cached) == (59, wanted.ids, 0)
    assert [e.text for e in heard.events] == [
        f"{tmp_path}: 1 files are no kept prompts; 0 broken ones were removed"
    ]
    longer = ask(Folder(tmp_path, 1 << 20), [*prompt, *wanted.ids[:4], 7])
    assert longer.n_cached == 64
    assert ask(Folder(tmp_path, 1 << 20), prompt, "another").n_cached == 0
    kept = {path: path.read_bytes() for path in files}
    for path, whole in kept.items():  # bytes that changed on the disk, in a file that is whole by its length
        path.write_bytes(whole[:-40] + bytes(40))
    heard.events.clear()
    wrong = ask(Folder(tmp_path, 1 << 20, Events(heard)), prompt)
    assert (wrong.n_cached, wrong.ids) == (0, wanted.ids) and "cannot be read" in heard.events[-1].text
    for path, whole in kept.items():
        path.write_bytes(whole[:-3])
    heard.events.clear()
    assert ask(Folder(tmp_path, 1 << 20, Events(heard)), prompt[:59] + [3]).n_cached == 0
    assert "2 broken ones were removed" in heard.events[0].text and (tmp_path / "notes.txt").exists()
    small = Folder(tmp_path, 1)
    assert small.entries() == [] and not list(tmp_path.glob(f"*{ENDING}"))
    assert json.dumps(sorted(p.name for p in tmp_path.iterdir())) == '["notes.txt"]'


def test_edges_that_were_divided_come_back_from_their_file(tmp_path: Path) -> None:
    made, config = engine("llama"), SampleConfig(temperature=0, max_tokens=2)

    def lane() -> Lane:
        return Lane(made, prefixes=Prefixes(1 << 20, folder=Folder(tmp_path, 1 << 20), least=4), identity="m")

    def ask(where: Lane, ids: list[int]) -> Answer:
        answer = where.submit(made.request(ids, config, stop_ids=()))
        where.drain()
        return answer

    first = lane()
    a, b = [*range(50), *[1] * 20], [*range(50), *[2] * 20]
    wanted = [ask(first, a).ids, ask(first, b).ids]
    assert len(list(tmp_path.glob(f"*{ENDING}"))) >= 2
    again = lane()
    got = [ask(again, ids) for ids in (b, a)]
    assert [x.ids for x in got] == wanted[::-1] and [x.n_cached for x in got] == [69, 69]


def test_what_cannot_fit_is_refused_and_what_does_not_fit_yet_waits() -> None:
    made = engine("llama")
    config = SampleConfig(temperature=0, max_tokens=20)
    request = made.request([1] * 44, config, stop_ids=())
    one = Admission(made, Limits(), None, "").bytes(Kind.of(request), [request])
    lane = Lane(made, Limits(bytes=2 * one + 1))
    answers = [lane.submit(made.request([i] * 44, config, stop_ids=())) for i in range(3)]
    lane.step()
    held = sum(layer.nbytes for batch in lane._batches.values() for layer in batch._decoder.cache)
    assert lane.n_running == 2 and len(lane.waiting) == 1 and held <= 2 * one
    lane.drain()
    assert all(len(answer.ids) == 20 for answer in answers)
    with pytest.raises(ConfigError, match="may need .* bytes of caches, and"):
        lane.submit(made.request([1] * 300, config))


def test_two_processes_that_keep_the_same_prompt_do_not_write_to_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each writes beside the file under a name of its own, before the name is everybody's."""
    names: list[str] = []
    real = mx.save_safetensors

    def seen(file: Any, *rest: Any) -> None:
        names.append(Path(getattr(file, "name", file)).name)
        real(file, *rest)

    monkeypatch.setattr(mx, "save_safetensors", seen)
    for pid in (101, 102):
        monkeypatch.setattr("os.getpid", lambda pid=pid: pid)
        assert Folder(tmp_path, 1 << 20).save("s", 1, (1, 2), 0, [[mx.ones((1, 1, 2, 4))]], None)
    assert len(set(names)) == 2 and [p.name.endswith(ENDING) for p in tmp_path.iterdir()] == [True]
