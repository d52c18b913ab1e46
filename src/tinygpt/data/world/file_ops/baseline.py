"""A rule-based reader of requests, the bar a model has to clear: keywords, quotes and names by regex.

It sees the request and the state, never a template. It is what an engineer writes in an afternoon: split at
"then" and "and", find the verb, find the names that exist and those that do not, ask back when two files fit,
refuse what has no verb. It was written against training tasks only.
"""

from __future__ import annotations

import re
from typing import Any

from tinygpt.data.world.file_ops.file_system import FileSystem, PathError, name_of
from tinygpt.data.world.file_ops.interface import reply_of
from tinygpt.data.world.file_ops.tools import run

_SPLIT = re.compile(
    r"\s*(?:\n|;|&&|[.!?]\s+(?=[A-Za-z\x01])|,?\s*\b(?:and then|then|and after that|after that|afterwards"
    r"|next|finally)\b,?|\b\d[.)]\s|,\s+and\b|\band\b(?=\s+(?:also\s+)?\w+))\s*",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"\"([^\"]*)\"|“([^”]*)”|`([^`]*)`|(?<!\w)'([^']*)'(?!\w)")
_WORD = re.compile(r"[\w./~*-]*\w[\w./~*-]*")
_COUNTS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

# First match wins, so the special comes before the general. A quoted text of several words reads as ".
_VERBS: tuple[tuple[str, str], ...] = (
    ("none", r"\be-?mail|\bweather|\bzip\b|\bcompress|\bprinte?r|\bprintout|\btranslat|\bconvert|\bupload"),
    ("none", r"\bchmod"),
    ("none", r"\bpermission|\bexecut|\bencrypt|\bpassword|\binstall|\bcompile|\bgit\b|\bcommit|\bjoke"),
    ("none", r"\balarm"),
    ("none", r"\bcalendar|\btarball|\bserver\b|\bremind me to\b|\bplay\b|\brun\b|\bsummar|\bsort\b"),
    ("none", r"\bproofread"),
    ("none", r"\bundo\b|\brestore\b|\bsymlink|\bshortcut|\bscreenshot|\baverage\b|\bdownload|\binternet\b"),
    ("tree", r"\btree\b|structure|hierarchy|recursively|organized|overview"),
    ("pwd", r"\bpwd\b|\bwhere (am i|i am|are we)\b"),
    ("pwd", r"(which|what) (folder|directory)\b.*\b(am|are|is this|i'm)\b"),
    ("pwd", r"(current|my|working) (working )?(path|dir|location|directory)$"),
    ("pwd", r"path of (the|this) (current )?(folder|dir)"),
    ("cd_up", r"\bcd \.\.|parent (folder|dir)|one level|\bup one (level|folder|dir)"),
    ("cd_up", r"(folder|directory) above"),
    ("cd_up", r"(one|a) (folder|directory) up\b|\bgo up|out of this folder|leave this (folder|directory)"),
    ("cd", r"\bcd\b|\bhead over\b|\bgo ?(in)?to\b|\bswitch (over )?to\b|\benter\b|\bchange (in)?to\b"),
    ("cd", r"\bnavigate"),
    ("cd", r"\bjump|\bstep into|\bwork in(side)?\b|\btake me\b|the (current|working) directory\b"),
    ("wc", r"\bwc\b|\bcount\b|how many (lines|words|characters)|how long|number of (words|lines)|length of"),
    ("head", r"\bhead\b|\b(first|top|opening) \w+ lines\b|\b\w+ lines from|beginning of|preview"),
    ("grep", r"\bgrep\b|\blines?\b.*\b(with|that)\b(?! says)|\bmention|\bsearch .* for\b|\bappear|\bscan\b"),
    ("grep", r"\blook(ing)? (for|in|through) .* (in|for)\b|files? (contains?|have|has)\b|\bfind .* in\b"),
    ("append", r"\bappend|\badd\b.*\"|\bend of\b|bottom of|>>|\+=|one more line|last line|add a line"),
    ("append", r"\bextend\b"),
    ("write", r"\bwrite .*\"|\bwith the text\b|\bsave\b|overwrite|replace|contents? .*\b(to|become)\b|> "),
    ("write", r"rewrite"),
    ("write", r"\b(says?|put|contains?|note|store|make|with)\b.*\"|\" (in|to|as)\b|\.\w+\"?: \S|: \""),
    ("rename", r"\brename|\bcall(ed)? .* (from now on|instead)|\bnew name\b|\bname (of|to)\b|\bbecomes\b"),
    ("rename", r"should be (called|named)|to be named|it should read"),
    ("cp", r"\bcp\b|\bcopy|\bcopied|\bduplicat|\bclone|\bback(ed)? ?up\b|\bcopies\b|\btwice\b|\btoo\b"),
    ("rmdir", r"\brmdir\b"),
    ("rmdir", r"\b(delete|remove|rid of|drop|erase|rm|need|can|the)\b.*\bempty (folder|directory|dir)\b"),
    ("rmdir", r"\b(it's|is|now) empty|nothing is"),
    ("mkdir", r"\bmkdir\b|^(new |nested )*(folders?|dirs?|directory)\b(?!.* (has|can|should))|\bnested\b"),
    ("mkdir", r"\b(folder|directory) (called|named)"),
    ("mkdir", r"\b(create|make|add|new|need|called|named|set up|start)\b.*\b(folder|director|dir\b)"),
    ("touch", r"\btouch\b|\b(create|make|add|new|need|empty|blank|start|put down)\b.*\bfile"),
    ("touch", r"\bfile (called|named)"),
    ("mv", r"\bmv\b|\bmoved?\b|\bput\b|\bshift|\bdrop\b|\btransfer|\bplace\b|\bbelongs?\b|\binto\b"),
    ("mv", r"\bout of\b"),
    ("mv", r"\brelocate|\bstick\b|\bsend\b|\bbring\b|\bto be (in|inside)\b|should be (in|here)|\bgoes in\b"),
    ("mv", r"->"),
    ("rm", r"\brm\b|\bdel(ete)?d?\b|\bremoved?\b|get rid of|\berase|\btrash|throw .*(away|out)|don't need"),
    ("rm", r"wipe"),
    ("rm", r"\bdiscard|\bgone\b|\bhas to go\b|\bcan (both )?go\b|\bdestroy|\blose\b|\bclear\b|go away"),
    ("rm", r"no longer"),
    ("find", r"\bfind\b|\blocat|\bwhere\b|\blook(ing)? (for|everywhere)\b|\btrack down|\bsearch\b"),
    ("find", r"\bpaths? of\b"),
    ("find", r"\bhunt|\bwhich (folder|directory)\b"),
    ("ls", r"\bls\b|\blist|\b(in|inside) (here|this folder|this directory|the current)|what files"),
    ("ls", r"files here"),
    ("look", r"\bcat\b|\bshow|\bprint|\bread|\bopen|\bdisplay|\bwhat|\bsee\b|\bcontents?\b|\blook\b"),
    ("look", r"\btext of\b"),
    ("create", r"\bcreate\b|\bmake\b|\bnew\b|\bwrite\b"),
)
_COMPILED = [(verb, re.compile(pattern)) for verb, pattern in _VERBS]
# Words of a request that are never the name of something.
_PLAIN = re.compile(
    r"an?|the|its?|in|into|to|as|of|for|with|and|or|is|be|my|me|you|your|please|this|that|here|there|them|called"
    r"|named?|new|files?|folders?|director(y|ies)|dirs?|path|under|from|on|at|by|one|two|another|have|has|keep"
    r"|second|copy|full|empty|blank|make|create|add|set|up|start|put|down|get|want|need|chain|becomes|edit|too|call",
    re.IGNORECASE,
)


