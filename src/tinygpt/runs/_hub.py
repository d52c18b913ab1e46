"""Models on the Hugging Face hub: which files are needed, fetched once, pinned to a commit, found offline.

They lie in the hub's own cache (`HF_HUB_CACHE`), as `transformers` and `mlx_lm` have them. Beside it, in
tinygpt's cache, a record for each commit lists the files that were checked; with it nothing is asked again.
Only configs, tokenizers, templates, model cards and safetensors are taken: no pickle and no code."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

from tinygpt.core import files, hub
from tinygpt.core.config import fields, flag
from tinygpt.core.errors import (
    CheckpointError,
    ConfigError,
    RemoteError,
    TinyGPTError,
    UnsupportedError,
)
from tinygpt.core.events import Events
from tinygpt.core.hub import HubName
from tinygpt.runs._hub_place import cache, last_commit, library, offline, refer
from tinygpt.runs._hub_refusal import Unreachable, page, refusal
from tinygpt.runs._hub_take import is_there, take
from tinygpt.runs._transfer import Remote

C = TypeVar("C")
Part = Literal["model", "tokenizer", "card"]
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json",
    "additional_chat_templates/*.jinja", "config.json", "generation_config.json",
)  # fmt: skip
CARD = (
    *TOKENIZER, "README.md", "LICENSE*", "quantize_config.json", "quant_config.json", "adapter_config.json",
    "tinygpt.json", "run.json", "*.safetensors.index.json",
)  # fmt: skip
WEIGHTS = ("model.safetensors", "adapter_model.safetensors", "adapters.safetensors")
INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".onnx", ".npz")
MODELS = ("model", "base", "adapter", "teacher", "reference", "models")  # settings that may name the hub's


def fetch(path: Path | str, events: Events | None = None, part: Part = "model") -> Path:
    """The folder of a model on the hub, fetched where it is not there whole; another path comes back as is.

    `part`: all of it, what its tokenizer needs, or the small files that say what it is."""
    name = hub.parse(path)
    return Path(path) if name is None else _fetch(name, events or Events(), part)


def pinned(config: C, events: Events) -> C:
    """A run's config whose models of the hub are fetched and named by their commits, so that what it records
    means the same tomorrow. A resumed run stays with the commits that it began with."""
    changed: dict[str, Any] = {}
    for f in fields(type(config)):
        value = getattr(config, f.name)
        many = value if isinstance(value, tuple) else (value,)
        token = f.name == "tokenizer"
        if not any(hub.is_hub(one) for one in many if isinstance(one, Path) or (token and one)):
            continue
        if not token and f.name not in MODELS:
            raise ConfigError(
                f"{flag(f.name)} {hub.spelled(many[0])}: only models, adapters and tokenizers are read there",
                hint="give a path of this machine",
            )
        part: Part = "tokenizer" if token else "model"
        new = tuple(_pin(config, f.name, one, events, part) if hub.is_hub(one) else one for one in many)
        changed[f.name] = new if isinstance(value, tuple) else new[0]
    return dataclasses.replace(config, **changed) if changed else config  # type: ignore[type-var]


def _pin(config: Any, field: str, value: Path | str, events: Events, part: Part) -> Path | str:
    name = hub.parse(value)
    assert name is not None, value
    if getattr(config, "resume", False) and not name.pinned:
        began = files.peek_json(config.out / "run.json").get("config", {})
        old = hub.parse(str(began.get(field))) if isinstance(began, dict) else None
        name = old if old is not None and old.repo == name.repo and old.pinned else name
    folder = _fetch(name, events, part)
    return type(value)(str(name.at(folder.name)))


def listing(name: HubName) -> tuple[str, dict[str, Remote]]:
    """(commit, its files by name) as the hub has them."""
    return described(name)[:2]


def described(name: HubName) -> tuple[str, dict[str, Remote], str]:
    """The same, and how it is gated: "" where it is not, else the hub's word for who may have it."""
    api = library()
    hub_api = api.HfApi()
    try:
        ask = hub_api.dataset_info if name.kind == "dataset" else hub_api.model_info
        info = ask(
            name.repo, revision=name.revision or None, files_metadata=True,
            timeout=api.constants.HF_HUB_ETAG_TIMEOUT,
        )  # fmt: skip
        found = {
            s.rfilename: Remote(
                s.rfilename, s.lfs.size if s.lfs else s.size, s.lfs.sha256 if s.lfs else s.blob_id
            )
            for s in info.siblings or ()
        }
    except Exception as error:
        raise refusal(name, error) from error
    odd = [f for f in found.values() if not _is_sane(f)]
    if odd or not isinstance(info.sha, str) or hub.COMMIT.fullmatch(info.sha) is None:
        what = f"the file {odd[0].name!r}" if odd else "no commit"
        raise RemoteError(
            f"the hub's answer about {name} makes no sense: it lists {what}", hint="check HF_ENDPOINT"
        )
    return info.sha, found, str(info.gated or "")


def _is_sane(file: Remote) -> bool:
    """Whether a listed file can be put below a folder, and checked."""
    path = PurePosixPath(file.name)
    inside = (
        not path.is_absolute() and ".." not in path.parts and "\\" not in file.name and "\0" not in file.name
    )
    return (
        inside and file.size >= 0 and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", file.etag or "") is not None
    )


