"""Every file of a family introduces itself, has its verb and documents its knobs; every family is known."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from house.tree import first_line, parse, sources, walk
from tinygpt.runs._families import KINDS, Kind

# Packages below a family's parent that are not families themselves.
OTHERS = {
    "tinygpt.eval.gate": "the parts of one judgement, not ways to make it",
    "tinygpt.model.cache": "caches belong to the attention that makes them",
    "tinygpt.model.drafting": "modules of infer/speculate's techniques, which train-heads trains",
}
PARENTS = ("model", "data", "train", "infer", "eval", "distill", "interp")


def check(root: Path) -> list[str]:
    """One line for each defect."""
    return [*undocumented(root), *unknown(root), *(line for kind in KINDS for line in _family(root, kind))]


def undocumented(root: Path) -> Iterator[str]:
    """Line 1 of every file is a sentence: help, docs and readers start there."""
    for path in sources(root, "src", "tests", "scripts"):
        line = first_line(path)
        if not line:
            yield f"{path.relative_to(root)}:1: no docstring: say in one sentence what the file is for"
        elif path.name != "__init__.py" and not line.rstrip().endswith((".", "?", ":")):
            yield f"{path.relative_to(root)}:1: line 1 must be a whole sentence, it is shown alone: {line!r}"


def unknown(root: Path) -> Iterator[str]:
    """Families that tinygpt.runs._families does not list, or lists with another verb."""
    known = {k.package: k.verb for k in KINDS}
    for parent in PARENTS:
        for folder in sorted((root / "src/tinygpt" / parent).glob("*/")):
            package = f"tinygpt.{parent}.{folder.name}"
            if not folder.name.startswith("_") and package not in known and package not in OTHERS:
                yield f"{folder.relative_to(root)}: a family that is not in KINDS of runs/_families.py"
    for name, node in walk(root, "src", word="Family"):
        match node:
            case ast.Call(
                func=ast.Name(id="Family"), args=[ast.Constant(value=str(package))], keywords=words
            ):
                verb = next((ast.literal_eval(w.value) for w in words if w.arg == "verb"), "build")
                if known.get(package, verb) != verb or package not in known:
                    place = f"{name}:{node.lineno}"
                    yield f"{place}: Family({package!r}, verb={verb!r}) disagrees with runs/_families.py"


def _family(root: Path, kind: Kind) -> Iterator[str]:
    folder = root / "src" / kind.package.replace(".", "/")
    if not (folder / "__init__.py").is_file():
        yield f"{folder.relative_to(root)}/__init__.py: missing: its docstring is the family's title"
        return
    for path in [*sorted(folder.glob("[!_]*.py")), *sorted(folder.glob("[!_]*/__init__.py"))]:
        name = str(path.relative_to(root))
        text = ast.get_docstring(parse(path)) or ""
        for part in ("Paper:", "Differs:") if kind.cites else ():
            if f"\n{part}" not in text:
                yield f"{name}:1: the docstring has no line `{part}` (`{part} nothing.` is an answer)"
        yield from _verb(name, parse(path), kind.verb)
        yield from _config(name, parse(path))


def _verb(name: str, tree: ast.Module, verb: str) -> Iterator[str]:
    names = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    names |= {a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
    if verb not in names:
        yield f"{name}:1: lacks the family's verb `{verb}`"


def _config(name: str, tree: ast.Module) -> Iterator[str]:
    for cls in (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Config"):
        decorators = [ast.unparse(d) for d in cls.decorator_list]
        if not any("frozen=True" in d and "kw_only=True" in d for d in decorators):
            yield f"{name}:{cls.lineno}: Config must be @dataclass(frozen=True, kw_only=True)"
        for field in (n for n in cls.body if isinstance(n, ast.AnnAssign)):
            match field.annotation:
                case ast.Subscript(
                    value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[_, ast.Constant(), *_])
                ):
                    continue
            yield f"{name}:{field.lineno}: the knob `{ast.unparse(field.target)}` has no help text"
