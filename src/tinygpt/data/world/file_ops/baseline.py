"""A rule-based reader of requests, the bar a model has to clear: keywords, quotes and names by regex.

It sees request and state, never a template: split at "then" and "and", find the verb and the names, ask back
when two files fit, refuse what has no verb. Words stay in its table if training tasks use them.
"""

from __future__ import annotations

import re
from itertools import count
from typing import Any

from tinygpt.data.world.file_ops.file_system import FileSystem, PathError, name_of
from tinygpt.data.world.file_ops.interface import reply_of
from tinygpt.data.world.file_ops.tools import run

_SPLIT = re.compile(
    r"(?i)\s*(?:\n(?:\s*[-*]\s)?|;|&&|&| / |[.!?]\s+(?=[A-Za-z\x01])|^\s*[-*]\s"
    r"|,?\s*\b(?:and )?(?:only )?(?:and then|then|after (?:that|this)|afterwards|next\b(?! work)|finally"
    r"|lastly|last(?=,)|oh, and|once done|and last|(?:once|when|as soon as) (?:that'?s|both are|you'?re"
    r"|you have) ?(?:that|done|finished)?(?: with that)?|following that|in addition|on top of that"
    r"|while you'?re (?:at it|there)|plus|also|to finish|in the end|at the end(?=,)|as a second step"
    r"|before you|after you|once you|to begin with|first of all|and after|step (?:one|two|three|\d)"
    r"|the last step|(?:first|second|third)(?: thing)?(?=[,:])|(?:two|three) things(?: done)?(?=:)"
    r"|(?:(?:start|begin|continue|go on|end)(?: by doing| with| like)|followed by) this(?=:))\b[,:]?"
    r"|(?<!\w)[abc]\)\s|\b\d[.)]\s|,\s+and\b|\band\b(?=\s+(?:also\s+)?[\w\x01/])|,\s+(?=\w+ ))\s*"
)
_POLITE = re.compile(
    r"(?i)\b(?:please|thanks|(?:can|could|would|will) you|(?:is|would) it (?:be )?possible (?:for you )?to"
    r"|it would (?:help|be (?:good|great))|is there a way for you to|any chance you could|could i get you to"
    r"|if (?:possible|you don't mind|that's ok),?|when(?:ever you're ready| you get a chance),?|you to|for me"
    r"|your task:|quick favor:|next job for you:|do me a favor and|help me out here and|go ahead and)(?!\w)"
)
_QUOTED = re.compile(r"\"([^\"]*)\"|“([^”]*)”|`([^`]*)`|(?<!\w)'([^']*)'(?!\w)")
_WORD = re.compile(r"[\w./~*-]*\w[\w./~*-]*")
_COUNTS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
# First match wins, so the special comes before the general. A quoted text of several words reads as ".
_VERBS = r"""
none \b(e-|un)?(read )?mails?\b|forward|weather|forecast|\bcold\b|\bzip|\bgzip|compress|archive|shrink
|on paper|convert|\bpdf\b|\b(french|german|italian|spanish|english|chinese|japanese|polish)\b|\bowns?\b|owner
|passw|\block(ed)?\b|uninstall|compile|commit|branch|\bsong|podcast|\bfilm|meeting\b|server\b|remind me to\b
|\brun (?!through|a word)|launch|\bsort\b|proofread|typos|\bgist\b|roll .* back|last (week|night|changed)
|symlink|hard link|screenshot|average|percent|square root|cloud|dropbox|phone|newest|\bnews|let me know when
|keep an eye|stamp|video|pizza|\bbuy\b|\bpay the|computer|laptop|battery|disk space|encrypt|translat
|printe?r\b|upload|download|\binstall|permission|execut|calendar|alarm|undo\b|restore|summar|\bgit\b|\bplay\b
tree \btree\b|structure|hierarchy|overview|outline|nested(?! (folder|dir|path))|map out|organized
wc \bwc\b|count\b|how many (lines|words|characters)|how long|(number of|tally( up)?( the| its)?) (words|lines
|char)|length (of|in)|its length|size of .* in words
rename \bname (of|to|for)\b|new name\b|renam|retitle|relabel|\bcall(ed)? .* (from now on|instead)|get the name
|(should|to) be (called|named)|^call (?!that)|be called|have .* called|\bname it\b|becomes
pwd \b(pwd|cwd)\b|where(abouts)? (exactly )?(am i|i am|are we|do i stand)\b|(which|what) (folder|directory
|path)\b.*\b(am|are|is this|this is|i'?m|we'?re|have open)\b|^((show|tell|give|print|reveal|can|see|me|i|my
|the|current|present|what'?s|need|working)\W+)*(path|dir|directory)$|(path|name) (of|to) (the|this
|here)( current)?( folder| dir| place|$)|(folder|path|directory) (i'?m|we'?re|i am) |working directory$
cd_up \bcd$|(?<!set )\bup (one|a|an)\b|level|\bgo up|(folder|directory|dir) (up|higher)\b|out of this (folder
|dir)(?!.* (in)?to)|(leave|exit) this|parent (folder|dir)(?!.* (too|made))|directory above|r above
cd \bcd\b|\b(head|hop|jump|step|go|switch) over to|\b(go|switch|enter|change) ?(in)?to\b|enter\b|\bjump|\b(hop
|walk|dive|get|step|move) (in)?(to|side)\b(?= (the |my )?\S+( f| d|$))|go inside|work(ing)? (in(side)?|from)\b
|(take|bring|put) me|\b(make|set|be|use|change) .*\b(current|working) directory|(should|want to) be in 
|\bwe work
head \bhead\b|\b(first|top|opening|initial|leading) \w+ lines\b|\b\w+ lines from|beginning of|preview|start of
grep \bgrep\b|lines?\b.*\b(with|that)\b(?! (says?|reads) \")|mention|\b(search|filter|comb) .*\bfor\b|appear
|\bscan .* for|\blook(ing)? (for|in|through) .* (in|for)\b|\b(find|hunt|locate|spot|track) .* (in(side)?
|that (says|contains?)) |talks about|file says|know if .* is in
append append|\badd\b.*\"|\bend of\b|bottom of|\+=|(one more|another|extra|additional|last) (last )?line
|extend|continue .*\"|below |add (this )?to|>>
write \bwrite .*\"|\bwith the (text|words)\b|\bsave (?!a copy|\S+ (again|a second)|another|every)|overwrit
|contents? .*\b(to|become|be)\b|> |rewrite|(text|contents|everything) .*\"|\b(says?|reads?|put|contain(ing)?
|note|store|make|with|type|record|set|keep|fill|jot)\b.*\"|\" (in|to|as|for|into)\b|\.\w+\"?: \S|text.*: 
|replace
cp \bcp\b|\bcop(y|ies|ied)\b|duplicat|clone|\bback(ed)? ?up\b|replicate|mirror\b|\btwin\b|reproduce
rmdir \brmdir\b|(?<!an )(?<!new )(?<!^)\bempty (folder|directory|dir)\b|\b(it'?s|is|now) empty|nothing (is|in)
mkdir ^(new |nested |two |one |empty |fresh )*(sub)?(folders?|dirs?|director(y|ies))\b(?!.* (has|can|should))
|\b(folders?|director(y|ies)) (called|named|with the name)|\b(create|make|add|new|need|set up|start|prepare
|generate|build|get|want|fresh|like)\b.*\b(sub)?(folder|dir)(?!.* gone)|\bmkdir\b
touch \btouch\b|\b(create|make|add|new|need|empty|blank|fresh|start|put down|get|want)\b.*\bfiles?\b(?! in )
|\bfile (called|named)
rm \brm\b|\bdel(ete)?d?\b|remov|get rid of|erase|trash|th?row .*(away|out)|don'?t need|\bwip|discard
|\bhas to go(?! in)|\bcan (both )?go(?! in)|destroy|\blose\b|clear\b|ditch|\bbin\b|\btoss|scrap|elimin|chuck
|\bgone\b|no longer
mv \bmv\b|\bmove?d?\b|\bput\b|shift|transfer|placed?\b|belongs?\b|\binto\b|\bout of\b|relocate|stick\b
|\bsend\b|bring .*(to|here|from|into)\b|\bto be (in|inside|kept)\b|should (both |not )?be (in|here)|carry
|\bstow|\bfile .* away|\bliv(e|ing) in|off to|\bhere (from|instead|rather)|->|\bdrop\b
find \bfind\b|locat|where|\blook(ing)? (for|everywhere)\b|track|paths? (of|to)\b|\bhunt|\b(which|what
|in which) (sub)?(folder|directory)\b|\bseek|misplaced|^(all|every|the)?\s*\.?\w+ files( everywhere|,.*)?$
|search
ls \blist|\b(in|inside) (here|this folder|this directory|the current)|what files|files here|file names
|this (folder|directory) (hold|contain)|peek inside|\bls\b
look \bcat\b|\bshow|print|\bread|\bopen|display|\bwhat|\bsee\b|contents?\b|\blook\b|\bview|\bdump|\btext of\b
|\btype out|which files|everything in|files in
create create\b
"""
_COMPILED = [(v, re.compile(p)) for v, p in re.findall(r"(\w+) (.+)", _VERBS.replace("\n|", "|"))]
# Words of a request that are never the name of something.
_PLAIN = re.compile(
    r"(?i)an?|the|its?|in|into|to|as|of|for|with|and|or|is|be|my|me|you|your|please|this|that|here|there|them"
    r"|called|named?|new|files?|folders?|director(y|ies)|dirs?|path|under|from|on|at|by|one|two|another|have"
    r"|has|keep|copy|being|inside|within|ready|each|every|all|any|levels?|name|it'?s|should"
    r"|instead|which|what|tree|would|i|-p|both|empty|blank|make|create|add|set|up|start|put|down|get|want"
    r"|need|chain|edit|too|call"
)


