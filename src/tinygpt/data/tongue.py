"""Which language a text is in, told by its letters and its commonest words.

Scripts tell most languages apart. Those that share one are told by the words that every text of theirs has
(articles, prepositions, pronouns); the language with the most of them
counts, one that several languages have for less. That is rough: a text of few
words may have none of them, and then nothing is said.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection

from tinygpt.core.errors import unknown

COMMON = {
    "english": (
        "the of and to in is that it for was with as are you this be have from or not what how can i do "
        "a an at by on my your me we they he she if when which who why where would should could will "
        "has there about without does did all more"
    ),
    "german": (
        "der die das und ist nicht ein eine zu den mit von sich auf für dem im es wie ich auch wird was "
        "sind wir kann können oder aber aus bei einen einer eines nach wenn warum welche um über sie "
        "mein man mir du"
    ),
    "french": (
        "le la les des et est une un que dans pour pas qui sur du au avec ce je vous sont plus comment "
        "à en il elle nous ne se mon ma mes votre quoi pourquoi quelle quel où ou cette par mais être"
    ),
    "spanish": (
        "el la los las y es que en un una por con para del se no como su lo más está son cómo qué mi me "
        "al de cuál dónde cuándo puedo hay pero si sobre ser tu te nos"
    ),
    "italian": (
        "il lo la gli e è che di un una per non con del della sono come si nel ma più anche posso cosa "
        "mi i le da al dei delle quale dove perché ho questo questa in"
    ),
    "portuguese": (
        "o os as e é que em um uma para com não do da dos se por como mais ao são você posso qual onde "
        "meu minha eu de no na nas nos quando está mas ou isso"
    ),
    "dutch": (
        "de het een en is van dat niet op te zijn voor met die ik aan er maar ook wat je hoe kan mijn "
        "we of om naar bij uit dit deze waarom welke als heeft in"
    ),
    "polish": (
        "i w na z się nie to jest że do jak co czy po dla są od przez tak ale jego mogę jaki jaka gdzie "
        "kiedy dlaczego o ja mi mój lub oraz ten ta może"
    ),
    "turkish": (
        "ve bir bu için ile de da ne çok gibi daha olarak var mı nasıl olan kadar değil mi ben sen o "
        "neden hangi nerede ama veya en"
    ),
    "vietnamese": (
        "và của là có cho không một các được trong với này đã những người khi để tôi bạn làm như thế "
        "nào gì hay ở ra về"
    ),
    "indonesian": (
        "yang dan di untuk dengan ini dari pada adalah tidak itu dalam akan apa atau bagaimana saya "
        "anda kamu cara bisa ke mengapa ada oleh"
    ),
    "russian": (
        "и в не на что с как это по к но из у за от для так же он вы я мне мой если или где когда почему"
    ),
    "ukrainian": (
        "і в не на що з як це до але із у за від для так він ви я є та мені мій якщо або де коли чому"
    ),
}
WORDS = {name: frozenset(words.split()) for name, words in COMMON.items()}
SHARED = Counter(word for words in WORDS.values() for word in words)  # how many languages have a word
# What the names of a script's letters begin with, and whose script it is where no words are compared.
SCRIPTS = {
    "LATIN": "", "CYRILLIC": "", "GREEK": "greek", "ARABIC": "arabic", "HEBREW": "hebrew",
    "DEVANAGARI": "hindi", "BENGALI": "bengali", "TAMIL": "tamil", "TELUGU": "telugu", "THAI": "thai",
    "HANGUL": "korean", "HIRAGANA": "japanese", "KATAKANA": "japanese", "CJK": "chinese",
}  # fmt: skip
CYRILLIC = ("russian", "ukrainian")
NAMES = sorted({*WORDS, *filter(None, SCRIPTS.values())})
SHORT = 6  # words, below which a text need not have a common one
MAIN = 0.5  # share of the letters that a script has in a text of its language


def check(names: Collection[str]) -> None:
    """ConfigError with the nearest names where a language is not known."""
    for name in names:
        if name not in NAMES:
            raise unknown("language", name, NAMES)


def language(text: str) -> str:
    """The name of the language; "" where nothing tells it."""
    script = _script(text)
    if script not in ("LATIN", "CYRILLIC"):
        return SCRIPTS.get(script, "")
    words = [word.lower() for word in re.findall(r"[^\W\d_]+", text)]
    among = [name for name in WORDS if (name in CYRILLIC) == (script == "CYRILLIC")]
    hits = Counter(
        {name: sum(1 / SHARED[word] for word in words if word in WORDS[name]) for name in among}
    ).most_common(2)
    (first, most), (_, second) = hits
    return first if most > second else ""


def spoken(text: str, names: Collection[str]) -> bool:
    """Whether a text is in one of these languages, as far as it tells: a short one may be in any that has its
    script."""
    found = language(text)
    if found or not names:
        return not names or found in names
    script = _script(text)
    mine = {"CYRILLIC": set(CYRILLIC), "LATIN": WORDS.keys() - set(CYRILLIC)}.get(script, set[str]())
    return len(text.split()) < SHORT and bool(mine & set(names))


def _script(text: str) -> str:
    """The script of most letters; "" where there are none, or no script has half of them. Japanese is written
    with Chinese characters, too: any kana tell it."""
    seen: Counter[str] = Counter()
    for letter in filter(str.isalpha, text[:10_000]):
        name = unicodedata.name(letter, "")
        seen[next((script for script in SCRIPTS if name.startswith(script)), "")] += 1
    if not seen:
        return ""
    if kana := seen["HIRAGANA"] + seen["KATAKANA"]:
        seen["HIRAGANA"] = kana + seen.pop("CJK", 0)
        seen.pop("KATAKANA", None)
    script, most = seen.most_common(1)[0]
    return script if most >= MAIN * seen.total() else ""
