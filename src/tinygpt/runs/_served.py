"""The models of a server: which there are by name, and how each is opened, packed and dressed in adapters."""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tinygpt.core import files, hub
from tinygpt.core.backend import mx
from tinygpt.core.errors import CheckpointError, ConfigError, TinyGPTError
from tinygpt.core.events import Events
from tinygpt.data.tokenizer import _beside
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.engine import Engine
from tinygpt.infer.lane import Lane
from tinygpt.infer.request import Request
from tinygpt.model import checkpoint
from tinygpt.model.checkpoint import Loaded
from tinygpt.model.quantized import Packing
from tinygpt.model.shards import Shards
from tinygpt.model.twin import own_bytes, twin
from tinygpt.peft import _open
from tinygpt.runs import _model_facts, _pieces, _prompt_cache
from tinygpt.serve.job import ModelCard
from tinygpt.serve.registry import Opened

WITHIN = {"final", "model", "best"}  # folders that are named after the one they are in
FRESH = 2.0  # seconds for which what was seen on the disk is taken as it was
WARM = 3  # tokens of the answer that makes a model's compiled step


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One of --lora. name: by which requests ask for it ("model+name"); "": every answer has it."""

    name: str
    path: Path
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is served: models by name, a folder in which all are, and what is done to each when it opens.
    stops: whether the model's stop tokens end an answer."""

    models: Mapping[str, Path]
    folder: Path | None = None
    adapters: Sequence[Adapter] = ()
    force: bool = False
    packing: Packing | None = None
    context: int | None = None
    stops: bool = True
    kv_bits: int = 0


def named(text: str) -> tuple[str, Path]:
    """(name, path) of NAME=PATH, or of a path that is named after its folder."""
    name, equals, rest = text.partition("=")
    if equals and name and "/" not in name:
        if not rest or not set(name) <= set(name) - set("+ :"):
            raise ConfigError(f"'{text}' is no NAME=PATH", hint="a name has no '+', ':' or space")
        return name, Path(rest)
    path = Path(text)
    return name_of(path), path


def name_of(path: Path) -> str:
    """What a model is called: its folder's name, or that of the run that it is the outcome of."""
    if hub.is_hub(path):
        return re.split("[/@]", str(path).partition("@")[0])[-1]
    whole = Path(os.path.abspath(path))  # not where a link leads: a cache names folders after hashes
    while (whole.name in WITHIN or whole.name == "steps" or whole.name.isdecimal()) and whole.parent.name:
        whole = whole.parent
    return whole.name.replace("+", "-").replace(":", "-").replace(" ", "-") or "model"


class Packed(Engine):
    """An engine whose answers keep their keys and values in so many bits, where they say nothing else."""

    kv_bits = 0

    def request(self, prompt: Sequence[int], config: SampleConfig | None = None, **more: Any) -> Request:
        config = config or SampleConfig()
        if self.kv_bits and not config.kv_bits and not config.window:  # a window is bounded as it is
            config = replace(config, kv_bits=self.kv_bits)
        return super().request(prompt, config, **more)


