"""Names nobody has seen: stems from syllables or words, file and folder names, and short texts to write.

Every stem belongs to one side by its hash: training draws from four fifths of all stems, the held-out sets
from the rest. The syllables span millions of stems, so a model has to copy names; it cannot know them.
"""

from __future__ import annotations

import re
from functools import lru_cache
from random import Random

from tinygpt.data.world.file_ops.phrases import stable_hash


def _words(text: str) -> list[str]:
    return text.split()


_ONSETS = _words(
    """
    b c d f g h j k l m n p r s t v w z b d k l m n p r s t v br dr gr kr pl tr st fl gl ch sh th
    """
)
_VOWELS = _words("a e i o u a e i o a e o ai ea oo y")
_CODAS = ["", "", "", "", "", "n", "r", "l", "s", "m", "k", "t", "x", "nd", "rk"]
_WORDS = _words(
    """
    account album alpha answer april archive artist autumn badge banana basket beach bench berlin bicycle
    bill bird blog board book bottle bread bridge budget cabin camera campus candle canvas carbon castle
    chapter charter chess cinema circle client closet cloud coast coffee color concert config contact
    contract cookie corner cotton course credit dance data debt design desk device diary dinner doctor
    dragon drawing dream driver eagle earth echo edition elephant engine essay event exam export fabric
    farm fashion feather festival figure film finance flight flower forest formula frame friday fruit
    future galaxy gallery game garden gift glass goal grammar grape guest guide guitar harbor health
    helper hotel house idea image index input insect invoice island january jazz journal journey kernel
    kitchen label ladder lecture lemon lesson letter library license lion logo lunch magnet manual map
    march market matrix meeting member memory menu mirror mobile model monday money monitor morning motor
    movie museum music novel ocean office orange orchid order output owner paint paper parade parcel
    parser partner patch payment pencil people phoenix photo physics piano picnic pilot planet plant
    plugin poem poetry policy portal poster potato price prize profile project puzzle quarter queue quiz
    radio raven receipt recipe record reminder report result review river robot rocket roster salad salary
    sample scene schema school science score season secret sensor server silver sketch slides snow song
    source spring stable station story student studio summary summer sunday survey target task tax teacher
    theory ticket tiger token topic tower travel treaty tutorial valley vendor video village violin
    visitor volume voyage walnut water wedding weekly window winter wizard workshop yearly zebra
    """
)
# Letter runs a random name should not contain.
UNWANTED = re.compile(
    "anal|anus|arse|cock|cum|dick|fag|fuck|nazi|piss|poo|porn|rape|sex|shit|slut|tit|cunt|pubic"
)

TEXT_EXTENSIONS = _words("txt md csv json py log yaml html js toml xml sql cfg tex rst ini sh tsv css")
_OTHER_EXTENSIONS = ["pdf", "png", "jpg", "docx", "xlsx", "bak"]
AFFIXES = _words("old new copy draft final backup v1 v2 v3 tmp")
_NUMBER_WORDS = _words("two three four five six seven eight nine")


@lru_cache(maxsize=200_000)
def is_held_out(stem: str) -> bool:
    """Whether a stem belongs to the held-out side."""
    return stable_hash("stem:" + stem) % 5 == 0


def stems_in(name: str) -> set[str]:
    """The stems of a name: its runs of three letters and more, without extension and affixes."""
    base, dot, extension = name.rpartition(".")
    if not dot or extension.lower() not in (*TEXT_EXTENSIONS, *_OTHER_EXTENSIONS):
        base = name
    parts = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", base).lower())
    return {part for part in parts if len(part) >= 3 and part not in AFFIXES}


