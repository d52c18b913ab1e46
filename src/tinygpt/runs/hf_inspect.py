"""Say what a model or a data set is, here or on the hub, without loading its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinygpt.core import hub
from tinygpt.core.errors import UnsupportedError
from tinygpt.core.events import Events
from tinygpt.model.shards import Shards
from tinygpt.runs import _data_facts, _hub, _hub_headers, _hub_place, _model_facts, _pieces


def inspect(path: Path, events: Events) -> dict[str, Any]:
    """Facts of a model directory or of hf://org/name, of whose weights only the headers are read; or of data:
    a file, a folder, or hf://datasets/org/name."""
    if _data_facts.is_data(path):
        return _data_facts.inspect(path, events)
    name = hub.parse(path)
    if name is None or _hub_place.offline():  # then what is in the cache has to do
        folder = _pieces.model_path(_hub.fetch(path, events))
        names = {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
        data = _model_facts.readable(folder)
        entries = Shards(folder, "model" if data else "adapter_model").entries
        facts: dict[str, Any] = {"path": str(name or folder)}
        lacking = ""
        pinned = hub.of_snapshot(folder)
    else:
        folder, listed = _hub_headers.look(name, events)
        names = {file.name: file.size for file in listed.values()}
        data = _model_facts.readable(folder)
        pinned = name.at(folder.name)
        facts = {"path": str(name)}
        entries, lacking = {}, ""
        try:
            entries = _hub_headers.entries(pinned, folder, listed)
        except UnsupportedError as error:  # pickles alone, or GGUF: what there is can be said all the same
            lacking = error.message
    if pinned is not None:
        facts["pinned"] = str(pinned)
    chat = _model_facts.template(folder)
    opener, why = _model_facts.opens(folder, data) if data else ("adapter", "give it as --adapter")
    opener, why = ("no", lacking) if lacking else (opener, why)
    return {
        **facts,
        "architecture": _model_facts.known_as(data) if data else "adapter",
        "opens": opener, "why": why,
        **_model_facts.tensors(entries, data),
        "quantisation": _model_facts.quantisation(data),
        **_model_facts.shape(data),
        "tokenizer": _model_facts.tokenizer(folder), "chat_template": chat,
        "card": _model_facts.card(folder),
        "files": len(names), "bytes": sum(names.values()),
        "suspicious": _model_facts.suspicious(names, data, chat),
    }  # fmt: skip