@dataclass(eq=False)
class Models:
    """The `known` and `open_` of a registry. lane: makes the lane of a model's engine that was just opened;
    the card says what it is."""

    source: Source
    lane: Callable[[ModelCard, Engine], Lane]
    events: Events
    _known: tuple[float, dict[str, ModelCard]] = (-math.inf, {})
    _cards: dict[Path, tuple[Any, ModelCard]] = field(default_factory=dict[Path, tuple[Any, ModelCard]])
    _missed: set[str] = field(default_factory=set[str])  # what could not be read when last looked at
    # Without the adapters that every answer has, so that others can be put on in their place.
    # With the card of the files as they were: others may have taken their place by now.
    _bare: weakref.WeakKeyDictionary[Engine, tuple[Loaded, Any, ModelCard]] = field(
        default_factory=weakref.WeakKeyDictionary[Engine, tuple[Loaded, Any, ModelCard]]
    )

    @property
    def worn(self) -> list[Adapter]:
        """Adapters that every answer has."""
        return [adapter for adapter in self.source.adapters if not adapter.name]

    def known(self) -> dict[str, ModelCard]:
        """Every model that may be asked for, alone and with each adapter that fits it; looked up on the disk
        every few seconds."""
        now = time.monotonic()
        if now - self._known[0] > FRESH:
            self._known = (now, self._look())
        return self._known[1]

    def _look(self) -> dict[str, ModelCard]:
        """What can be read. What is gone or damaged is told once, and the others are served."""
        paths, bases, missed = self._paths(), dict[str, ModelCard](), set[str]()

        def miss(error: Exception) -> None:
            if (text := f"not served: {error}") not in self._missed | missed:
                self.events.note(text, "warning")
            missed.add(text)

        for name, path in paths.items():
            try:
                bases[name] = self._card(name, path)
            except (TinyGPTError, OSError) as error:
                miss(error)
                if name in self.source.models and name in self._known[1]:  # it may be in memory
                    bases[name] = self._known[1][name]
        found = dict(bases)
        for name, card in bases.items():
            for adapter in self.source.adapters:
                try:
                    if not adapter.name or not self._fits(adapter, paths[name]):
                        continue
                except (TinyGPTError, OSError) as error:
                    miss(error)
                    continue
                full = f"{name}+{adapter.name}"
                found[full] = replace(card, name=full, base=name, adapters=(adapter.name,))
        self._missed = missed
        return found

    def open(self, name: str, base: Engine | None) -> Opened:
        """A model, or one with adapters on the arrays of its base; warm. On the worker's thread."""
        root, *wanted = name.split("+")
        if root not in (paths := self._paths()):
            raise CheckpointError(f"the model '{root}' is no longer there")
        path = _pieces.model_path(paths[root])
        adapters = [a for each in wanted for a in self.source.adapters if a.name == each]
        if base is None:
            packing = self.source.packing or _pieces.packing_for(
                [_pieces.model_path(a.path) for a in self.worn]
            )
            own = self._card(root, path)
            loaded, tokenizer = _pieces.open_model(path, packing=packing, events=self.events)
            under = None
        else:
            loaded, tokenizer, own = self._bare[base]
            under = loaded.model
        worn = [*self.worn, *adapters]
        model, plain = loaded.model, tokenizer
        if worn:
            model = twin(loaded.model)
            tokenizer = self._dress(model, tokenizer, worn, loaded.path)
        mx.eval(model.parameters())
        n_bytes = own_bytes(model, under)  # now: a compiled step puts new handles on the same arrays
        engine = Packed(model, tokenizer, _pieces.template_of(tokenizer))
        engine.kv_bits = self.source.kv_bits
        if self.source.context is not None:
            engine.context = min(engine.context, self.source.context)
        if not self.source.stops:
            engine.stop_ids = frozenset()
        if base is None:
            self._bare[engine] = (loaded, plain, own)
        how = self.source.packing
        card = replace(
            own,
            name=name,
            base=root if wanted else "",
            adapters=tuple(wanted),
            context=int(engine.context),
            template=engine.template.source if engine.template else "",
            quantization=str(how) if how else own.quantization,
        )
        lane = self.lane(card, engine)
        warm(lane)
        return Opened(engine=engine, lane=lane, card=card, own_bytes=n_bytes)

    def check(self) -> None:
        """Refuse what is not there, before anything is opened."""
        for name, path in self.source.models.items():
            _ = self._card(name, path)
        for card in self.known().values():
            if not card.n_parameters:
                raise CheckpointError(f"the model '{card.name}' holds no weights")
        for adapter in self.source.adapters:
            _pieces.model_path(adapter.path)

    def _dress(self, model: Any, tokenizer: Any, adapters: Sequence[Adapter], path: Path) -> Any:
        """Adapters onto a model; the tokenizer with the template of the last."""
        where = [_pieces.model_path(adapter.path) for adapter in adapters]
        weights = [adapter.weight for adapter in adapters]
        force, alike = self.source.force, all(w == 1 for w in weights)
        try:
            loaded = _open.load(where, model, base=path, weights=() if alike else weights, force=force)
        except CheckpointError as error:
            raise ConfigError(error.message, hint=error.hint) from error  # of who asked for the two together
        for note in _open.told(loaded):
            self.events.note(note, "warning")
        return _pieces.asked_as(tokenizer, where[-1])

    def _paths(self) -> dict[str, Path]:
        found = dict(self.source.models)
        if self.source.folder is not None:
            for sub in sorted(self.source.folder.iterdir() if self.source.folder.is_dir() else ()):
                if sub.is_dir() and not sub.name.startswith("."):
                    try:
                        where = _pieces.model_path(sub)
                    except TinyGPTError:
                        continue  # a run that has saved nothing yet
                    if (where / "config.json").is_file() and sub.resolve() not in map(
                        Path.resolve, found.values()
                    ):
                        found.setdefault(name_of(sub), sub)
        return found

    def _card(self, name: str, path: Path) -> ModelCard:
        """Facts from a model's small files; read again when any of its files has changed."""
        folder = _pieces.model_path(path)
        own = sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []
        changed = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in own]
        if (known := self._cards.get(folder)) is None or known[0] != changed:
            known = self._cards[folder] = (changed, card_of(name, folder, path, self.source.packing))
        return replace(known[1], name=name)

    def _fits(self, adapter: Adapter, path: Path) -> bool:
        """Whether an adapter may be for a model: not where it says that it was trained on another."""
        said = files.peek_json(_pieces.model_path(adapter.path) / checkpoint.MANIFEST).get("base")
        folder = _pieces.model_path(path)
        if self.source.force or not isinstance(said, dict) or not (folder / checkpoint.MANIFEST).is_file():
            return True
        return said.get("hash") in (None, "", checkpoint.identity(folder))


