"""Which template a model is trained and served with: its own, or one of ours by name.

`of(tokenizer)` is the one object for both, so that what is trained is what is served:

    template.render(messages, tools, add_generation_prompt) -> spans
    template.parse(text) -> message

A template chosen by name for a model is written into its tokenizer_config.json (`saved`), so that it is found
again, also by other programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tinygpt.core.errors import ConfigError, unknown
from tinygpt.core.family import Family
from tinygpt.data.template._spans import Span

if TYPE_CHECKING:
    from types import ModuleType

    from tinygpt.data.tokenizer._protocol import Tokenizer

TEMPLATES = Family("tinygpt.data.template", verb="render")
AUTO, BASE = "auto", "base"
EOS = "</s>"
HELP = "How a conversation is written as text: auto is the base's own template, ChatML where it has none."


class Template(Protocol):
    """How one model's conversations are written and read."""

    @property
    def name(self) -> str: ...
    @property
    def note(self) -> str:
        """What a person should know about the choice, or ""."""
        ...

    @property
    def source(self) -> str:
        """The same in Jinja, as tokenizer_config.json holds it."""
        ...

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] | None = None,
        add_generation_prompt: bool = False,
    ) -> list[Span]: ...

    def parse(self, text: str) -> dict[str, Any]: ...


class Named:
    """One of ours, with the tokenizer's own tokens where it lacks those of the form."""

    def __init__(self, module: ModuleType, tokenizer: Tokenizer, note: str = "") -> None:
        self.name = module.__name__.rpartition(".")[2]
        self.module, self.note = module, note
        # </s> stands for whatever ends a text; another end of a turn is a token of its own, if there is one.
        own = module.END != EOS and module.END in tokenizer.special
        self.end: str = module.END if own else tokenizer.names["eos_token"]
        self.bos: str = tokenizer.names.get("bos_token", "") if module.BOS else ""
        self.source = _with_tokens(module, self.bos, self.end)

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] | None = None,
        add_generation_prompt: bool = False,
    ) -> list[Span]:
        """The conversation as spans."""
        return self.module.render(messages, tools, add_generation_prompt, bos=self.bos, end=self.end)

    def parse(self, text: str) -> dict[str, Any]:
        """What a model wrote, as {"role", "content", "tool_calls"} and perhaps "error"."""
        return self.module.parse(text.split(self.end, 1)[0])


def names() -> list[str]:
    """What `--template` can be."""
    return [AUTO, BASE, *TEMPLATES.names()]


def check(name: str) -> None:
    """ConfigError with the nearest names when there is no template of this name."""
    if name not in names():
        raise unknown("template", name, names())


def of(tokenizer: Tokenizer, name: str = AUTO) -> Template:
    """The template of a tokenizer's model. "auto": its own, else ChatML; "base": its own, which must be
    there; otherwise one of ours.

    ConfigError: there is no such template. DataError: the model's own cannot be read."""
    check(name)
    if name in (AUTO, BASE):
        if not tokenizer.chat_templates:
            if name == BASE:
                raise ConfigError(
                    "this model has no chat template of its own", hint="choose one: --template chatml"
                )
            from tinygpt.data.template import chatml

            fallback = Named(chatml, tokenizer)
            how = "" if fallback.end == chatml.END else f", with {fallback.end} for the end of a turn"
            fallback.note = (
                f"the model has no chat template of its own: conversations are written as ChatML{how}"
            )
            return fallback
        return _ours(tokenizer) or _own(tokenizer)
    return Named(TEMPLATES.load(name), tokenizer)


def _own(tokenizer: Tokenizer) -> Template:
    from tinygpt.data.template._own import Own

    return Own(tokenizer)


def _ours(tokenizer: Tokenizer) -> Named | None:
    """One of our templates where a tokenizer brings exactly its Jinja text: ours knows more of it."""
    if list(tokenizer.chat_templates) != ["default"]:
        return None
    source = tokenizer.chat_templates["default"]
    for name in TEMPLATES.names():
        named = Named(TEMPLATES.load(name), tokenizer)
        if named.source == source:
            return named
    return None


def saved(tokenizer: Tokenizer, template: Template) -> Tokenizer:
    """The tokenizer as it is saved with a model that was trained with this template."""
    if template.source in tokenizer.chat_templates.values():
        return tokenizer
    return tokenizer.with_template(template.source)


def _with_tokens(module: ModuleType, bos: str, end: str) -> str:
    source: str = module.CHAT_TEMPLATE
    for name, other in ((module.END, end), (module.BOS, bos)):
        if name and name != other:
            source = source.replace(name, other.replace("\\", "\\\\").replace("'", "\\'"))
    return source