Calls = list[tuple[str, dict[str, Any]]]


class _Unclear(Exception):
    """Several files fit; holds them."""


class _Lost(Exception):
    """Not understood."""


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
    except (_Lost, PathError):
        calls = []
    return [reply_of(calls, "" if calls else "I can't do that here.")]


def _clauses(request: str) -> list[str]:
    """Pieces with a verb each; quoted texts are never cut."""
    kept: list[str] = []

    def hide(match: re.Match[str]) -> str:
        kept.append(match[0])
        return f"\x01{len(kept) - 1}\x02"

    def show(piece: str) -> str:
        return re.sub(r"\x01(\d+)\x02", lambda m: kept[int(m[1])], piece).strip()

    pieces: list[str] = []
    for piece in filter(None, map(show, _SPLIT.split(_QUOTED.sub(hide, request)))):
        # A piece without a verb belongs to its neighbour: "a.txt and b.txt", "go ahead and".
        if pieces and (_verb(piece) is None or _verb(pieces[-1]) in (None, "create") and '"' in piece):
            pieces[-1] += " and " + piece
        elif pieces and _verb(pieces[-1]) is None:
            pieces[-1] += " " + piece
        else:
            pieces.append(piece)
    return pieces


def _verb(clause: str) -> str | None:
    plain = _QUOTED.sub(lambda m: '"' if " " in m[0] else m[0][1:-1], clause).lower().rstrip(".?!")
    return next((verb for verb, pattern in _COMPILED if pattern.search(plain)), None)


