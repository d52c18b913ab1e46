"""How a repository of the hub lays out its data: which files are rows, of which configuration and split.

A card's front matter may say it (`configs:` with patterns for each split). Where it does not, there is one
configuration, `default`, and the words train, validation and test in the names are the splits; without any of
them all files are `train`. Programs are never run: a data set that is one is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinygpt.core.errors import ConfigError, DataError, DependencyError, nearest

KINDS = ("parquet", "jsonl", "ndjson", "json", "csv", "tsv", "arrow")
PACKED = (".gz", ".zst")
NO_ROWS = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "config.json")
WORDS = {
    "train": "train|training", "validation": "validation|valid|val|dev",
    "test": "test|testing|eval|evaluation",
}  # fmt: skip
DEFAULT = "default"
LONGEST = 1 << 20  # letters of front matter that are read


@dataclass(frozen=True, kw_only=True)
class Layout:
    """configs[name][split]: the files, in order. `usual` is the configuration that is meant where none is
    named, "" where that cannot be said."""

    configs: Mapping[str, Mapping[str, Sequence[str]]]
    usual: str


def front_matter(text: str) -> dict[str, Any]:
    """The YAML between the first two lines of dashes; empty where there is none, or none that can be read."""
    head = re.match(r"\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|$)", text[:LONGEST], re.DOTALL)
    if head is None:
        return {}
    try:
        import yaml
    except ImportError as error:
        raise DependencyError("pyyaml", "hub", "a data set's card") from error
    try:
        found = yaml.safe_load(head[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def licence(front: Mapping[str, Any]) -> str:
    """What the card names, or "unknown"."""
    named = front.get("license")
    names = [one for one in (named if isinstance(named, list) else [named]) if isinstance(one, str) and one]
    if names == ["other"] and isinstance(front.get("license_name"), str):
        return f"other: {front['license_name']}"
    return " AND ".join(names) or "unknown"


def is_rows(name: str) -> bool:
    """Whether a file may hold rows."""
    base = name.rpartition("/")[2]
    return bool(kind(name)) and base not in NO_ROWS and not any(p.startswith(".") for p in name.split("/"))


def kind(name: str) -> str:
    """Which of KINDS a file is by its name; "" for another."""
    base = name.lower()
    for packed in PACKED:
        base = base.removesuffix(packed)
    suffix = base.rpartition(".")[2] if "." in base else ""
    return suffix if suffix in KINDS else ""


def layout(front: Mapping[str, Any], names: Iterable[str]) -> Layout:
    """Which files are which. DataError where there are no rows to be read."""
    every = sorted(names)
    usable = [name for name in every if is_rows(name)]
    if not usable:
        code = next((name for name in every if name.endswith(".py")), "")
        hint = "the hub keeps a Parquet copy of many: --revision refs/convert/parquet"
        what = f"only a program that would make them ({code}), and none is run" if code else "none"
        raise DataError(
            f"there are no rows in JSON, JSON lines, Parquet, CSV or Arrow: {what}", hint=hint if code else ""
        )
    said = front.get("configs")
    entries = [one for one in said if isinstance(one, Mapping)] if isinstance(said, list) else []
    configs: dict[str, dict[str, list[str]]] = {}
    for one in entries:
        splits = _declared(one, usable)
        if any(splits.values()):
            configs[str(one.get("config_name", DEFAULT))] = splits
    if not configs:
        configs = {DEFAULT: _by_words(_one_kind(usable))}
        return Layout(configs=configs, usual=DEFAULT)
    chosen = [str(one.get("config_name", DEFAULT)) for one in entries if one.get("default") is True]
    usual = next((name for name in (*chosen, DEFAULT) if name in configs), "")
    return Layout(configs=configs, usual=usual or (next(iter(configs)) if len(configs) == 1 else ""))


def choose(found: Layout, config: str, split: str) -> tuple[str, str, Sequence[str]]:
    """(configuration, split, files) that are meant; ConfigError with the names where they are not there."""
    name = config or found.usual
    if name not in found.configs:
        known = ", ".join(found.configs)
        if not config:
            raise ConfigError(f"it has {len(found.configs)} configurations", hint=f"--config-name: {known}")
        raise ConfigError(
            f"no configuration '{config}'.{nearest(config, found.configs)}", hint=f"it has: {known}"
        )
    splits = {key: files for key, files in found.configs[name].items() if files}
    usual = "train" if "train" in splits else next(iter(splits)) if len(splits) == 1 else ""
    wanted = split or usual
    if wanted not in splits:
        known = ", ".join(splits)
        if not split:
            raise ConfigError(f"'{name}' has {len(splits)} splits", hint=f"--split: {known}")
        raise ConfigError(f"no split '{split}'.{nearest(split, splits)}", hint=f"it has: {known}")
    return name, wanted, splits[wanted]


def features(front: Mapping[str, Any], config: str) -> dict[str, str]:
    """Columns and their types, as the card declares them; empty where it does not."""
    info = front.get("dataset_info")
    infos = [one for one in (info if isinstance(info, list) else [info]) if isinstance(one, Mapping)]
    named = [one for one in infos if str(one.get("config_name", DEFAULT)) == config] or infos[:1]
    told = named[0].get("features") if named else None
    found = [one for one in told if isinstance(one, Mapping)] if isinstance(told, list) else []
    return {str(one.get("name")): _type(one) for one in found}


def _type(feature: Mapping[str, Any]) -> str:
    for key in ("dtype", "list", "sequence", "struct", "class_label"):
        value = feature.get(key)
        if isinstance(value, str):
            return value if key == "dtype" else f"{key} of {value}"
        if isinstance(value, list):
            return f"{key} of {{{', '.join(str(v.get('name')) for v in value if isinstance(v, Mapping))}}}"
        if value is not None:
            return key
    return "unknown"


def _declared(entry: Mapping[str, Any], names: Sequence[str]) -> dict[str, list[str]]:
    """The splits of one configuration of the front matter."""
    told, folder = entry.get("data_files"), str(entry.get("data_dir") or "").strip("/")
    inside = [name for name in names if not folder or name.startswith(f"{folder}/")]
    if told is None:
        return _by_words(_one_kind(inside))
    parts = told if isinstance(told, list) else [told]
    splits: dict[str, list[str]] = {}
    for part in parts:
        one = part if isinstance(part, Mapping) else {"split": "train", "path": part}
        if "split" not in one and "path" not in one:  # {train: pattern, test: pattern}
            pairs = [(str(key), value) for key, value in one.items()]
        else:
            pairs = [(str(one.get("split", "train")), one.get("path"))]
        for split, paths in pairs:
            patterns = [_pattern(str(p)) for p in (paths if isinstance(paths, list) else [paths]) if p]
            matched = [n for n in names if any(p.fullmatch(n) for p in patterns)]
            there = splits.setdefault(split, [])
            there += [name for name in matched if name not in there]
    return splits


def _pattern(text: str) -> re.Pattern[str]:
    """A pattern of the hub's: `*` stops at a slash, `**` does not; a folder means what is below it."""
    text = text.removeprefix("./").strip("/")
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", text)
    means = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    body = "".join(means.get(part, re.escape(part)) for part in parts)
    return re.compile(rf"{body}(?:/.*)?", re.DOTALL)


def _one_kind(names: Sequence[str]) -> list[str]:
    """The files of the commonest kind: a repository may hold the same rows in two. Ties go to the first of
    KINDS."""
    if not names:
        return []
    count = Counter(kind(name) for name in names)
    best = max(KINDS, key=lambda one: (count[one], -KINDS.index(one)))
    return [name for name in names if kind(name) == best]


def _by_words(names: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for split, words in WORDS.items():
        word = re.compile(rf"(?<![a-zA-Z])(?:{words})(?![a-zA-Z])", re.IGNORECASE)
        if there := [name for name in names if word.search(name)]:
            found[split] = there
    return found or {"train": list(names)}
