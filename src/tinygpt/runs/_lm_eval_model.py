"""A model of this process as lm-eval's model class: `lm_class()`, or the entry point `TinyGPT`.

Scores agree with lm-eval's own `hf` backend (tests/parity/test_lm_eval.py): the same ids, the same windows,
every token of a continuation counted, the last one too. Two things are better than there: what opened a
thought and was cut off before it ended is no answer, and stop texts do not end thoughts.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygpt.core.backend import on_cpu
from tinygpt.core.errors import ConfigError, DependencyError
from tinygpt.core.events import Events
from tinygpt.data.template import _spans
from tinygpt.infer.config import SampleConfig
from tinygpt.infer.continuation import continuations
from tinygpt.infer.engine import Completion, Engine
from tinygpt.runs._adapters import Adapters
from tinygpt.runs._engine import open_engine
from tinygpt.runs._lm_eval_words import Words

# What tasks and people may ask of an answer beside its length and stop texts, and what changes nothing here.
KNOBS = ("top_p", "top_k", "min_p", "typical_p", "repetition_penalty")
NEUTRAL = {"num_beams": 1, "num_return_sequences": 1, "use_cache": True}
LM_EVALS_DEVICE = "cuda:0"  # which its command line says where nobody chose one
Example = tuple[str, int]  # a task's name and the number of the document in it


class Noted:
    """What became of examples beside their scores, for whoever reports them."""

    def __init__(self) -> None:
        self.cut: set[Example] = set()  # an answer was cut off
        self.shortened: set[Example] = set()  # a prompt was too long, and lost its beginning
        self.failed: dict[Example, str] = {}  # an answer did not come, and why


def example(request: Any) -> Example:
    """The example that a request of lm-eval is about."""
    return str(request.task_name), int(request.doc_id or 0)


def answered(text: str, until: Sequence[str], think_end: str, prompt: str = "") -> str:
    """The answer in what was written: without the thought before it, up to the first stop text. A thought
    that has not ended is no answer."""
    if think_end:
        opening = think_end.replace("/", "", 1)
        _thought, ended, rest = text.rpartition(think_end)
        if ended:
            text = rest.lstrip()
        elif opening != think_end and (opening in text or prompt.rstrip().endswith(opening)):
            return ""
    for stop in filter(None, until):
        text = text.split(stop, 1)[0]
    return text


class Model:
    """The methods of lm-eval's `TemplateLM`. pretrained: a model, run or specialist directory, or an engine.

    adapter: put on it. batch_size: rows at once. max_length: of prompt and answer; not given: the model's
    context. add_bos_token, prefix_token_id: see Words. think_end_token: thoughts up to this text are no part
    of an answer. seed: answer i of a call is drawn with seed + i.
    """

    backend = "causal"
    cache_hook: Any  # of lm-eval's base: keeps answers, where that is asked for

    def __init__(
        self,
        pretrained: str | Path | Engine,
        adapter: str = "",
        batch_size: int | str | None = 8,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        add_bos_token: bool | None = None,
        prefix_token_id: int | None = None,
        think_end_token: str | None = None,
        seed: int = 1234,
        device: str | None = None,
        max_batch_size: int | None = None,
        events: Events | None = None,
    ) -> None:
        super().__init__()
        if device not in (None, LM_EVALS_DEVICE, "cpu" if on_cpu() else "gpu"):
            raise ConfigError(f"device={device}: MLX takes the device that it has", hint="leave it out")
        if batch_size in (None, "auto"):
            batch_size = max_batch_size or 8
        if not str(batch_size).isdecimal() or int(str(batch_size)) < 1:
            raise ConfigError(f"batch_size={batch_size} is no number of rows", hint="such as 8, or auto")
        if isinstance(pretrained, Engine):
            self.engine = pretrained
        else:
            worn = Adapters(adapter=(Path(adapter),) if adapter else ())
            self.engine = open_engine(Path(pretrained), worn)
        self.name, self.batch_size = str(pretrained), int(str(batch_size))
        self.max_length = min(max_length or self.engine.context, self.engine.context)
        self.max_gen_toks, self.seed, self.events = int(max_gen_toks), int(seed), events
        self.think_end = think_end_token or ""
        self.words = Words(self.engine.tokenizer, add_bos_token, prefix_token_id)
        self.noted = Noted()

    # What lm-eval asks about a model

    @property
    def eot_token_id(self) -> int:
        return self.words.eot

    @property
    def prefix_token_id(self) -> int:
        return self.words.prefix

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Ids of a text, as `hf` has them."""
        return self.words.encode(string, add_special_tokens)

    @property
    def tokenizer_name(self) -> str:
        """Names the tokenizer in lm-eval's cache of requests."""
        return f"tinygpt-{self.engine.tokenizer.hash[:16]}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The source of the template, where one is applied; there is one."""
        if isinstance(chat_template, str):
            raise ConfigError(
                f"a template is chosen by name ({chat_template}), the model has one",
                hint="leave the name out",
            )
        return self.engine.template.source if chat_template and self.engine.template else None

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as text, up to where the assistant writes, or to the end of what it has begun."""
        return chat_text(self.engine.template, chat_history, add_generation_prompt)

    # What lm-eval asks of a model

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """log p of each continuation, and whether it is what greedy decoding writes. A text that is too long
        loses the beginning of its context."""
        pairs: list[tuple[list[int], list[int]]] = []
        for asked, context, after in requests:
            room = self.max_length + 1 - len(after)
            if not after or room < 1:
                raise ConfigError(
                    f"the continuation {asked[1] if asked else ''!r} has {len(after)} tokens, a model with a "
                    f"context of {self.max_length} scores 1 to {self.max_length}",
                    hint="leave the task out",
                )
            pairs.append((context[-room:], after))
        found = continuations(self.engine, pairs, rows=self.batch_size, events=self.events)
        for (asked, _context, _after), answer in zip(requests, found, strict=True):
            if asked is not None:
                self.cache_hook.add_partial("loglikelihood", asked, answer)
        return found

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """See `_loglikelihood_tokens`."""
        for request in requests:
            context, after = request.args
            if len(self.tok_encode(context + after)) + (not context) > self.max_length + 1:
                self.noted.shortened.add(example(request))
        return super().loglikelihood(requests, disable_tqdm=True)  # type: ignore[misc]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """log p of whole texts, in windows of the context where they are longer."""
        from lm_eval import utils

        rows: list[list[int]] = []
        counted: list[tuple[int, int]] = []  # the request of a window, and its tokens that are predicted
        for number, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            for read, predicted in utils.get_rolling_token_windows(
                ids, self.prefix_token_id, self.max_length, 1
            ):
                rows.append([*read, predicted[-1]])
                counted.append((number, len(predicted)))
        logs = self.engine.logprobs(rows, events=self.events)
        sums: dict[int, list[float]] = defaultdict(list)
        for (number, n), values in zip(counted, logs, strict=True):
            sums[number] += values[-n:]
        found = [sum(sums[number]) for number in range(len(requests))]
        for request, value in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, value)
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The answers, in order; requests with equal settings are written together."""
        from lm_eval.models.utils import handle_stop_sequences

        groups: dict[SampleConfig, list[tuple[int, list[int], list[str]]]] = defaultdict(list)
        eos = self.engine.tokenizer.decode([self.eot_token_id])
        for number, request in enumerate(requests):
            context, asked = request.args
            config, until = self._settings(asked)
            until = handle_stop_sequences([*until], eos)
            room = self.max_length - config.max_tokens
            if room < 1:
                raise ConfigError(
                    f"answers of {config.max_tokens} tokens leave no room for a prompt: the context has "
                    f"{self.max_length}",
                    hint="--gen-kwargs max_gen_toks=N",
                )
            ids = self.tok_encode(context) or [self.prefix_token_id]
            if len(ids) > room:
                self.noted.shortened.add(example(request))
            groups[config].append((number, ids[-room:], until))
        found: dict[int, str] = {}
        for config, group in groups.items():
            group.sort(key=lambda one: -len(one[1]))
            for at in range(0, len(group), self.batch_size):
                part = group[at : at + self.batch_size]
                done = self.engine.generate_batch(
                    [ids for _, ids, _ in part], config, seeds=[self.seed + number for number, _, _ in part],
                    events=self.events,
                )  # fmt: skip
                for (number, _, until), completion in zip(part, done, strict=True):
                    found[number] = self._answer(requests[number], until, completion)
        return [found[number] for number in range(len(requests))]

    def _settings(self, asked: dict[str, Any]) -> tuple[SampleConfig, list[str]]:
        """How an answer is drawn, and the texts that end it; ConfigError for what cannot be done."""
        from lm_eval.models.utils import normalize_gen_kwargs

        wanted: dict[str, Any] = dict(normalize_gen_kwargs(asked, self.max_gen_toks))
        until, most, drawn = (wanted.pop(name) for name in ("until", "max_gen_toks", "do_sample"))
        warmth = wanted.pop("temperature", 1.0 if drawn else 0.0)
        for name in (name for name in wanted if name not in KNOBS):
            if name not in NEUTRAL:
                raise ConfigError(
                    f"generation has no setting '{name}'", hint=f"it has temperature, {', '.join(KNOBS)}"
                )
            if wanted[name] not in (None, NEUTRAL[name]):
                raise ConfigError(f"{name}={wanted[name]!r} cannot be done here", hint="leave it out")
        knobs = {name: wanted[name] for name in KNOBS if wanted.get(name) is not None}
        stop = () if self.think_end else tuple(filter(None, until))
        return SampleConfig(temperature=warmth, max_tokens=most, stop=stop, **knobs), until

    def _answer(self, request: Any, until: Sequence[str], completion: Completion) -> str:
        """The text that is scored."""
        prompt, ids = request.args[0], completion.ids
        end = self.engine.tokenizer.special.get(self.think_end)
        written = self.words.decode(ids)
        if end in ids and end in self.words.hidden:  # it is not seen in the text
            ids, prompt = ids[len(ids) - ids[::-1].index(end) :], ""
            written = self.words.decode(ids).lstrip()
        text = answered(written, until, self.think_end, prompt)
        whole = answered(written, (), self.think_end, prompt)
        if completion.finish_reason == "length" and text == whole:
            self.noted.cut.add(example(request))
        self.cache_hook.add_partial("generate_until", request.args, text)
        return text


def chat_text(template: Any, history: Sequence[dict[str, str]], add_generation_prompt: bool = True) -> str:
    """A conversation as text. Where nothing is to be generated, its last message stays open."""
    if template is None:
        raise ConfigError("this model has no chat template", hint="leave the chat template out")
    if add_generation_prompt:
        return _spans.join(template.render(list(history), None, True))
    return _spans.join(template.render(list(history[:-1]), None, True)) + history[-1]["content"]


@functools.cache
def lm_class() -> Any:
    """The class that lm-eval takes; DependencyError where lm-eval is not installed."""
    return type("TinyGPT", (Model, template_lm()), {"__doc__": Model.__doc__, "__module__": __name__})


def template_lm() -> Any:
    """lm-eval's base of models with a tokenizer."""
    try:
        from lm_eval.api.model import TemplateLM
    except ImportError as error:
        raise DependencyError("lm-eval", "eval", "lm-eval's tasks") from error
    return TemplateLM


def __getattr__(name: str) -> Any:
    """lm-eval takes the class by its name, and only then it is made: its base is slow to import."""
    if name == "TinyGPT":
        return lm_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