class Namer:
    """Draws stems, names and texts for one task; a stem is never drawn twice."""

    def __init__(self, rng: Random, held_out: bool) -> None:
        self.rng, self.held_out = rng, held_out
        self.used: set[str] = set()

    def stem(self, short: bool = False) -> str:
        """A fresh stem of three to nine letters on this side of the split."""
        rng = self.rng
        while True:
            if rng.random() < 0.22:
                stem = rng.choice(_WORDS)
            else:
                n = 1 if rng.random() < 0.06 else 2 if short or rng.random() < 0.75 else 3
                stem = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(n)) + rng.choice(
                    _CODAS
                )
            fits = 3 <= len(stem) <= (6 if short else 9) and stem not in AFFIXES and stem not in self.used
            if fits and is_held_out(stem) == self.held_out and not UNWANTED.search(stem):
                self.used.add(stem)
                return stem

    def _base(self, plain: float) -> str:
        """A name without extension: one stem, two joined ones, with digits or in capitals."""
        rng = self.rng
        at = rng.random()
        if at < plain:
            return self.stem()
        at = (at - plain) / (1 - plain)
        if at < 0.34:
            return f"{self.stem(short=True)}_{self.stem(short=True)}"
        if at < 0.54:
            return f"{self.stem(short=True)}-{self.stem(short=True)}"
        if at < 0.68:
            return f"{self.stem()}{rng.choice(['', '_', '-'])}{rng.randrange(1, 100)}"
        if at < 0.74:
            return f"{self.stem()}_{rng.randrange(2015, 2031)}"
        if at < 0.86:
            return self.stem().capitalize()
        if at < 0.90:
            return self.stem(short=True).upper()
        if at < 0.95:
            return self.stem(short=True) + self.stem(short=True).capitalize()
        return f"{self.stem()}_{rng.choice(AFFIXES)}"

    def extension(self, text: bool = True) -> str:
        """An extension; `text` keeps to files one can read."""
        # Half the draws fall on the five most common ones.
        rng = self.rng
        if not text and rng.random() < 0.15:
            return rng.choice(_OTHER_EXTENSIONS)
        return rng.choice(TEXT_EXTENSIONS[:5] if rng.random() < 0.5 else TEXT_EXTENSIONS)

    def file(self, text: bool = True) -> str:
        """A file name."""
        base = self._base(0.62)
        if self.rng.random() < 0.03:
            return f"{base}.{self.rng.choice(['v1', 'v2', 'v3'])}.{self.extension(text)}"
        return f"{base}.{self.extension(text)}"

    def folder(self) -> str:
        """A folder name; no dot in it."""
        return self._base(0.7)

    def sentence(self) -> str:
        """A short text, the kind people jot down: no quotes, no line breaks."""
        rng = self.rng
        words = rng.choice(_SENTENCES).split()
        return " ".join(_FILL[w](self) if w in _FILL else w for w in words).replace(" ,", ",")

    def pattern(self) -> str:
        """A text to search for: usually one word."""
        at = self.rng.random()
        if at < 0.6:
            return self.stem()
        if at < 0.75:
            return self.rng.choice(
                ["TODO", "FIXME", "error", "warning", "urgent", "total", "WARN", "done", "deadline"]
            )
        if at < 0.9:
            return f"{self.rng.choice(_ADJECTIVES)} {self.rng.choice(_NOUNS)}"
        return str(self.rng.randrange(100, 10000))

    def number(self) -> tuple[int, str]:
        """A small count and how it is said."""
        n = self.rng.randrange(2, 10)
        return n, _NUMBER_WORDS[n - 2] if self.rng.random() < 0.25 else str(n)


_NOUNS = _words(
    """
    milk apples eggs keys tickets stamps paint rice shoes chairs lamps plants tools pens cables batteries
    pages boxes rent car dog cat door roof boat bike garage lawn phone laptop screen desk bed oven team
    boss neighbor landlord plan deadline agenda form parcel photos slides bill test build release patch
    bug login password backup job
    """
)
_VERBS = _words(
    """
    check fix buy sell clean pack paint call send sign water move sort book return finish bring test ship
    """
)
_ADJECTIVES = _words(
    """
    new old red blue green small big broken cheap early late urgent quiet warm heavy spare second next
    """
)
_DAYS = _words(
    """
    Monday Tuesday Wednesday Thursday Friday Saturday Sunday tomorrow tonight today
    """
)
_FILL = {
    "N": lambda n: n.rng.choice(_NOUNS),
    "V": lambda n: n.rng.choice(_VERBS),
    "A": lambda n: n.rng.choice(_ADJECTIVES),
    "D": lambda n: n.rng.choice(_DAYS),
    "P": lambda n: n.stem(short=True).capitalize(),
    "S": lambda n: n.stem(),
    "#": lambda n: str(n.rng.randrange(2, 500)),
    "@": lambda n: f"{n.rng.randrange(7, 22)}:{n.rng.choice(['00', '15', '30', '45'])}",
}
_SENTENCES = """
buy N and N
call P at @
V the N D
meet P on D at @
todo: V the A N
the A N is for P
remember to V the N
P has the A N
hello P
hello world
# packs of N left
S = #
S S
A N , A N
ask P about the N
V # more N
no N D
lunch with P
P owes me #
the N is in S
A N for P
dear P , thanks for the N
version # is done
S is better than S
done D at @
N , N , N
V it D
draft # for P
welcome to S
P , P and P
send the N to P
total: #
the S is A
import S
not before D
A but A
this is the A N
""".strip().splitlines()