Calls = list[tuple[str, dict[str, Any]]]
Names = list[str]


class _Unclear(Exception):
    """Several files fit; holds them."""


def predict(request: str, fs: FileSystem) -> list[dict[str, Any]]:
    """The assistant's messages for a request in a state: calls, a question or a refusal."""
    state, calls = fs.copy(), []
    try:
        for clause in _clauses(request):
            for name, arguments in _calls_for(clause, state, calls):
                calls.append({"name": name, "arguments": arguments})
                run(state, calls[-1])
    except _Unclear as unclear:
        return [reply_of([], "Which one: " + " or ".join(unclear.args[0]) + "?")]
    except (LookupError, PathError):
        calls = []
    return [reply_of(calls, "" if calls else "I can't do that here.")]


def _clauses(request: str) -> list[str]:
    """Pieces with a verb each; quoted texts are never cut."""
    kept, number = [m[0] for m in _QUOTED.finditer(request)], count()

    def show(piece: str) -> str:
        return re.sub(r"\x01(\d+)\x02", lambda m: kept[int(m[1])], piece).strip()

    hidden = _QUOTED.sub(lambda _: f"\x01{next(number)}\x02", request)
    hidden = _POLITE.sub("", re.sub(r"(\s)\s+", r"\1", hidden))
    pieces: Names = []
    for piece in filter(None, map(show, _SPLIT.split(hidden))):
        # a piece without a verb belongs to its neighbour: "a.txt and b.txt"
        if pieces and (_verb(piece) is None or _verb(pieces[-1]) in (None, "create") and '"' in piece):
            pieces[-1] += " and " + piece
        elif pieces and _verb(pieces[-1]) is None:
            pieces[-1] += " " + piece
        else:
            pieces.append(piece)
    return pieces


