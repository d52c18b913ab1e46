"""What a person's rows are like: task, lengths, copies, language, and what training gives away."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tinygpt.data.rows import Conversation

Task = Literal["tools", "chat", "instruction"]
SAMPLE = 200_000  # letters that a language is told from
GRAM = 13  # words in a row that two texts share by copying, not by chance (Brown et al. 2020, appendix C)
# The commonest short words of languages in Latin letters; the one with most hits is the text's.
STOP_WORDS = {
    "English": "the of and to in is that for it with as was on are this",
    "German": "der die und das ist nicht ein eine mit von zu den auf im sich",
    "French": "le la les et des est une dans que pour pas sur qui au ce",
    "Spanish": "el la los que de y en una es por con para se del las",
    "Italian": "il di che la e un per non una sono con del della è gli",
    "Portuguese": "o de que e do da em um para com não uma os no se",
    "Dutch": "de het een en van is dat niet op te zijn voor met aan er",
}
SCRIPTS = {
    "CJK": "Chinese characters", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean",
    "CYRILLIC": "Cyrillic letters", "ARABIC": "Arabic letters", "DEVANAGARI": "Devanagari letters",
    "GREEK": "Greek letters", "HEBREW": "Hebrew letters", "THAI": "Thai letters",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Facts about rows. Lengths are of whole conversations, in characters: half of them have at most
    `median` of them, 99 of 100 at most `long`."""

    n_rows: int
    n_copies: int
    n_same_prompt: int  # rows whose prompt another row has too, with another answer
    task: Task
    turns: int
    median: int
    long: int
    answer: int  # median length of an answer
    language: str

    def sentence(self) -> str:
        """The facts in one line, for people."""
        what = {"tools": "calls of tools", "chat": f"conversations of up to {self.turns} requests"}
        told = [
            f"{self.n_rows} rows, {what.get(self.task, 'a request and an answer each')}, in {self.language}",
            f"half have at most {self.median} characters, 99 of 100 at most {self.long}",
        ]
        if self.n_copies:
            told.append(f"{self.n_copies} are copies of others")
        if self.n_same_prompt:
            told.append(f"{self.n_same_prompt} ask what another row asks, with another answer")
        return "; ".join(told)


def survey(conversations: Sequence[Conversation]) -> Survey:
    """Look at rows, all of them."""
    whole = sorted(len(text(c)) for c in conversations)
    answers = sorted(len(m["content"]) for c in conversations for m in c.messages if m["role"] == "assistant")
    turns = max(sum(m["role"] == "user" for m in c.messages) for c in conversations)
    calls = any(m.get("tool_calls") or m["role"] == "tool" for c in conversations for m in c.messages)
    distinct = {text(c): prompt(c) for c in conversations}
    asked = Counter(distinct.values())
    return Survey(
        n_rows=len(conversations), n_copies=len(conversations) - len(distinct),
        n_same_prompt=sum(n for n in asked.values() if n > 1),
        task="tools" if calls else "chat" if turns > 1 else "instruction", turns=turns,
        median=whole[len(whole) // 2], long=whole[min(len(whole) - 1, int(0.99 * len(whole)))],
        answer=answers[len(answers) // 2], language=language(text(c) for c in conversations),
    )  # fmt: skip


def text(conversation: Conversation) -> str:
    """All that is written in a conversation, calls included."""
    return "\n".join(line for message in conversation.messages for line in _lines(message))


def prompt(conversation: Conversation) -> str:
    """What the last answer answers, in lower case, without what spaces and marks make of it."""
    messages = conversation.messages
    last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
    return " ".join(_words("\n".join(line for m in messages[:last] for line in _lines(m))))


def _lines(message: dict[str, Any]) -> Iterator[str]:
    yield message.get("content") or ""
    for call in message.get("tool_calls") or ():
        yield f"{call['name']} {call['arguments']}"


def language(texts: Iterable[str]) -> str:
    """The language of texts by their letters and commonest words; the script where the words say nothing."""
    scripts: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for one in texts:
        for letter in one[:2000]:
            if letter.isalpha():
                scripts[unicodedata.name(letter, "?").split()[0]] += 1
        words.update(_words(one[:2000]))
        if scripts.total() >= SAMPLE:
            break
    if not scripts:
        return "no language: there are no letters"
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > scripts.total() / 20:
        return "Japanese"
    most = scripts.most_common(1)[0][0]
    if most != "LATIN":
        return SCRIPTS.get(most, f"{most.capitalize()} letters")
    hits = {name: sum(words[w] for w in known.split()) for name, known in STOP_WORDS.items()}
    best = max(hits, key=lambda name: hits[name])
    return best if hits[best] > words.total() / 50 else "Latin letters"


def leaks(train: Sequence[Conversation], held_out: Sequence[Conversation]) -> list[int]:
    """Which held-out rows training gives away: those whose prompt it has, or most of whose answer stands in
    it word for word, 13 words at a time."""
    asked = {prompt(c) for c in train}
    grams = {gram for c in train for gram in _grams(text(c))}
    found: list[int] = []
    for i, conversation in enumerate(held_out):
        own = list(_grams(conversation.messages[-1]["content"]))
        copied = own and sum(gram in grams for gram in own) > len(own) / 2
        if prompt(conversation) in asked or copied:
            found.append(i)
    return found


def _grams(text: str) -> Iterator[int]:
    words = _words(text)
    for i in range(len(words) - GRAM + 1):
        yield hash(tuple(words[i : i + GRAM]))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