def _record(name: HubName, commit: str, part: Part) -> Path:
    return files.cache_dir("hub", name.repo.replace("/", "--")) / f"{commit}.{part}.json"


def _fetch(name: HubName, events: Events, part: Part) -> Path:
    there = cache(name)
    if name.pinned and _is_here(name, name.revision, part):
        return there / "snapshots" / name.revision
    if offline():
        return _cached(name, part, RemoteError("HF_HUB_OFFLINE is set"))
    try:
        commit, listed = listing(name)
    except RemoteError as error:
        if not isinstance(error, Unreachable):
            raise
        folder = _cached(name, part, error)
        events.note(f"{error.message}: {name} is taken from the cache, as of commit {folder.name}", "warning")
        return folder
    if not _is_here(name, commit, part):
        _download(name, commit, listed, part, events)
    refer(name, commit)
    return there / "snapshots" / commit


def _download(name: HubName, commit: str, listed: dict[str, Remote], part: Part, events: Events) -> None:
    """Fetch what is needed of a commit, and record that it is whole."""
    small = _matching(listed, TOKENIZER if part == "tokenizer" else CARD)
    if not small and not (part == "model" and set(WEIGHTS) & set(listed)):
        raise UnsupportedError(f"{name} holds no model that could be opened", hint=f"look at {page(name)}")
    take(name, commit, small, events)
    taken = small
    if part == "model":
        found = weights(name, cache(name) / "snapshots" / commit, listed)
        take(name, commit, found, events)
        taken = [*small, *found]
    _write_record(name, commit, part, taken)


def _matching(listed: dict[str, Remote], patterns: tuple[str, ...]) -> list[Remote]:
    def wanted(file: str) -> bool:
        return any(fnmatch.fnmatchcase(file, p) and file.count("/") == p.count("/") for p in patterns)

    return [file for name, file in sorted(listed.items()) if wanted(name)]


def weights(name: HubName, folder: Path, listed: dict[str, Remote]) -> list[Remote]:
    """The tensor files of a repository: those that its index or its manifest names, or the one there is."""
    names = [n for n in WEIGHTS if n in listed]
    if "tinygpt.json" in listed:
        inside = files.peek_json(folder / "tinygpt.json").get("files", {})
        names = [str(n) for n in inside if str(n).endswith((".safetensors", ".json", ".txt"))]
    elif INDEX in listed:
        placed = files.peek_json(folder / INDEX).get("weight_map", {})
        names = sorted({str(n) for n in placed.values()} if isinstance(placed, dict) else ())
    if missing := [n for n in names if n not in listed]:
        raise CheckpointError(f"{name} lacks {missing[0]}, which it lists", hint=f"look at {page(name)}")
    if odd := [n for n in names if not n.endswith((".safetensors", ".json", ".txt"))]:
        raise CheckpointError(f"{name} keeps its tensors in {odd[0]}, no safetensors file")
    if not names:
        pickled = next((n for n in sorted(listed) if n.endswith(PICKLES)), None)
        gguf = next((n for n in sorted(listed) if n.endswith(".gguf")), None)
        what = (
            f"only pickled weights ({pickled}), which could run code" if pickled else "no model.safetensors"
        )
        what = f"GGUF files only ({gguf})" if gguf and not pickled else what
        raise UnsupportedError(f"{name} holds {what}", hint="choose a repository with safetensors")
    return [listed[n] for n in names]


def _write_record(name: HubName, commit: str, part: Part, taken: list[Remote]) -> None:
    listed = {f.name: {"bytes": f.size, "etag": f.etag} for f in taken}
    files.write_json(_record(name, commit, part), {"name": str(name.at(commit)), "files": listed})


def _is_here(name: HubName, commit: str, part: Part) -> bool:
    """Whether a commit was fetched and checked, and each file is still there at its size."""
    listed = files.peek_json(_record(name, commit, part)).get("files")
    folder = cache(name) / "snapshots" / commit
    if not isinstance(listed, dict) or not listed:
        return False
    return all(
        (folder / n).is_file() and (folder / n).stat().st_size == f["bytes"] for n, f in listed.items()
    )


def _cached(name: HubName, part: Part, why: TinyGPTError) -> Path:
    """What the cache has of a model when nobody can be asked. What another tool fetched is checked by the
    hashes that its blobs are named by."""
    commit = last_commit(name)
    folder = cache(name) / "snapshots" / commit
    absent = RemoteError(
        f"{name} is not in the cache, and {why.message}",
        hint="connect, or unset HF_HUB_OFFLINE, to fetch it; or give a path of this machine",
    )
    if not hub.COMMIT.fullmatch(commit) or not folder.is_dir():
        raise absent
    if _is_here(name, commit, part):
        return folder
    found = {r.name: r for r in _blobs(folder)}
    wanted = _matching(found, TOKENIZER if part == "tokenizer" else CARD)
    try:
        wanted += weights(name, folder, found) if part == "model" else []
    except (CheckpointError, UnsupportedError) as error:
        raise absent from error
    if not wanted or any(not is_there(cache(name) / "blobs" / f.etag, f) for f in wanted):
        raise absent
    _write_record(name, commit, part, wanted)
    return folder


def _blobs(folder: Path) -> Iterator[Remote]:
    """The files of a snapshot that are links to blobs, as a listing would have them."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        etag = path.resolve().name
        if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", etag):
            yield Remote(path.relative_to(folder).as_posix(), path.stat().st_size, etag)