def _verb(clause: str) -> str | None:
    plain = _QUOTED.sub(lambda m: '"' if " " in m[0] else m[0][1:-1], clause).lower().strip(" ,:.?!")
    bare = _QUOTED.sub('"', clause).lower().strip(" ,:.?!").partition(": ")[0]  # without what are only names
    bare = re.sub(r"\S*\w[._/]\w\S*|\b(the|my) \S+(?= (file|folder|directory))|(folder|file) \S+", '"', bare)
    found = ((verb, pattern.search(bare if verb == "none" else plain)) for verb, pattern in _COMPILED)
    return next((verb for verb, match in found if match), None)


def _calls_for(clause: str, fs: FileSystem, before: list[dict[str, Any]]) -> Calls:
    verb = _verb(clause)
    if verb is None or verb == "none":
        raise LookupError
    old, new, texts = _names_in(clause, fs)
    last = before[-1]["arguments"] if before else {}
    it = last.get("source") if re.search(r"\b(original|source|old one|copied)\b", clause) else None
    it = it or last.get("path") or last.get("destination")
    said = r"\b(its?|(in |what's )?there(?! (should|be|is|are))|that (file|folder|dir\w*)|inside$|original"
    said += r"|source file|the (new folder|old one|result|file)|was copied)\b(?! (called|named))"
    if it and fs.resolve(it) in fs.nodes and re.search(said, clause):
        place = re.search(r"\b(in|into|inside|to|within) (it|there|(that|the new) folder)\b| there$", clause)
        if not old or place and fs.is_dir(fs.resolve(it)) and it not in old and verb in ("mv", "cp", "cd"):
            old.append(it)
    if verb in ("tree", "create", "look", "ls", "cd_up") and any("/" in n and "." not in n for n in new):
        verb = "mkdir"
    if verb in ("rename", "cp", "mkdir") and not new:  # the last word then
        words = [w.strip(".,:") for w in _WORD.findall(_QUOTED.sub(lambda m: m[0][1:-1], clause))]
        words = [w for w in words if not _PLAIN.fullmatch(w) and not any(w in p for p in old)]
        if words and (verb != "cp" or not any(fs.is_dir(fs.resolve(p)) for p in old[1:])):
            new = words[-1:]
    tail = re.search(r":\s+(\S.*)$", clause)
    text = texts[-1] if texts else tail[1] if tail else None
    return _look(verb, clause, fs, old, new, text) or _change(verb, clause, fs, old, new, text)


