"""Any tokenizer.json: a Hugging Face model directory or one trained here, read through `tokenizers` alone.

Byte-level BPE (GPT-2, Llama 3, Qwen, ours) and SentencePiece-like files (Llama 2, Gemma) are read. Which ids
begin, end and pad a text comes from tokenizer_config.json, special_tokens_map.json, generation_config.json
and config.json beside it.
Differs: names of control tokens inside a text are plain text unless asked otherwise, so that what a person
wrote cannot end a turn; no bos or eos is added, since the source or the template says where they belong.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinygpt.core.errors import DataError, UnsupportedError
from tinygpt.core.files import write_json, write_text
from tinygpt.data.tokenizer._beside import prefix, read, template_files, templates, without_prefix
from tinygpt.data.tokenizer._files import byte_letters, config_json, content_hash
from tinygpt.data.tokenizer._protocol import Stream

if TYPE_CHECKING:
    import numpy as np
    import tokenizers
    from numpy.typing import NDArray

# Control tokens that end an answer in the common chat formats; with any of these names an id is a stop id.
TURN_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "</s>", "<eos>")
# Tags of tools and thoughts: control tokens where a tokenizer has them and no template says which it uses.
TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "config.json")


class HFTokenizer:
    """See `Tokenizer`. `definition` is a parsed tokenizer.json, `beside` the parsed JSON files next to it."""

    def __init__(
        self, definition: dict[str, Any], beside: dict[str, dict[str, Any]], where: str = "tokenizer.json"
    ) -> None:
        self.definition = definition
        self._beside = beside
        self._where = where
        self.folder: Path | None = None
        added = definition.get("added_tokens") or []
        self.special: dict[str, int] = {token["content"]: token["id"] for token in added}
        vocab = self._full.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocab.values(), default=-1) + 1
        self._names = {id: name for name, id in vocab.items()}
        self._to_bytes, self._strip = _byte_reader(definition, where)
        eos = self._ids("eos")
        if not eos:
            raise DataError(
                f"{where} does not say which token ends a text", hint="add eos_token to tokenizer_config.json"
            )
        self.eos_id = eos[0]
        self.stop_ids = tuple(dict.fromkeys(eos + [self.special[n] for n in TURN_ENDS if n in self.special]))
        self.bos_id: int | None = next(iter(self._ids("bos")), None)
        self.pad_id = next(iter(self._ids("pad")), self.eos_id)
        self.chat_templates = templates(beside.get("tokenizer_config.json", {}).get("chat_template"))
        self.chat_template: str | None = self.chat_templates.get("default")
        literal = "\0".join(self.chat_templates.values()) or "\0".join(TAGS)
        self.control = frozenset(
            token["content"]
            for token in added
            if token.get("special") or (token["content"].strip() and token["content"] in literal)
        )
        self.tags = self.control - {token["content"] for token in added if token.get("special")}
        self.swallows = {
            token["content"]: (bool(token.get("lstrip")), bool(token.get("rstrip")))
            for token in added
            if token["content"] in self.control and (token.get("lstrip") or token.get("rstrip"))
        }

    @property  # as the protocol has it: a cached one is another type
    def hash(self) -> str:
        return self._hash

    @functools.cached_property
    def _hash(self) -> str:
        return content_hash(self.definition, self.eos_id, self.bos_id, self.pad_id)

    @functools.cached_property
    def _full(self) -> tokenizers.Tokenizer:
        """Knows control tokens in text."""
        return _library(self.definition, self._where)

    @functools.cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """Reads control tokens in text as plain text; the library can do so for special ones, so mark all."""
        return self._reads_plain(self.definition)

    @functools.cached_property
    def _inside(self) -> tuple[tokenizers.Tokenizer, tokenizers.Tokenizer]:
        """Like `_plain`, for pieces inside a text: (after a control token, after other text)."""
        where = prefix(self.definition)
        if where == "never":
            return self._plain, self._plain
        bare = self._reads_plain(without_prefix(self.definition))
        return (bare if where == "first" else self._plain), bare

    def _reads_plain(self, definition: dict[str, Any]) -> tokenizers.Tokenizer:
        added = [
            {**token, "special": token["content"] in self.control}
            for token in definition.get("added_tokens") or []
        ]
        plain = _library({**definition, "added_tokens": added}, self._where)
        plain.encode_special_tokens = True
        return plain

    def encode(self, text: str, special: bool = False) -> list[int]:
        return (self._full if special else self._plain).encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [e.ids for e in self._plain.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_inside(self, texts: Sequence[str], *, after_control: bool) -> list[list[int]]:
        library = self._inside[0 if after_control else 1]
        return [e.ids for e in library.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_arrays(self, texts: Sequence[str]) -> list[NDArray[np.integer[Any]]]:
        import numpy as np

        found = self._plain.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(e.ids, np.uint32) for e in found]

    def __reduce__(self) -> tuple[Any, ...]:
        return HFTokenizer, (self.definition, self._beside, self._where)  # for processes that help

    @property
    def names(self) -> dict[str, str]:
        return self._told

    @functools.cached_property
    def _told(self) -> dict[str, str]:
        settings = [self._beside.get(file, {}) for file in BESIDE[:2]]
        found: dict[str, str] = {}
        for which in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
            key = f"{which}_token"
            said = next((s[key] for s in settings if key in s), None)
            name = said.get("content") if isinstance(said, dict) else said
            if isinstance(name, str):
                found[key] = name
        more = settings[0].get("extra_special_tokens")
        found |= {k: v for k, v in more.items() if isinstance(v, str)} if isinstance(more, dict) else {}
        return {"eos_token": self._names[self.eos_id], **found}

    def with_template(self, source: str | None) -> HFTokenizer:
        beside = {**self._beside}
        beside["tokenizer_config.json"] = {**beside.get("tokenizer_config.json", {}), "chat_template": source}
        changed = HFTokenizer(self.definition, beside, self._where)
        changed.folder = self.folder
        return changed

    def decode(self, ids: Iterable[int], special: bool = True) -> str:
        stream = self.stream(special)
        return "".join([stream.add(id) for id in ids] + [stream.flush()])

    def id_to_bytes(self, id: int) -> bytes:
        return self._table.get(id, b"")

    def stream(self, special: bool = True) -> Stream:
        if special:
            return Stream(self.id_to_bytes, self._strip)
        control = set(self.special.values())
        return Stream(lambda id: b"" if id in control else self.id_to_bytes(id), self._strip)

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        config = {**config_json(None), **self._beside.get("tokenizer_config.json", {})}
        config |= {"eos_token": self._names[self.eos_id], "pad_token": self._names[self.pad_id]}
        config["bos_token"] = None if self.bos_id is None else self._names[self.bos_id]
        write_json(directory / "tokenizer_config.json", config)
        source = self.folder and self.folder / "tokenizer.json"
        if source and source.is_file():
            if source.resolve() != (directory / "tokenizer.json").resolve():
                shutil.copyfile(source, directory / "tokenizer.json")  # as its authors wrote it
        else:
            write_text(
                directory / "tokenizer.json", json.dumps(self.definition, ensure_ascii=False, indent=1)
            )

    @functools.cached_property
    def _table(self) -> dict[int, bytes]:
        control = {id: name.encode() for name, id in self.special.items()}
        return {id: self._to_bytes(name) for id, name in self._names.items() if id not in control} | control

    def _ids(self, which: str) -> list[int]:
        """The ids of eos, bos or pad. The first file that names one wins; generation_config adds stop ids."""
        found: list[int] = []
        for file in BESIDE:
            data = self._beside.get(file, {})
            token = data.get(f"{which}_token")
            name = token.get("content") if isinstance(token, dict) else token
            ids = data.get(f"{which}_token_id")
            if isinstance(name, str):
                id = self._full.token_to_id(name)
                if id is None:
                    raise DataError(f"{self._where}: the {which} token '{name}' is not in the vocabulary")
                found.append(id)
            elif file != "config.json" or not found:
                found += ids if isinstance(ids, list) else [ids] if isinstance(ids, int) else []
        return list(dict.fromkeys(id for id in found if 0 <= id < self.vocab_size))


def load(path: Path | None) -> HFTokenizer:
    """A tokenizer from a directory with a tokenizer.json, or from that file itself."""
    if path is None:
        raise DataError(
            "no tokenizer was given", hint="pass a model directory or a tokenizer.json, or use 'byte'"
        )
    path = Path(path)
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise DataError(
            f"there is no tokenizer.json at {path}",
            hint="copy a model's own there; for a fresh one: tinygpt tokenize-train, or 'byte'",
        )
    beside = {name: read(file.with_name(name)) for name in BESIDE if file.with_name(name).is_file()}
    if found := template_files(file, beside):
        one = found.get("default") if len(found) == 1 else None
        many = [{"name": name, "template": source} for name, source in found.items()]
        beside.setdefault("tokenizer_config.json", {})["chat_template"] = one or many
    tokenizer = HFTokenizer(read(file), beside, str(file))
    tokenizer.folder = file.parent if file.name == "tokenizer.json" else None
    return tokenizer


def _library(definition: dict[str, Any], where: str) -> tokenizers.Tokenizer:
    import tokenizers

    # Limits stored in the file belong to whoever saved it; text is never cut or padded here.
    whole = {**definition, "truncation": None, "padding": None}
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(whole, ensure_ascii=False))
    except Exception as error:  # the library raises bare Exception
        raise DataError(f"{where} is not a tokenizer this version can read: {error}") from error


def _byte_reader(definition: dict[str, Any], where: str) -> tuple[Any, bool]:
    """(function from a token's name to its bytes, whether decoding drops one leading space)."""
    decoder = definition.get("decoder") or {}
    parts = decoder.get("decoders", [decoder])
    kinds = {part.get("type") for part in parts}
    if "ByteLevel" in kinds:
        to_byte = {letter: byte for byte, letter in byte_letters().items()}
        return (
            lambda name: bytes(to_byte[c] for c in name) if set(name) <= to_byte.keys() else name.encode(),
            False,
        )
    if kinds & {"Metaspace", "ByteFallback"} or any(part.get("type") == "Replace" for part in parts):
        strip = any(part.get("type") == "Strip" and part.get("start") for part in parts)
        strip |= any(
            part.get("type") == "Metaspace" and part.get("prepend_scheme") != "never" for part in parts
        )
        return _sentence_piece, strip
    kind = (definition.get("model") or {}).get("type")
    raise UnsupportedError(
        f"{where} is a {kind} tokenizer whose ids do not stand for bytes",
        hint="use a byte-level BPE or SentencePiece tokenizer",
    )


def _sentence_piece(name: str) -> bytes:
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes([int(name[3:5], 16)])
    return name.replace("\u2581", " ").encode()
