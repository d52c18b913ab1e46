"""From steps to a request as someone types it: mentions, quotes, joints, case, small slips.

Names and texts are kept out of the sentence as numbered marks until the end, so lower-casing and typos never
touch what has to be copied.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tinygpt.data.world.file_ops.file_system import name_of
from tinygpt.data.world.file_ops.intents_it import Step
from tinygpt.data.world.file_ops.names import UNWANTED
from tinygpt.data.world.file_ops.phrases import Template, pool
from tinygpt.data.world.file_ops.scene import Ref

_NAME_QUOTES = [("", ""), ('"', '"'), ("'", "'"), ("`", "`")]
_TEXT_QUOTES = [('"', '"'), ("'", "'"), ("“", "”")]
_MARK = re.compile(r"\x01(\d+)\x02")
# Commands stay in lower case where a sentence would start with a capital.
_COMMAND = re.compile(r"\b(Rm|Mv|Cp|Ls|Cd|Pwd|Mkdir|Rmdir|Wc|Grep|Echo|Cat|Touch|Goto|Dir|Del)(?= |$)")
# Phrases that are commands themselves take bare paths: `rm -r logs`, not `rm -r the folder logs`.
_SHELL = re.compile(r"(rm|mv|cp|ls|cd|mkdir|rmdir|wc|grep|echo|cat|touch|head|tree|del)\b(?! over)")
# Typed in a hurry, apostrophes go first.
_DROPPED = {
    "what's": "whats",
    "don't": "dont",
    "i'm": "im",
    "can't": "cant",
    "that's": "thats",
    "where's": "wheres",
}


@dataclass(kw_only=True)
class Voice:
    """How this person types: quotes, casual or not. And what the marks stand for."""

    rng: Random
    name_quotes: tuple[str, str]
    text_quotes: tuple[str, str]
    casual: bool
    kept: list[str] = field(default_factory=list)

    @classmethod
    def draw(cls, rng: Random) -> Voice:
        return cls(
            rng=rng,
            name_quotes=rng.choices(_NAME_QUOTES, [66, 12, 10, 12])[0],
            text_quotes=rng.choices(_TEXT_QUOTES, [72, 20, 8])[0],
            casual=rng.random() < 0.42,
        )

    def keep(self, text: str) -> str:
        """A mark for a text that must stay as it is."""
        self.kept.append(text)
        return f"\x01{len(self.kept) - 1}\x02"

    def name(self, name: str) -> str:
        return self.keep(self.name_quotes[0] + name + self.name_quotes[1])

    def text(self, text: str) -> str:
        return self.keep(self.text_quotes[0] + text + self.text_quotes[1])

    # --- mentions -------------------------------------------------------------------------------------------

    def mention(self, ref: Ref, linking: str = "") -> str:
        """A noun phrase for something that exists. `linking`: the preposition for its place."""
        if ref.folder:
            return self._folder(ref)
        rng = self.rng
        if ref.form == "stem":
            return f"the {self.keep(ref.words)} file"
        if ref.form == "stem_ext":
            return f"the {self.keep(ref.words)} {self.keep(ref.extension)} file"
        if ref.form == "bare":
            return self.name(name_of(ref.path))
        place, _, name = ref.said.rpartition("/")
        if place and linking and rng.random() < 0.6:
            where = f"the {self.name(place)} folder" if rng.random() < 0.35 else self.name(place)
            return f"{self.name(name)} {linking} {where}"
        lead = "the file " if rng.random() < 0.14 else ""
        return lead + self.name(ref.said)

    def _folder(self, ref: Ref) -> str:
        rng = self.rng
        if ref.form == "stem":
            return f"the {self.keep(ref.words)} {rng.choice(['folder', 'folder', 'directory'])}"
        at = rng.random()
        if at < 0.45:
            return self.name(ref.said)
        if at < 0.52:
            return self.name(ref.said + "/")
        if "/" in ref.said and at < 0.8:
            place, _, name = ref.said.rpartition("/")
            return f"the {self.name(name)} folder in {self.name(place)}"
        if at < 0.70:
            return f"the {self.name(ref.said)} folder"
        if at < 0.82:
            return f"the folder {self.name(ref.said)}"
        if at < 0.92:
            return f"the {self.name(ref.said)} directory"
        return f"my {self.name(ref.said)} folder"

    def new(self, ref: Ref) -> str:
        """A name for something to be made, with its place when that is a subdirectory."""
        place, _, name = ref.said.rpartition("/")
        if place and self.rng.random() < 0.6:
            preposition = self.rng.choice(["in", "in", "inside"])
            where = f"the {self.name(place)} folder" if self.rng.random() < 0.35 else self.name(place)
            return f"{self.name(name)} {preposition} {where}"
        return self.name(ref.said)

    # --- sentences ------------------------------------------------------------------------------------------

    def clause(self, template: Template, slots: dict[str, Any]) -> str:
        """A template with its slots filled."""
        # "move x in a to b" is clumsy; "rename x from a to b" would be misread, as would "add it to x from a"
        moving = template.intent in ("move", "copy_into", "rm", "move_into_it", "copy_into_it")
        linking = "in" if not moving or "d" not in template.slots and self.rng.random() < 0.5 else "from"
        shell = _SHELL.match(template.text)
        filled = {}
        for slot in template.slots:
            value = slots[slot]
            if shell and isinstance(value, Ref) and value.form == "exact":
                filled[slot] = self.name(value.said)
            elif slot in "fgd":
                filled[slot] = self.mention(value, linking)
            elif slot in "nm" and isinstance(value, Ref):
                filled[slot] = self.new(value)
            elif slot == "D":
                filled[slot] = self.name(value.said)
            elif slot == "t":
                filled[slot] = self.text(value)
            elif slot == "p":
                quoted = " " in value or self.rng.random() < 0.6
                filled[slot] = self.text(value) if quoted else self.keep(value)
            elif slot in "kxT":
                filled[slot] = self.keep(value)
            else:
                filled[slot] = self.name(value)
        return re.sub(r"\{(\w)\}", lambda m: filled[m[1]], template.text)

    def finish(self, text: str, closing: str) -> str:
        """Case, closing mark and slips; then the marks give way to what they stand for."""
        rng = self.rng
        if self.casual:
            text = re.sub(r"\bI\b", "i", text)
            text = text.lower() if rng.random() < 0.8 else text[:1].upper() + text[1:]
            if rng.random() < 0.4:
                text = re.sub(r"[\w]+'[\w]+", lambda m: _DROPPED.get(m[0], m[0]), text)
            if rng.random() < 0.7:
                closing = ""
        else:
            text = re.sub(
                r"(^|[.!?] |\n)(- |\d[.)] )?([a-z])", lambda m: m[1] + (m[2] or "") + m[3].upper(), text
            )
        text = _COMMAND.sub(lambda m: m[0].lower(), text)
        if rng.random() < 0.05:
            text = _slip(text, rng)
        if closing and not text.endswith((".", "?", "!")):
            text += closing
        return _MARK.sub(lambda m: self.kept[int(m[1])], text)


def _slip(text: str, rng: Random) -> str:
    """One typing slip in a word of five letters or more: swapped, dropped or doubled letter."""
    words = [m for m in re.finditer(r"(?<![\x01\w'/])[a-z]{5,}(?![\w'])", text)]
    if not words:
        return text
    word = rng.choice(words)
    i = word.start() + rng.randrange(1, len(word[0]) - 2)
    kind = rng.random()
    if kind < 0.4:
        slipped = text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    elif kind < 0.75:
        slipped = text[:i] + text[i + 1 :]
    else:
        slipped = text[:i] + text[i] + text[i:]
    return text if UNWANTED.search(slipped) else slipped  # "count" and "shift" are one letter away from rude


def word_one(step: Step, voice: Voice, held_out: bool) -> tuple[str, list[Template]] | None:
    """A request for one step and the templates it uses."""
    rng = voice.rng
    templates = pool(step.intent, held_out, (), _forbidden(step))
    if not templates:
        return None
    template = rng.choice(templates)
    return word_template(template, step.slots, voice, held_out)


def word_template(
    template: Template, slots: dict[str, Any], voice: Voice, held_out: bool
) -> tuple[str, list[Template]]:
    """A request from one template, wrapped in politeness or not."""
    rng, used = voice.rng, [template]
    text, closing = voice.clause(template, slots), {"ask": "?", "say": ".", "do": "."}.get(template.style, "")
    if template.style == "do" and rng.random() < 0.5:
        text, closing = _wrap(text, voice, held_out, used)
    elif template.style == "terse" and rng.random() < 0.25:
        text += rng.choice([" pls", " please", ", thanks"])
    return voice.finish(text, closing), used


def _wrap(text: str, voice: Voice, held_out: bool, used: list[Template]) -> tuple[str, str]:
    wrapper = voice.rng.choice(pool("wrap", held_out))
    used.append(wrapper)
    return wrapper.text.replace("{a}", text).rstrip("?"), "?" if wrapper.text.endswith("?") else "."


def word_many(
    steps: list[Step], voice: Voice, held_out: bool, ordered: bool
) -> tuple[str, list[Template]] | None:
    """A request for two or three steps. `ordered`: only joints that fix the order."""
    rng, n = voice.rng, len(steps)
    at = rng.random()
    kind = (
        "do"
        if at < 0.72 or steps[1].intent.endswith(("_it", "_original"))
        else "terse"
        if at < 0.87
        else "mix"
    )
    styles = [
        ("say",) if kind == "mix" and i == 0 else ("terse" if kind == "terse" else "do",) for i in range(n)
    ]
    pools = [pool(s.intent, held_out, style, _forbidden(s)) for s, style in zip(steps, styles, strict=True)]
    joints = [j for j in pool(f"{kind}{n}", held_out) if j.ordered or not ordered]
    if not all(pools) or not joints:
        return None
    joint = rng.choice(joints)
    if steps[1].intent.endswith(("_it", "_original")) and not joint.text.startswith(("{a}", "first", "1")):
        return None  # "before you go into it, create it"
    used = [rng.choice(p) for p in pools]
    clauses = [voice.clause(t, s.slots) for t, s in zip(used, steps, strict=True)]
    text, closing = joint.text, "." if kind != "terse" else ""
    one_sentence = kind == "do" and not re.search(r"[.:;\n)]|before|after you|but first|once you", text)
    for slot, clause in zip("abc", clauses, strict=False):
        text = text.replace("{" + slot + "}", clause)
    used.append(joint)
    if one_sentence and rng.random() < 0.35:
        text, closing = _wrap(text, voice, held_out, used)
    if "\n" in joint.text or "2)" in joint.text:
        closing = ""
    return voice.finish(text, closing), used


def _forbidden(step: Step) -> str:
    """Slots and words that do not fit what the step speaks of."""
    name, thing = step.slots.get("D"), step.slots.get("f")
    without = "D" if isinstance(name, Ref) and name.form != "exact" else ""
    return without + (
        "F" if isinstance(thing, Ref) and thing.folder else ""
    )  # F: no "file X" for a directory