def _calls_for(clause: str, fs: FileSystem, before: list[dict[str, Any]]) -> Calls:
    verb = _verb(clause)
    if verb is None or verb == "none":
        raise _Lost
    old, new, texts = _names_in(clause, fs)
    if not old and before and re.search(r"\b(it|its|there|that|them)\b", clause):
        last = before[-1]["arguments"]
        old = [path for path in [last.get("path") or last.get("destination")] if path]
        old = [path for path in old if fs.resolve(path) in fs.nodes]
    tail = re.search(r":\s+(\S.*)$", clause)
    text = texts[-1] if texts else tail[1] if tail else None
    if calls := _look(verb, clause, fs, old, new, text) or _change(verb, clause, fs, old, new, text):
        return calls
    raise _Lost


def _look(verb: str, clause: str, fs: FileSystem, old: list[str], new: list[str], text: str | None) -> Calls:
    """Calls of the reading verbs and of cd."""
    folders = [p for p in old if fs.is_dir(fs.resolve(p))]
    files = [p for p in old if p not in folders]
    extension = re.search(
        r"\.(\w+)(?: files?\b| ending| extension|[.?]*$)|\b(\w+) files\b|extension (\w+)", clause
    )
    if verb == "pwd":
        return [("pwd", {})]
    if verb == "cd_up":
        return [("cd", {"path": ".."})]
    if verb == "cd":
        return [("cd", {"path": folders[0]})] if folders and not files else []
    if verb == "tree":
        return [("tree", {"path": folders[0]} if folders else {})]
    if verb in ("ls", "look"):
        if files:
            return [("cat", {"path": p}) for p in files]
        return [("ls", {"path": folders[0]} if folders else {})]
    if verb in ("wc", "head") and files:
        words = re.findall(r"\w+", clause.lower())
        counts = [
            int(w) if w.isdigit() else _COUNTS.index(w) + 1 for w in words if w.isdigit() or w in _COUNTS
        ]
        return [(verb, {"path": files[0], **({"lines": counts[0]} if counts and verb == "head" else {})})]
    if verb in ("grep", "find") and extension and not old and not text and not re.search(r"\w\.\w+ ", clause):
        word = next(g for g in extension.groups() if g)
        if word not in ("all", "the", "these", "my", "which", "any", "those"):
            return [("find", {"name": "*." + word})]
    if verb == "grep":
        said = r"\b(?:with|for|mentions?|grep|contains?|find|says) (?!all|every|the |in |text)(\w+)"
        pattern = text or next(iter(new), None) or next(iter(re.findall(said, clause)), None)
        return [("grep", {"pattern": pattern, **({"path": files[0]} if files else {})})] if pattern else []
    if verb == "find" and (old or new):
        return [("find", {"name": name_of("/" + (old or new)[0])})]
    return []