def card_of(name: str, folder: Path, path: Path, packing: Packing | None = None) -> ModelCard:
    """A model as listings show it, from config.json and the headers of its tensors. packing: how its matrices
    are packed when it opens."""
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} holds no config.json", hint="give the path of a model directory")
    data = checkpoint.read_json(folder / "config.json")
    entries = Shards(folder).entries
    facts = _model_facts.tensors(entries, data)
    quant = _model_facts.quantisation(data)
    context = data.get("max_position_embeddings") or data.get("n_positions") or data.get("n_ctx") or 0
    system = path / "prompt.md"
    return ModelCard(
        name=name,
        created=int((folder / "config.json").stat().st_mtime),
        context=int(context),
        size_bytes=int(facts["weights_bytes"]),
        open_bytes=_model_facts.open_bytes(entries, packing),
        n_parameters=int(facts["parameters"]),
        digest=_prompt_cache.digest(folder, entries),
        family=str(data.get("model_type", "")),
        quantization=f"{quant.get('bits', '')} bits".strip() if quant else next(iter(facts["dtypes"]), ""),
        template=_beside.chat_template(folder) or "",
        details={"path": str(path)}
        | ({"system": system.read_text(encoding="utf-8").strip()} if system.is_file() else {}),
    )


def warm(lane: Lane) -> None:
    """Have a lane's model compile what it reads and decodes with, before a request waits for it."""
    engine = lane.engine
    prompt = engine.encode("")
    with contextlib.suppress(
        TinyGPTError, ValueError
    ):  # a template may refuse a conversation that is so short
        prompt = engine.encode_chat([{"role": "user", "content": "1"}]) if engine.template else prompt
    room = int(min(WARM, engine.context - len(prompt)))
    if room > 0:
        config = SampleConfig(temperature=0.0, max_tokens=room, seed=0)
        lane.submit(engine.request(prompt, config, stop_ids=()))
        lane.drain()