def _look(verb: str, clause: str, fs: FileSystem, old: Names, new: Names, text: str | None) -> Calls:
    """Calls of the reading verbs and of cd."""
    folders = [p for p in old if fs.is_dir(fs.resolve(p))]
    files = [p for p in old if p not in folders]
    extension = re.search(
        r"\.(\w+)(?: files?\b| (?:end|ext)\w+|\W*$)|\b(\w+) files\b|extension (\w+)", clause
    )
    if verb in ("pwd", "cd_up"):
        return [("pwd", {}) if verb == "pwd" else ("cd", {"path": ".."})]
    if verb == "cd":
        return [("cd", {"path": folders[0]})] if folders and not files else []
    if verb in ("ls", "look") and files:
        return [("cat", {"path": p}) for p in files]
    if verb in ("tree", "ls", "look"):
        return [("tree" if verb == "tree" else "ls", {"path": folders[0]} if folders else {})]
    if verb in ("wc", "head") and files:
        words = [w for w in re.findall(r"\w+", clause.lower()) if w.isdigit() or w in _COUNTS]
        counts = [int(w) if w.isdigit() else _COUNTS.index(w) + 1 for w in words]
        return [(verb, {"path": files[0], **({"lines": counts[0]} if counts and verb == "head" else {})})]
    if verb in ("grep", "find") and extension and not old and not text and not re.search(r"\w\.\w+ ", clause):
        word = next(filter(None, extension.groups()))
        if word not in ("all", "the", "these", "my", "which", "any", "those"):
            return [("find", {"name": "*." + word})]
    if verb == "grep":
        said = (
            r"\b(?:with|for|mentions?(?: of)?|grep(?: -r)?|contains?|find|says?|about|down|text|spot|locate)"
        )
        said += (
            r" (?!all|any|every|the |in |text|for |it |of |lines|mention|file)(\w+)|(\w+) (?:is )?mentioned"
        )
        said += r"|\b(\w+) in (?:any|it\b|them)|\b(?:does|is|wrote|if|where) (\w+) (?:is |come|appear|in )"
        hits = [next(filter(None, h)) for h in re.findall(said, clause, re.IGNORECASE)]
        pattern = text or next(iter(new), None) or next(iter(hits), None)
        return [("grep", {"pattern": pattern, **({"path": files[0]} if files else {})})] if pattern else []
    return [("find", {"name": name_of("/" + p)}) for p in (old + new)[:1] if verb == "find"]