def _change(
    verb: str, clause: str, fs: FileSystem, old: list[str], new: list[str], text: str | None
) -> Calls:
    """Calls of the writing verbs."""
    folders = [p for p in old if fs.is_dir(fs.resolve(p))]
    files = [p for p in old if p not in folders]
    placed = [f"{folders[-1]}/{name}" if folders and "/" not in name else name for name in new]
    if verb in ("append", "write", "touch", "create") and text and (files or new):
        return [("append" if verb == "append" else "write", {"path": (files or placed)[0], "content": text})]
    if verb == "mkdir" and new:
        more = [{"parents": True} if "/" in p and not folders else {} for p in placed]
        return [("mkdir", {"path": p, **m}) for p, m in zip(placed, more, strict=True)]
    if verb in ("touch", "create", "write") and new and not files:
        return [("touch", {"path": p}) for p in placed]
    if verb in ("rename", "cp") and old and new:
        place = old[0].rpartition("/")[0] if verb == "rename" else ""
        target = f"{place}/{new[0]}" if place and "/" not in new[0] else new[0]
        more = {"recursive": True} if verb == "cp" and old[0] in folders else {}
        return [("mv" if verb == "rename" else "cp", {"source": old[0], "destination": target, **more})]
    if verb in ("rm", "rmdir"):
        if verb == "rmdir" and folders:
            return [("rmdir", {"path": folders[0]})]
        return [
            ("rm", {"path": p, **({"recursive": True} if p in folders else {})}) for p in files or folders
        ]
    if folders and (files or len(folders) > 1):  # something and a place for it
        tool, target = "cp" if verb == "cp" else "mv", folders[-1]
        sources = [p for p in old if p != target]
        more = [{"recursive": True} if tool == "cp" and p in folders else {} for p in sources]
        return [(tool, {"source": p, "destination": target, **m}) for p, m in zip(sources, more, strict=True)]
    if files and re.search(r"\bout of\b|\bhere\b|(this|current) (folder|directory)", clause):
        return [("mv", {"source": files[0], "destination": "."})]
    if verb == "mv" and old and new:
        return [("mv", {"source": old[0], "destination": new[0]})]
    return [("ls", {"path": folders[0]})] if folders else []


def _names_in(clause: str, fs: FileSystem) -> tuple[list[str], list[str], list[str]]:
    """Paths that exist (as a call needs them), names that do not, and quoted texts, in order of mention."""
    old: list[str] = []
    new: list[str] = []
    quoted = [next(g for g in m.groups() if g is not None) for m in _QUOTED.finditer(clause)]
    names = [q.rstrip("/") for q in quoted if " " not in q and q]
    plain = _QUOTED.sub(lambda m: " " if " " in m[0] else m[0][1:-1], clause)
    for word in _WORD.findall(plain):
        word = word.rstrip(".,").rstrip("/")
        known = _known(word, plain, fs)
        old += [p for p in known if p not in old]
        like_a_name = re.search(r"\w\.\w{1,5}$|_|/|\w\d", word) or word in names or _after_called(plain, word)
        if (
            not known
            and word
            and like_a_name
            and word not in new
            and (word in names or not _PLAIN.fullmatch(word))
        ):
            new.append(word)
    # "x.txt in logs": the path is what is meant
    for path in [p for p in old if "/" in p]:
        old = [p for p in old if p != path.rpartition("/")[0] or plain.count(p) > 1]
    texts = [q for q in quoted if " " in q]
    if not texts and names and names[-1] in new and len(old) + len(new) > 1 and "." not in names[-1]:
        texts = (
            [quoted[-1]]
            if re.search(r"[\"“]", clause) and not re.search(r"name|call|folder|dir", clause)
            else []
        )
    return old, new, texts


def _after_called(clause: str, word: str) -> bool:
    before = r"\b(called|named?|folders?|directory|dir|mkdir|touch|becomes|directories|new)"
    last = r"(?=[.?!,]*$| instead| in )"
    said = rf"{before}:? {re.escape(word)}(?!\w)|\b(to|as|it|and|read) {re.escape(word)}{last}"
    return re.search(said, clause, re.IGNORECASE) is not None


def _known(word: str, clause: str, fs: FileSystem) -> list[str]:
    """Existing paths a word stands for: itself, one inside a directory, or by the first part of its name."""
    if not word or word in ("/", ".", ".."):
        return []
    if fs.resolve(word) in fs.nodes:
        return [word]
    below = [p[len(fs.cwd.rstrip("/")) + 1 :] for p in fs.below(fs.cwd)]
    fits = [p for p in below if p.rpartition("/")[2] == word]
    kind = re.search(rf"\b{re.escape(word)}(?: (\w+))? (file|folder|directory)\b", clause, re.IGNORECASE)
    if not fits and kind and not _PLAIN.fullmatch(word):
        fits = [p for p in below if "/" not in p and re.split(r"[._-]", p)[0] == word]
        fits = [p for p in fits if fs.is_dir(fs.resolve(p)) == (kind[2].lower() != "file")]
        typed = [p for p in fits if kind[1] and kind[1] in re.split(r"[._-]", p)]
        fits = typed or fits
    if len(fits) > 1:
        named = [p for p in fits if "/" in p and re.search(rf"\b{re.escape(p.partition('/')[0])}\b", clause)]
        if len(named) != 1:
            raise _Unclear(fits)
        fits = named
    return fits