def _change(verb: str, clause: str, fs: FileSystem, old: Names, new: Names, text: str | None) -> Calls:
    """Calls of the writing verbs."""
    folders = [p for p in old if fs.is_dir(fs.resolve(p))]
    files = [p for p in old if p not in folders]
    placed = [f"{folders[-1]}/{name}" if folders and "/" not in name else name for name in new]
    if verb in ("append", "write", "touch", "create") and text and (files or new):
        return [("append" if verb == "append" else "write", {"path": (files or placed)[0], "content": text})]
    if verb == "mkdir" and new:
        lone = {p for p in placed if fs.resolve(p.rpartition("/")[0] or ".") not in fs.nodes}
        return [("mkdir", {"path": p, **({"parents": True} if p in lone else {})}) for p in placed]
    if verb in ("touch", "create", "write") and new and not files:
        return [("touch", {"path": p}) for p in placed]
    if verb in ("rename", "cp") and old and new:
        place = old[0].rpartition("/")[0] if verb == "rename" else ""
        target = f"{place}/{new[0]}" if place and "/" not in new[0] else new[0]
        more = {"recursive": True} if verb == "cp" and old[0] in folders else {}
        return [("mv" if verb == "rename" else "cp", {"source": old[0], "destination": target, **more})]
    if verb == "rmdir" and folders:
        return [("rmdir", {"path": folders[0]})]
    if verb in ("rm", "rmdir"):
        return [("rm", {"path": p, **({} if files else {"recursive": True})}) for p in files or folders]
    if folders and (files or len(folders) > 1):  # something and a place for it
        tool, target = "cp" if verb == "cp" else "mv", folders[-1]
        sources = [p for p in old if p != target]
        more = [{"recursive": True} if tool == "cp" and p in folders else {} for p in sources]
        return [(tool, {"source": p, "destination": target, **m}) for p, m in zip(sources, more, strict=True)]
    if files and re.search(r"\bout of\b|\bhere\b|(this|current) (folder|directory)", clause):
        return [("mv", {"source": files[0], "destination": "."})]
    if verb == "mv" and old and new:
        return [("mv", {"source": old[0], "destination": new[0]})]
    if not folders:
        raise LookupError
    return [("ls", {"path": folders[0]})]


def _names_in(clause: str, fs: FileSystem) -> tuple[list[str], list[str], list[str]]:
    """Paths that exist (as a call needs them), names that do not, and quoted texts, in order of mention."""
    old, new = [], []  # type: Names, Names
    quoted = [next(g for g in m.groups() if g is not None) for m in _QUOTED.finditer(clause)]
    names = [q.rstrip("/") for q in quoted if " " not in q and q]
    plain = _QUOTED.sub(lambda m: " " if " " in m[0] else m[0][1:-1], clause)
    for word in _WORD.findall(plain):
        word = word.rstrip(".,").rstrip("/")
        known = _known(word, plain, fs)
        old += [p for p in known if p not in old]
        like_a_name = re.search(r"\w\.\w{1,5}$|_|/|\w\d", word) or word in names or _after_called(plain, word)
        fits = word in names or not _PLAIN.fullmatch(word)
        if not known and word and like_a_name and word not in new and fits:
            new.append(word)
    for path in [p for p in old if "/" in p]:  # "x.txt in logs": the path is what is meant
        old = [p for p in old if p != path.rpartition("/")[0] or plain.count(p) > 1]
    texts = [q for q in quoted if " " in q]
    if not texts and names and names[-1] in new and len(old) + len(new) > 1 and "." not in names[-1]:
        texts = [] if re.search(r"name|call|folder|dir|^[^\"“]*$", clause) else [quoted[-1]]
    return old, new, texts


def _after_called(clause: str, word: str) -> bool:
    before = r"\b(called|named?|folders?|directory|dir|mkdir|touch|becomes|new|being|make|name for \S+|want)"
    word, last = re.escape(word), r"(?=[.?!,]*$| instead| in )"
    said = rf"{before}:? {word}(?!\w)|\b(to|as|it|and|reads?|be|by|for|is|now) {word}{last}"
    return re.search(said, clause, re.IGNORECASE) is not None


def _known(word: str, clause: str, fs: FileSystem) -> list[str]:
    """Existing paths a word stands for: itself, one inside a directory, or by the first part of its name."""
    if word in ("", "/", ".", "..") or fs.resolve(word) in fs.nodes:
        return [word] if word.strip("./") else []
    below = [p[len(fs.cwd.rstrip("/")) + 1 :] for p in fs.below(fs.cwd)]
    fits = [p for p in below if p.rpartition("/")[2] == word]
    kind = re.search(rf"\b{re.escape(word)}(?: (\w+))? (file|folder|directory)\b", clause, re.IGNORECASE)
    if not fits and kind and not _PLAIN.fullmatch(word):
        fits = [p for p in below if "/" not in p and re.split(r"[._-]", p)[0] == word]
        fits = [p for p in fits if fs.is_dir(fs.resolve(p)) == (kind[2].lower() != "file")]
        fits = [p for p in fits if kind[1] and kind[1] in re.split(r"[._-]", p)] or fits
    if len(fits) > 1:
        named = [p for p in fits if "/" in p and re.search(rf"\b{re.escape(p.partition('/')[0])}\b", clause)]
        if len(named) != 1:
            raise _Unclear(fits)
        return named
    return fits
